"""Records to D-Bus values and back: one conversion for every type of core.api and core.answers.

A record is a{sv}, its members under their own names; None is left out. Strings and words of
enums are s, booleans b, durations d; an int is t if its name ends in _bytes, else x. A point in
time is t, in microseconds as all of systemd's (busctl prints a double with six digits), and its
name has no _s: `started` is a job's started_s. A tuple of records is aa{sv}, of words as, of fixed
shape a struct. The signature follows from the declared type and never from the value, so that an
empty list has the same type as a full one.

Reading is generous with what a newer peer may add: unknown members are dropped and absent
members that may be None are None. `strict` takes neither: it is for what callers ask.
"""

from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from vastskyd.core.errors import InvalidError
from vastskyd.core.model import Duration, PointInTime, Record
from vastskyd.dbus.messages import Variant

R = TypeVar("R", bound=Record)

_POINT_IN_TIME: Final = inspect.type_info(PointInTime)
_DURATION: Final = inspect.type_info(Duration)
_SECOND_US: Final = 1_000_000
OBJECT: Final = "object"  # beside the members of a record that describes one: its path


@lru_cache(maxsize=256)
def members(record: type[Record]) -> dict[str, inspect.Field]:
    """The record's members by their names on D-Bus, in order."""
    described = inspect.type_info(record)
    if not isinstance(described, inspect.StructType):
        raise TypeError(f"{record.__name__} is no record")
    return {_said_as(member): member for member in described.fields}


def _said_as(member: inspect.Field) -> str:
    return member.name.removesuffix("_s") if is_point_in_time(member.type) else member.name


def is_point_in_time(kind: inspect.Type) -> bool:
    return _present(kind) == _POINT_IN_TIME


def _present(kind: inspect.Type) -> inspect.Type:
    """`X` of `X | None`."""
    if isinstance(kind, inspect.UnionType):
        (one,) = (part for part in kind.types if not isinstance(part, inspect.NoneType))
        return one
    return kind


def _may_be_none(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.UnionType) and kind.includes_none


def signature(kind: inspect.Type, name: str = "") -> str:
    """The D-Bus signature of a member of this declared type and name."""
    kind = _present(kind)
    if kind == _POINT_IN_TIME:
        return "t"
    if kind == _DURATION:
        return "d"
    match kind:
        case inspect.BoolType():
            return "b"
        case inspect.IntType():
            return "t" if name.endswith("_bytes") else "x"
        case inspect.StrType() | inspect.EnumType():
            return "s"
        case inspect.StructType():
            return "a{sv}"
        case inspect.VarTupleType(item_type=item):
            return "a" + signature(item, name)
        case inspect.TupleType(item_types=items):
            return "(" + "".join(signature(item, name) for item in items) + ")"
    raise TypeError(f"{name}: no D-Bus type for {kind!r}")


def nothing(kind: str) -> Any:
    """What stands for "there is none" where a value of this signature has to be."""
    return {"s": "", "o": "/", "b": False, "d": 0.0, "a{sv}": {}}.get(
        kind, [] if kind.startswith("a") else 0
    )


def text(value: str) -> str:
    """What D-Bus can carry of it: for a NUL byte or half a surrogate pair in one answer (a
    disk's serial, say) the bus would cut the whole connection."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def value_out(value: Any) -> Any:
    """The bare D-Bus value, as dbus-next takes it, of a member of a record."""
    if isinstance(value, Record):
        return record_out(value)
    if isinstance(value, tuple):
        return [value_out(item) for item in value]
    if isinstance(value, str):  # words of enums are strings too
        return text(str(value))
    return value


def member_out(record: Record, name: str) -> Any:
    """The same of the member that has this name on D-Bus; None as it is."""
    member = members(type(record))[name]
    value = getattr(record, member.name)
    if value is None or not is_point_in_time(member.type):
        return value_out(value)
    return max(0, round(value * _SECOND_US))  # a clock before 1970 is wrong


def record_out(record: Record) -> dict[str, Variant]:
    answer = {}
    for name, member in members(type(record)).items():
        value = member_out(record, name)
        if value is not None:
            answer[name] = Variant(signature(member.type, name), value)
    return answer


def plain(value: Any) -> Any:
    """Variants unwrapped, at any depth."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _value_in(kind: inspect.Type, value: Any, name: str, strict: bool) -> Any:
    """`value`, of a member of this name on D-Bus, as core has it but for its type."""
    if is_point_in_time(kind):
        if type(value) is not int or value < 0:  # a boolean is no number
            raise InvalidError(f"{name}: microseconds since 1970 are a whole number")
        return value / _SECOND_US
    match _present(kind), value:
        case inspect.StructType(cls=record), dict() if issubclass(record, Record):
            return _members_in(record, value, strict)
        case inspect.VarTupleType(item_type=item), list():
            return [_value_in(item, each, name, strict) for each in value]
    return value


def _members_in(record: type[Record], values: dict[str, Any], strict: bool) -> dict[str, Any]:
    """`values` under core's names. Unless `strict`, without those that `record` does not know, and
    with None for those it lacks."""
    known = members(record)
    if strict and (unknown := values.keys() - known.keys() - {OBJECT}):
        raise InvalidError(f"{record.__name__} has no member {', '.join(sorted(unknown))}")
    answer = {}
    for name, member in known.items():
        if name in values:
            answer[member.name] = _value_in(member.type, values[name], name, strict)
        elif member.required and (strict or not _may_be_none(member.type)):
            raise InvalidError(f"{record.__name__} lacks {name}")
        elif member.required:
            answer[member.name] = None
    return answer


def _words_of(record: type[Record], member: str) -> tuple[str, ...]:
    """Those that such a member can be, or each of its elements."""
    field = members(record).get(member.partition("[")[0])
    kind = None if field is None else _present(field.type)
    if isinstance(kind, inspect.VarTupleType):
        kind = kind.item_type
    return tuple(map(str, kind.cls)) if isinstance(kind, inspect.EnumType) else ()


def record_in(record: type[R], values: dict[str, Any], *, strict: bool = False) -> R:
    """The record of these members, Variants or not. InvalidError says which does not fit."""
    bare = _members_in(record, plain(values), strict)
    try:
        return msgspec.convert(bare, record)
    except msgspec.ValidationError as error:
        what, _, where = str(error).replace("$.", "").replace("`", "").partition(" - at ")
        known = _words_of(record, where)
        raise InvalidError(
            f"{where}: {what[0].lower()}{what[1:]}" if where else what,
            hint=f"it is one of {', '.join(known)}" if known else "",
        ) from None
