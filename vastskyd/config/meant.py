"""Which values are right for an option, and what was meant by an option or a value that is not."""

import difflib
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

from vastskyd.config.settings import CHECKS, EFFECTS, RIGHT, Config
from vastskyd.config.written import written
from vastskyd.core.errors import InvalidError
from vastskyd.core.units import parse_duration_s

_OPTIONS = [(key, *key.rpartition(".")[::2]) for key in RIGHT]  # key, its table, its name
_WRONG = (ValueError, OverflowError, InvalidError, msgspec.ValidationError)
_UNITS_S = {"s": 1, "h": 3600, "d": 86_400}  # as keys end


def _alone(key: str, value: Any) -> Config:
    """With no other setting. ValidationError where it is of the wrong type."""
    tables = value
    for part in reversed(key.split(".")):
        tables = {part: tables}
    return msgspec.convert(tables, Config)


def is_right(key: str, value: Any) -> bool:
    try:
        config = _alone(key, value)
        if key in CHECKS:
            CHECKS[key](config)
    except _WRONG:
        return False
    return True


def fits(key: str, value: Any) -> bool:
    """A table is right as such, whatever is in it."""
    return is_right(key, value) if key in EFFECTS else isinstance(value, dict)


def right_for(key: str) -> str:
    return f"write {RIGHT[key]}"


def nearest(path: tuple[str, ...]) -> tuple[str, str]:
    """The option that was meant, and words for it: the same name in another table, else one of a
    similar name, in this table or another."""
    *above, name = path
    key, table = ".".join(path), ".".join(above)
    if key in RIGHT:
        return key, f"write {key} without quotes around its dots"
    here = {last: known for known, where, last in _OPTIONS if where == table}
    there = {last: known for known, where, last in _OPTIONS if where != table}
    if name in there:
        return there[name], _belongs(there[name])
    for choice in (here, there):
        for last in difflib.get_close_matches(name, choice, 1):
            return choice[last], f"did you mean {choice[last]}?"
    return key, f"the options here are {', '.join(here.values())}"


def _belongs(key: str) -> str:
    if key not in EFFECTS:
        return f"write it as [{key}]"
    where, _, name = key.rpartition(".")
    return f"{name} belongs " + (f"in the table [{where}]" if where else "above the first table")


def better_value(key: str, value: Any) -> str | None:
    """What was meant by a value of the wrong type, or by a mistyped word; None: no idea."""
    for meant in _meanings(key, value):
        if is_right(key, meant):
            return written(meant)
    return None


def _meanings(key: str, value: Any) -> Iterator[Any]:
    if isinstance(value, bool | dict):
        return
    if isinstance(value, str):
        for number in (int, float):
            try:
                yield number(value)
            except (ValueError, OverflowError):
                continue
        yield from difflib.get_close_matches(value.lower(), _words(key), 1)
        yield from _in_units_of(key, value)
    elif isinstance(value, int | float):
        yield written(value)
    yield [value]


def _in_units_of(key: str, text: str) -> Iterator[int | float]:
    """Of "10 min" the number of seconds, hours or days, as the key counts them."""
    unit_s = _UNITS_S.get(key.rpartition("_")[2])
    try:
        value = parse_duration_s(text) / unit_s if unit_s else 0.0
    except InvalidError:
        return
    if unit_s:
        yield int(value) if value.is_integer() else value


def _words(key: str) -> list[str]:
    value = Config().value_of(key)
    return [str(word) for word in type(value)] if isinstance(value, StrEnum) else []
