"""On which line each key of a TOML text stands, which tomllib does not tell."""

import re
import tomllib

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
KEY = r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'"""
_KEY = re.compile(KEY)
_SCALAR = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]*"  # a time may stand apart from its date
    r"|[^\s,\[\]{}#=]+",
    re.DOTALL,
)


def places(text: str) -> dict[Path, int]:
    """The line, from 1, on which each table, key and element of a list is first named.

    `text` must be what tomllib takes; ValueError where it is noticed not to be. RecursionError if
    lists are nested hundreds deep.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


def key_path(dotted: str) -> tuple[str, ...]:
    """The parts of a dotted key. ValueError if it is none."""
    return tuple(map(str, _Scanner(dotted).key()))


class _Scanner:
    """Goes through the text once, from value to value, without reading what they are."""

    def __init__(self, text: str) -> None:
        self.found: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._lengths: dict[Path, int] = {}  # of the lists that [[headers]] make

    def document(self) -> None:
        table: Path = ()
        self._take(_BETWEEN)
        while self._at < len(self._text):
            if self._takes("[["):
                table = self._next_element(self._named(()))
                self._expect("]]")
            elif self._takes("["):
                table = self._named(())
                self._expect("]")
            else:
                self._entry(table)
            self._take(_BETWEEN)

    def key(self) -> Path:
        return self._named(())

    def _entry(self, table: Path) -> None:
        path = self._named(table)
        self._expect("=")
        self._value(path)

    def _named(self, path: Path) -> Path:
        """The path of the dotted key that stands here, below `path`."""
        while True:
            self._take(_BLANK)
            token = self._take(_KEY)
            name = token if token[0] not in "\"'" else next(iter(tomllib.loads(f"{token}=0")))
            path = (*path, name)
            self._name(path)
            self._take(_BLANK)
            if not self._takes("."):
                return path
            if path in self._lengths:  # what follows is of the list's newest element
                path = (*path, self._lengths[path] - 1)

    def _next_element(self, path: Path) -> Path:
        index = self._lengths.get(path, 0)
        self._lengths[path] = index + 1
        element = (*path, index)
        self._name(element)
        return element

    def _name(self, path: Path) -> None:
        self.found.setdefault(path, self._line)

    def _value(self, path: Path) -> None:
        self._take(_BLANK)
        if self._takes("["):
            self._list(path)
        elif self._takes("{"):
            self._inline_table(path)
        else:
            self._take(_SCALAR)

    def _list(self, path: Path) -> None:
        index = 0
        self._take(_BETWEEN)
        while not self._takes("]"):
            self._name((*path, index))
            self._value((*path, index))
            self._take(_BETWEEN)
            self._takes(",")
            self._take(_BETWEEN)
            index += 1

    def _inline_table(self, path: Path) -> None:
        self._take(_BETWEEN)
        while not self._takes("}"):
            self._entry(path)
            self._take(_BETWEEN)
            self._takes(",")
            self._take(_BETWEEN)

    # --- the text -------------------------------------------------------------------------

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"line {self._line} is not TOML")
        self._at = match.end()
        self._line += match[0].count("\n")
        return match[0]

    def _takes(self, literal: str) -> bool:
        there = self._text.startswith(literal, self._at)
        if there:
            self._at += len(literal)
        return there

    def _expect(self, literal: str) -> None:
        if not self._takes(literal):
            raise ValueError(f"line {self._line} is not TOML: {literal} is missing")
