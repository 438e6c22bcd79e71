"""The statements of a text that is not TOML as a whole, so that what is right of it can be checked.

tomllib stops at the first mistake, and who mends that one would learn of the next only then.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vastskyd.config.places import KEY, Path, key_path, places

NOT_TOML = (ValueError, RecursionError)  # a number of 5000 digits is a mere ValueError

_LINES_MAX = 256  # of one statement
_AT = re.compile(r" \(at (?:line \d+, column \d+|end of document)\)")
_OPEN = "(at end of document)"
_DOTTED = rf"(?:{KEY})(?:[ \t]*\.[ \t]*(?:{KEY}))*"
_BEGINS_ENTRY = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_BEGINS_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*({_DOTTED})")
# No element of a list begins so.
_WORD = r"(?!(?:true|false|inf|nan)\b)[A-Za-z_]"
_LIKE_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*{_WORD}")
_LIKE_ENTRY = re.compile(rf"[ \t]*{_WORD}")


@dataclass(frozen=True)
class Piece:
    """A statement within its table, as if there were no other. `places`: as those of the text."""

    tables: dict[str, Any]
    places: dict[Path, int]


@dataclass(frozen=True)
class Unsound:
    """A statement that is not TOML, or that says something `again`. `path`: what it may set; empty:
    anything."""

    line: int
    path: tuple[str, ...]
    wrong: str
    again: bool = False


def pieces(text: str) -> Iterator[Piece | Unsound]:
    """In their order. What stands below a header without a name is left out."""
    return _Splitter(text.replace("\r\n", "\n").split("\n")).pieces()


def said(error: BaseException) -> str:
    """By tomllib, without the place."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, tomllib.TOMLDecodeError):
        return "a number of too many digits"
    what = _AT.sub("", str(error))
    return f"{what[:1].lower()}{what[1:]}"


class _Splitter:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0  # the index of the line that is looked at
        self._header = ""
        self._header_line = 1
        self._table: tuple[str, ...] = ()
        self._lost = False  # what follows is in a table that cannot be told
        self._seen: dict[tuple[str, ...], int] = {}
        self._entries: dict[tuple[str, ...], int] = {}
        self._lists: set[tuple[str, ...]] = set()

    def pieces(self) -> Iterator[Piece | Unsound]:
        while self._at < len(self._lines):
            line = self._lines[self._at].lstrip(" \t")
            if not line or line.startswith("#"):
                self._at += 1
            elif line.startswith("["):
                yield from self._header_here(line)
            else:
                found = self._entry_here()
                yield from () if self._lost else found

    def _header_here(self, line: str) -> Iterator[Piece | Unsound]:
        self._at += 1
        wrong = _wrong(line)
        self._table = _named(_BEGINS_HEADER, line)
        self._lost = not self._table
        self._header_line = self._at
        self._header = line
        if wrong:
            yield Unsound(self._at, self._table, f"not TOML: {wrong}")
            match = _BEGINS_HEADER.match(line)
            self._header = f"[{match[1]}]" if match else ""
        if self._lost:
            return
        yield self._piece(self._at, "")
        if self._header.startswith("[["):
            self._lists.add(self._table)
        yield from self._once(self._at, self._table)

    def _entry_here(self) -> list[Piece | Unsound]:
        number = self._at + 1
        length, wrong = self._measure()
        text = "\n".join(self._lines[self._at : self._at + length])
        self._at += length
        inner = _named(_BEGINS_ENTRY, text)
        path = (*self._table, *inner)
        if wrong:
            return [Unsound(number, path if inner else (), f"not TOML: {wrong}")]
        found = [self._piece(number, text), *self._once(number, path)]
        self._entries.setdefault(path, number)
        for end in range(len(self._table) + 1, len(path)):
            self._seen.setdefault(path[:end], number)
        return found

    def _piece(self, number: int, text: str) -> Piece | Unsound:
        document = f"{self._header}\n{text}"
        try:
            lines = places(document)
            tables = tomllib.loads(document)
        except NOT_TOML as error:
            return Unsound(number, self._table, f"not TOML: {said(error)}")
        of_text = {
            path: self._header_line if line == 1 else number + line - 2
            for path, line in lines.items()
        }
        return Piece(tables, of_text)

    def _once(self, number: int, path: tuple[str, ...]) -> Iterator[Unsound]:
        if any(path[:end] in self._lists for end in range(1, len(path) + 1)):
            return  # in another element of the list it may be again
        for end in range(1, len(path)):
            if path[:end] in self._entries:  # whole, by an inline table
                yield Unsound(number, path[:end], _already(self._entries[path[:end]]), again=True)
                return
        before = self._seen.setdefault(path, number)
        if before != number:
            yield Unsound(number, path, _already(before), again=True)

    def _measure(self) -> tuple[int, str]:
        """How many lines the statement has, and what is wrong with it. One that has no end goes on
        up to what looks like the next."""
        first = self._at
        wrong = ""
        for end in range(first + 1, min(first + _LINES_MAX, len(self._lines)) + 1):
            try:
                tomllib.loads("\n".join(self._lines[first:end]) + "\n")
            except NOT_TOML as error:
                noticed = f", noticed at line {end}" if end > first + 1 else ""
                wrong = f"{said(error)}{noticed}"
                if _OPEN not in str(error):
                    break
            else:
                return end - first, ""
        opened = self._lines[first].rstrip()
        if opened.endswith("{"):
            return self._behind_brace(first) - first, wrong
        if end > first + 1 or opened.endswith(("[", ",")):
            return self._next_statement(first + 1) - first, wrong
        return 1, wrong

    def _behind_brace(self, index: int) -> int:
        """A table over several lines is no TOML, but is often tried."""
        for end in range(index + 1, len(self._lines)):
            if "}" in self._lines[end]:
                return end + 1
            if _LIKE_HEADER.match(self._lines[end]):
                break
        return index + 1

    def _next_statement(self, index: int) -> int:
        """In a text of several lines each may begin with a word."""
        opens_text = re.search("\"\"\"|'''", self._lines[index - 1])
        like_entry = _BEGINS_ENTRY if opens_text else _LIKE_ENTRY
        while index < len(self._lines):
            line = self._lines[index]
            if like_entry.match(line) or _BEGINS_ENTRY.match(line) or _LIKE_HEADER.match(line):
                break
            index += 1
        return index


def _already(line: int) -> str:
    return f"stands at line {line} already"


def _wrong(line: str) -> str:
    try:
        tomllib.loads(line + "\n")
    except NOT_TOML as error:
        return said(error)
    return ""


def _named(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    """The key that the text begins with; empty: it begins with none."""
    match = pattern.match(text)
    try:
        return key_path(match[1]) if match else ()
    except ValueError:  # quoted, with something in it that cannot be
        return ()
