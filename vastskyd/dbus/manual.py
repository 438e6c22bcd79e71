"""org.vastsky.Vastsky1(5), from the same table that answers calls.

`python3 -m vastskyd.dbus.manual` prints what docs/man/org.vastsky.Vastsky1.5.md holds.
"""

import textwrap
from collections.abc import Iterable, Iterator

from vastskyd.core.errors import BY_CODE
from vastskyd.dbus.actions import Action
from vastskyd.dbus.errors import ERROR_PREFIX
from vastskyd.dbus.inflight import MAX_CALLS_EACH, MAX_CALLS_USER, MAX_CALLS_USERS
from vastskyd.dbus.interfaces import INTERFACES, OF_KIND
from vastskyd.dbus.manual_words import (
    ACTIONS,
    DESCRIPTION,
    ERRORS_OF_ANY,
    EXAMPLES,
    FILES,
    GIVEN,
    JOBS,
    OBJECTS,
    PLACES,
    SEE_ALSO,
    TITLE,
    VALUES,
    VERSIONING,
    WORDS,
)
from vastskyd.dbus.messages import LENGTH_MAX_BYTES
from vastskyd.dbus.paths import BUS_NAME, ROOT, Kind
from vastskyd.dbus.records import all_records, answered, described, purpose
from vastskyd.dbus.records import shown as shown_records
from vastskyd.dbus.table import SILENT, Interface, Method, Property, Signal, Typed
from vastskyd.dbus.variants import members

_WIDTH = 100
_ONLY_ASKED = (OF_KIND[Kind.NODE], OF_KIND[Kind.VOLUME])
_MARKUP = str.maketrans({char: f"\\{char}" for char in "_*<>[]`"})


def manual() -> str:
    parts = [
        TITLE,
        "# NAME\n",
        f"{BUS_NAME} - the D-Bus interface of vastskyd\n",
        "# DESCRIPTION\n",
        DESCRIPTION,
        "# OBJECTS\n",
        *_objects(),
        OBJECTS,
    ]
    for interface in INTERFACES:
        parts += _interface(interface)
    parts += ["# ARGUMENTS AND OPTIONS\n", *_words(), "# VALUES\n", VALUES, "# JOBS\n", JOBS]
    parts += ["# RECORDS\n", *_records()]
    parts += ["# ERRORS\n", *_errors(), "# WHO MAY CALL\n", *_actions()]
    parts += ["# FILES\n", FILES, "# EXAMPLES\n", EXAMPLES, "# VERSIONING\n", VERSIONING]
    parts += ["# SEE ALSO\n", SEE_ALSO]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _plain(text: str) -> str:
    return text.translate(_MARKUP)


def _paragraph(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=indent and ":   ",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _item(term: str, text: str) -> str:
    return f"{term}\n{_paragraph(text, '    ')}\n"


def _objects() -> Iterator[str]:
    yield _item(f"*{_plain(ROOT)}*", PLACES[""])
    for kind in Kind:
        yield _item(f"*{_plain(f'{ROOT}/{kind}/')}ID*", f"{PLACES[kind]} {_shows(OF_KIND[kind])}")


def _shows(interface: Interface) -> str:
    return f"Interface **{interface.name}**."


# --- an interface


def _interface(interface: Interface) -> Iterator[str]:
    yield f"# THE {interface.short.upper()} INTERFACE\n"
    yield _paragraph(f"**{interface.name}**: {interface.purpose}") + "\n"
    yield _synopsis(interface)
    yield "## Methods\n"
    for method in interface.methods:
        yield _item(f"**{method.name}**", _said_of(method))
    if interface.signals:
        yield "## Signals\n"
        for signal in interface.signals:
            told = (f"*{name}*: {GIVEN[name]}" for name, _ in signal.gives)
            yield _item(f"**{signal.name}**", " ".join((_plain(signal.purpose), *told)))
    yield "## Properties\n"
    for shown in interface.properties:
        said = [
            _plain(shown.purpose),
            *(f"*{each.__name__}*." for each in shown_records(interface, shown)[:1]),
        ]
        yield _item(f"**{shown.name}**", " ".join((*said, _change(interface, shown))))


def _synopsis(interface: Interface) -> str:
    """As busctl and the manuals of systemd write it."""
    lines = [f"interface {interface.name} {{", "  methods:"]
    lines += [f"    {line}" for method in interface.methods for line in _called(method)]
    if interface.signals:
        lines += ["  signals:"]
        lines += [f"    {line}" for signal in interface.signals for line in _sent(signal)]
    lines += ["  properties:"]
    lines += [f"    readonly {interface.kind(p)} {p.name};" for p in interface.properties]
    return "\n".join(f"    {line}" for line in [*lines, "}"]) + "\n"


def _called(method: Method) -> list[str]:
    arguments = [("in ", *typed) for typed in method.takes]
    arguments += [("out", *typed) for typed in method.gives]
    return _list(method.name, [f"{way} {kind} {name}" for way, name, kind in arguments])


def _sent(signal: Signal) -> list[str]:
    return _list(signal.name, [f"{kind} {name}" for name, kind in signal.gives])


def _list(name: str, arguments: list[str]) -> list[str]:
    first, *others = arguments
    lines = [f"{name}({first}", *(" " * (len(name) + 1) + argument for argument in others)]
    return [f"{line}," for line in lines[:-1]] + [f"{lines[-1]});"]


def _said_of(method: Method) -> str:
    said = [_plain(method.purpose)]
    own = [typed for typed in method.known_options if typed[0] != SILENT]
    if own:
        said.append(f"Options: {', '.join(_option(method, typed) for typed in own)}.")
    if records := answered(method):
        said.append(f"Answer: *{records[0].__name__}*.")
    if method.raises:
        said.append(method.errors_said.strip())
    if method.action is not None:
        said.append(_plain(method.action_said.strip()))
    return " ".join(said)


def _option(method: Method, typed: Typed) -> str:
    name, kind = typed
    default = members(method.request)[name].default
    match default:
        case bool() | None | 0 | "" | ():
            unless = ""
        case float():
            unless = f", {default:g} unless given"
        case _:
            unless = f", {default} unless given"
    return f"{_plain(name)} ({kind}{unless})"


def _change(interface: Interface, shown: Property) -> str:
    if not shown.changes:
        return "Constant."
    return "No signal tells." if interface in _ONLY_ASKED else "PropertiesChanged tells."


# --- what all have in common


def _words() -> Iterator[str]:
    for name, text in WORDS.items():
        yield _item(f"**{_plain(name)}** ({', '.join(sorted(_kinds(name)))})", text)


def _kinds(name: str) -> set[str]:
    return {kind for method in _methods() for known, kind in _taken(method) if known == name}


def _methods() -> Iterator[Method]:
    for interface in INTERFACES:
        yield from interface.methods


def _taken(method: Method) -> tuple[Typed, ...]:
    return (*method.takes, *method.known_options)


def _records() -> Iterator[str]:
    for record in all_records():
        yield f"## {record.__name__}\n"
        if said := purpose(record):
            yield _paragraph(_plain(said)) + "\n"
        for name, kind, text in described(record):
            yield _item(f"**{_plain(name)}** ({kind})", _plain(text[0].upper() + text[1:]) + ".")


def _errors() -> Iterator[str]:
    yield _paragraph(
        "An error has one string: its first line is the message; what follows the first newline,"
        " if anything, is a hint at the next step."
    )
    yield ERRORS_OF_ANY
    yield _paragraph(
        "A wrong call gets the bus's own errors, of *org.freedesktop.DBus.Error*:"
        " *UnknownObject*, *UnknownInterface*, *UnknownMethod*, *UnknownProperty*,"
        " *PropertyReadOnly* (every property is) and *InvalidArgs* (another signature). So does"
        " whoever has too many calls in flight, with a word on what to do (*LimitsExceeded*):"
        f" {MAX_CALLS_EACH} of one connection, {MAX_CALLS_USER} of a user other than root, and"
        f" {MAX_CALLS_USERS} of all of these; root has room besides. A call of more than"
        f" {LENGTH_MAX_BYTES // 1024} KiB gets that error, too."
    )
    for code, kind in BY_CODE.items():
        text = " ".join((kind.__doc__ or "").split())
        yield _item(f"**{ERROR_PREFIX}{code}**", _plain(text))


def _actions() -> Iterator[str]:
    yield ACTIONS
    for action in Action:
        plain = _named(method.name for method in _methods() if method.action is action)
        destroying = _named(
            f"{method.name} with {' or '.join(method.destroys)}"
            for method in _methods()
            if method.destroys and action is Action.DESTROY_DATA
        )
        yield _item(f"**{action.id}**", _plain(", ".join((*plain, *destroying))) + ".")


def _named(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


if __name__ == "__main__":
    print(manual(), end="")  # noqa: T201
