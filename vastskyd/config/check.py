"""What is wrong with a configuration file, and what would be right: all of it at once."""

import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from vastskyd.config.places import Path as KeyPath
from vastskyd.config.places import places
from vastskyd.config.settings import CHECKS, COMBINATIONS, EFFECTS, RIGHT, Config
from vastskyd.config.written import written, written_key
from vastskyd.core.errors import InvalidError

_SHOWN_LENGTH = 80
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)| \(at end of document\)")
_OPTIONS = [(key, *key.rpartition(".")[::2]) for key in RIGHT]  # key, its table, its name
_WRONG = (ValueError, OverflowError, InvalidError, msgspec.ValidationError)


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file; 0 is the file as a whole."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True)
class Mistake:
    """`key` is the setting that it is about, as far as that can be known; empty if it is the file
    as a whole. As text, one line that editors can read."""

    place: Place
    key: str
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.place}: {self.wrong}; {self.right}"


@dataclass(frozen=True)
class Setting:
    """What a file sets."""

    key: str
    value: Any
    place: Place


Found = Setting | Mistake


def check_text(file: Path, text: str) -> Iterator[Found]:
    """Each setting of the text that is right for itself, and each mistake."""
    try:
        tables = tomllib.loads(text)
        lines = places(text)
    except ValueError as error:  # TOMLDecodeError is one, a number of 5000 digits gives another
        yield _not_toml(file, text, str(error))
    except RecursionError:
        yield Mistake(Place(file, 0), "", "nested too deeply", "write settings, as in port = 8884")
    else:
        yield from _Checker(file, lines).check(tables, ())


def check_together(
    config: Config, origins: dict[str, Place], doubtful: set[str]
) -> Iterator[Mistake]:
    """What settings say together and cannot, unless one of them is doubtful. The line is that of
    the first that is set."""
    for each in COMBINATIONS:
        if doubtful.isdisjoint(each.keys) and not each.fits(config):
            place = next(origins[key] for key in each.keys if key in origins)
            values = (_with_place(config, key, origins, place) for key in each.keys)
            yield Mistake(place, each.keys[0], each.wrong.format(*values), each.right)


def _with_place(config: Config, key: str, origins: dict[str, Place], here: Place) -> str:
    shown = f"{key} = {written(config.value_of(key))}"
    origin = origins.get(key)
    if origin is None:
        return f"{shown}, the default"
    return shown if origin == here else f"{shown}, at {origin}"


def _not_toml(file: Path, text: str, said: str) -> Mistake:
    match = _AT_LINE.search(said)
    end = text.rstrip().count("\n") + 1
    line = int(match[1] or end) if match else 0
    if text.startswith("\ufeff"):
        return Mistake(
            Place(file, 1), "", "it begins with a byte order mark", "save it as UTF-8 without one"
        )
    what = _AT_LINE.sub("", said)
    return Mistake(
        Place(file, line), "", f"not TOML: {what[:1].lower()}{what[1:]}",
        'write lines such as port = 8884, each key once, and text in quotes, as in rack = "r12"',
    )  # fmt: skip


class _Checker:
    def __init__(self, file: Path, lines: dict[KeyPath, int]) -> None:
        self._file = file
        self._lines = lines

    def check(self, table: dict[str, Any], above: tuple[str, ...]) -> Iterator[Found]:
        for name, value in table.items():
            path = (*above, name)
            key = ".".join(path)
            if key not in RIGHT or key.count(".") != len(above):
                shown = ".".join(map(written_key, path))
                meant, right = _nearest(path)
                yield self._mistake(path, meant, f"there is no option {shown}", right)
            elif key not in EFFECTS and isinstance(value, dict):
                yield from self.check(value, path)
            elif _is_right(key, value):
                yield Setting(key, value, self._place(path))
            else:
                yield from self._wrong_value(path, key, value)

    def _wrong_value(self, path: tuple[str, ...], key: str, value: Any) -> Iterator[Mistake]:
        """Of a list each element that is wrong for itself, if there are any."""
        elements = value if isinstance(value, list) and _takes_lists(key) else ()
        wrong = [
            self._mistake((*path, index), key, f"{key} cannot have {_shown(each)}", _right(key))
            for index, each in enumerate(elements)
            if not _is_right(key, [each])
        ]
        yield from wrong
        if not wrong:
            better = _better(key, value)
            right = _right(key) if better is None else f"did you mean {path[-1]} = {better}?"
            yield self._mistake(path, key, f"{key} cannot be {_shown(value)}", right)

    def _mistake(self, path: KeyPath, key: str, wrong: str, right: str) -> Mistake:
        return Mistake(self._place(path), key, wrong, right)

    def _place(self, path: KeyPath) -> Place:
        return Place(self._file, self._lines[path])


def _alone(key: str, value: Any) -> Config:
    """With no other setting. ValidationError where it is of the wrong type."""
    tables = value
    for part in reversed(key.split(".")):
        tables = {part: tables}
    return msgspec.convert(tables, Config)


def _is_right(key: str, value: Any) -> bool:
    try:
        config = _alone(key, value)
        if key in CHECKS:
            CHECKS[key](config)
    except _WRONG:
        return False
    return True


def _takes_lists(key: str) -> bool:
    try:
        _alone(key, [])
    except msgspec.ValidationError:
        return False
    return True


def _right(key: str) -> str:
    return f"write {RIGHT[key]}"


def _shown(value: object) -> str:
    text = "a table" if isinstance(value, dict) else written(value)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


# --- what was meant ----------------------------------------------------------------------------


def _nearest(path: tuple[str, ...]) -> tuple[str, str]:
    """The option that was meant, and words for it: the same name in another table, else one of a
    similar name, in this table or another."""
    *above, name = path
    key, table = ".".join(path), ".".join(above)
    if key in RIGHT:
        return key, f"write {key} without quotes around its dots"
    here = {last: known for known, where, last in _OPTIONS if where == table}
    there = {last: known for known, where, last in _OPTIONS if where != table}
    if name in there:
        where = there[name].rpartition(".")[0]
        return there[name], f"{name} belongs " + (
            f"in the table [{where}]" if where else "above the first table"
        )
    for choice in (here, there):
        for last in difflib.get_close_matches(name, choice, 1):
            return choice[last], f"did you mean {choice[last]}?"
    return key, f"the options here are {', '.join(here.values())}"


def _better(key: str, value: Any) -> str | None:
    """What was meant by a value of the wrong type, or by a mistyped word; None: no idea."""
    for meant in _meanings(key, value):
        if _is_right(key, meant):
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
    elif isinstance(value, int | float):
        yield written(value)
    yield [value]


def _words(key: str) -> list[str]:
    value = Config().value_of(key)
    return [str(word) for word in type(value)] if isinstance(value, StrEnum) else []
