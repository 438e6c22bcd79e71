"""What is wrong with a configuration file, and what would be right: all of it at once."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vastskyd.config.meant import better_value, fits, is_right, nearest, right_for
from vastskyd.config.pieces import NOT_TOML, Unsound, pieces
from vastskyd.config.places import Path as KeyPath
from vastskyd.config.places import places
from vastskyd.config.settings import COMBINATIONS, EFFECTS, LISTS, RIGHT, Config
from vastskyd.config.written import written, written_key

_SHOWN_LENGTH = 80
_TOML = 'write lines such as port = 8884, and text in quotes, as in rack = "r12"'


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file; 0 is the file as a whole."""

    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True)
class Mistake:
    """`key` is the setting or table that it is about, as far as that can be known; empty if it is
    none in particular. `hides`: what the file says besides is not known. As text, one line that
    editors can read."""

    place: Place
    key: str
    wrong: str
    right: str
    hides: bool = False

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
    if text.startswith("\ufeff"):
        wrong = "it begins with a byte order mark"
        yield Mistake(Place(file, 1), "", wrong, "save it as UTF-8 without one")
        text = text[1:]
    try:
        tables = tomllib.loads(text)
        lines = places(text)
    except NOT_TOML as error:
        yield from _check_pieces(file, text, error)
    else:
        yield from _Checker(file, lines).check(tables, (), ())


def _check_pieces(file: Path, text: str, error: BaseException) -> Iterator[Found]:
    """Of a text that is not TOML. What is wrong with a table's header is found with each of its
    keys, and told once."""
    told: set[Mistake] = set()
    split = tuple(pieces(text))
    if not any(isinstance(piece, Unsound) for piece in split):
        yield Mistake(Place(file, 0), "", f"not TOML: {error}", _TOML, hides=True)
    for piece in split:
        if isinstance(piece, Unsound):
            yield _unsound(file, piece)
            continue
        for each in _Checker(file, piece.places).check(piece.tables, (), ()):
            if isinstance(each, Setting) or each not in told:
                yield each
            if isinstance(each, Mistake):
                told.add(each)


def _unsound(file: Path, found: Unsound) -> Mistake:
    place = Place(file, found.line)
    meant = nearest(found.path)[0] if found.path else ""
    if found.again:
        shown = ".".join(map(written_key, found.path))
        return Mistake(place, meant, f"{shown} {found.wrong}", "write each key and each table once")
    return Mistake(place, meant, found.wrong, _TOML, hides=meant not in RIGHT)


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


class _Checker:
    """`path` is where something stands, `meant` the option that it is, or was meant to be."""

    def __init__(self, file: Path, lines: dict[KeyPath, int]) -> None:
        self._file = file
        self._lines = lines

    def check(
        self, table: dict[str, Any], path: KeyPath, meant: tuple[str, ...]
    ) -> Iterator[Found]:
        for name, value in table.items():
            yield from self._option((*path, name), (*meant, name), value)

    def _option(self, path: KeyPath, meant: tuple[str, ...], value: Any) -> Iterator[Found]:
        key = ".".join(meant)
        if key not in RIGHT or key.count(".") != len(meant) - 1:
            yield from self._unknown(path, meant, value)
        elif key not in EFFECTS and isinstance(value, dict):
            yield from self.check(value, path, meant)
        elif key not in EFFECTS:
            yield self._wrong(path, key, value)
            yield from self._within(value, path, meant)
        elif key in LISTS and isinstance(value, list):
            yield from self._list(path, key, value)
        elif is_right(key, value):
            yield Setting(key, value, self._place(path))
        else:
            yield self._wrong(path, key, value)

    def _unknown(self, path: KeyPath, meant: tuple[str, ...], value: Any) -> Iterator[Mistake]:
        """If one knows what was meant, what would be wrong then is told, too."""
        key, right = nearest(meant)
        if key in RIGHT and not fits(key, value):
            right = f"{right}{'' if right.endswith('?') else ';'} {right_for(key)}"
        shown = ".".join(map(written_key, meant))
        yield self._mistake(path, key, f"there is no option {shown}", right)
        if key in RIGHT and key not in EFFECTS:
            yield from self._within(value, path, tuple(key.split(".")))

    def _within(self, value: Any, path: KeyPath, meant: tuple[str, ...]) -> Iterator[Mistake]:
        """What is wrong in a table that is not where it belongs: a setting it is not."""
        if isinstance(value, dict):
            found = self.check(value, path, meant)
            yield from (each for each in found if isinstance(each, Mistake))
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, dict):
                    yield from self._within(each, (*path, index), meant)

    def _list(self, path: KeyPath, key: str, value: list[Any]) -> Iterator[Found]:
        """Each element that is wrong for itself, or the same as another, and the list as such."""
        rule = LISTS[key]
        mistakes: list[Mistake] = []
        seen: list[object] = []
        for index, each in enumerate(value):
            if not is_right(key, [each]):
                wrong = f"{key} cannot have {_shown(each)}"
            elif rule.same is not None and rule.same(each) in seen:
                wrong = f"{key} has {_shown(each)} already"
            else:
                seen += [] if rule.same is None else [rule.same(each)]
                continue
            mistakes.append(self._mistake((*path, index), key, wrong, right_for(key)))
        if len(value) < rule.least:
            mistakes.append(self._wrong(path, key, value))
        elif len(value) > rule.most:
            wrong = f"{key} cannot have {len(value)} elements"
            mistakes.append(self._mistake(path, key, wrong, right_for(key)))
        yield from mistakes or (Setting(key, value, self._place(path)),)

    def _wrong(self, path: KeyPath, key: str, value: Any) -> Mistake:
        better = better_value(key, value)
        name = key.rpartition(".")[2]
        right = right_for(key) if better is None else f"did you mean {name} = {better}?"
        return self._mistake(path, key, f"{key} cannot be {_shown(value)}", right)

    def _mistake(self, path: KeyPath, key: str, wrong: str, right: str) -> Mistake:
        return Mistake(self._place(path), key, wrong, right)

    def _place(self, path: KeyPath) -> Place:
        return Place(self._file, self._lines[path])


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return "a list of tables"
    try:
        text = written(value)
    except RecursionError:
        return "what is nested so deeply"
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."
