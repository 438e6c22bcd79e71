"""The records of the interfaces, described: each member with its type and meaning."""

from collections.abc import Iterator

from msgspec import inspect

from vastskyd.core.model import Record
from vastskyd.dbus.interfaces import INTERFACES
from vastskyd.dbus.record_words import RECORDS
from vastskyd.dbus.table import Interface, Method, Property
from vastskyd.dbus.variants import is_point_in_time, members, signature

Described = tuple[str, str, str]  # a member's name, its signature, what it means


def answered(method: Method) -> tuple[type[Record], ...]:
    """The records that its answer consists of, an outer one before those that are in it."""
    if "a{sv}" not in method.out_signature:
        return ()
    if method.one_of or method.gives[0][0] != "answer":
        first = next(iter(members(method.answer).values()))
        return tuple(_unique(_inside(first.type)))
    return tuple(_unique(_with_inside(method.answer)))


def shown(interface: Interface, prop: Property) -> tuple[type[Record], ...]:
    """The records that the property's value consists of."""
    if prop.kind:
        return ()
    return tuple(_unique(_inside(members(interface.record)[prop.member].type)))


def all_records() -> tuple[type[Record], ...]:
    """In the order of their names."""
    found: set[type[Record]] = set()
    for interface in INTERFACES:
        for method in interface.methods:
            found.update(answered(method))
        for prop in interface.properties:
            found.update(shown(interface, prop))
    return tuple(sorted(found, key=lambda record: record.__name__))


def purpose(record: type[Record]) -> str:
    return _as_here(RECORDS[record.__name__].purpose)


def described(record: type[Record]) -> Iterator[Described]:
    words = RECORDS[record.__name__].members
    for name, field in members(record).items():
        inner = ["microseconds since 1970"] if is_point_in_time(field.type) else []
        inner += [each.__name__ for each in _records(field.type)]
        inner += [f"one of {', '.join(each)}" for each in _choices(field.type)]
        yield name, ", ".join((signature(field.type, name), *inner)), _as_here(words[field.name])


def said_of(record: type[Record]) -> str:
    """A line for each member, after one with the record's name."""
    lines = [f"{record.__name__}: {purpose(record)}".rstrip(": ")]
    lines += [f"{name} ({kind}): {text}." for name, kind, text in described(record)]
    return "\n".join(lines)


def _as_here(text: str) -> str:
    """JSON has null, and the command line its options."""
    return text.replace("null:", "left out:").replace("Null:", "Left out:").replace("--", "")


def _with_inside(record: type[Record]) -> Iterator[type[Record]]:
    yield record
    for field in members(record).values():
        yield from _inside(field.type)


def _inside(kind: inspect.Type) -> Iterator[type[Record]]:
    for record in _records(kind):
        yield from _with_inside(record)


def _records(kind: inspect.Type) -> Iterator[type[Record]]:
    match kind:
        case inspect.StructType(cls=record) if issubclass(record, Record):
            yield record
        case inspect.VarTupleType(item_type=item):
            yield from _records(item)
        case inspect.TupleType(item_types=kinds) | inspect.UnionType(types=kinds):
            for each in kinds:
                yield from _records(each)


def _choices(kind: inspect.Type) -> Iterator[list[str]]:
    match kind:
        case inspect.EnumType(cls=words):
            yield [str(word) for word in words]
        case inspect.VarTupleType(item_type=item):
            yield from _choices(item)
        case inspect.UnionType(types=kinds):
            for each in kinds:
                yield from _choices(each)


def _unique(found: Iterator[type[Record]]) -> dict[type[Record], None]:
    return dict.fromkeys(found)
