"""The line of every key, against tomllib and against texts whose lines are known."""

import tomllib
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.config.places import Path, places
from vastskyd.config.written import written, written_key


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every table, key and element that tomllib sees."""
    if path:
        yield path
    if isinstance(value, dict):
        for name, each in value.items():
            yield from paths(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from paths(each, (*path, index))


TEXT = """\
# [not] = "a table"
a = 1 # b = 2
"quoted \\" # key" = 'its'

multi = \"\"\"
c = 3
[d] \"\"\\\"\"\" and \"\" \"\"\"
e.f . "g h" = [  # x = 1
  "]", { i = 1, j.k = \"\"\"
\"\"\", l = [] },

  1979-05-27 07:32:00, # , "m"
]
literal = '''
n = 4 '''''
 [ o . "p.q" ]
r = {}
[o.s]
[[t]]
u = inf
[t.v]
w = 0x1F
[[t]]
[[t.x]]
y = 1
[[t.x]]
y = -2
"""


def test_a_text_with_everything() -> None:
    assert places(TEXT) == {
        ("a",): 2, ('quoted " # key',): 3, ("multi",): 5, ("e",): 8, ("e", "f"): 8,
        ("e", "f", "g h"): 8, ("e", "f", "g h", 0): 9, ("e", "f", "g h", 1): 9,
        ("e", "f", "g h", 1, "i"): 9, ("e", "f", "g h", 1, "j"): 9,
        ("e", "f", "g h", 1, "j", "k"): 9, ("e", "f", "g h", 1, "l"): 10,
        ("e", "f", "g h", 2): 12, ("literal",): 14, ("o",): 16, ("o", "p.q"): 16,
        ("o", "p.q", "r"): 17, ("o", "s"): 18, ("t",): 19, ("t", 0): 19, ("t", 0, "u"): 20,
        ("t", 0, "v"): 21, ("t", 0, "v", "w"): 22, ("t", 1): 23, ("t", 1, "x"): 24,
        ("t", 1, "x", 0): 24, ("t", 1, "x", 0, "y"): 25, ("t", 1, "x", 1): 26,
        ("t", 1, "x", 1, "y"): 27,
    }  # fmt: skip
    assert set(places(TEXT)) == set(paths(tomllib.loads(TEXT)))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lines_end_as_they_may(ends: str) -> None:
    text = ends.join(("a = 1", "# x\x0b\u2028", 'b = """', '"""', "c = 2"))
    assert places(text) == {("a",): 1, ("b",): 3, ("c",): 5}


# --- generated texts --------------------------------------------------------------------------

KEYS = st.one_of(
    st.sampled_from("abc"), st.text("ab-_1", min_size=1, max_size=3),
    st.sampled_from(['"', "#", "a.b", "=", "[a]", "", "é\t", "'", "\\"]),
)  # fmt: skip
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-9, 9),
    st.floats(),
    st.dates().map(date.isoformat),
    st.datetimes().map(datetime.isoformat),
    st.text("a\"'#=[]{},\\\n", max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


class Writer:
    """Writes a table in one of the many ways there are, and keeps which line it put what on."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    def _one_of(self, *choices: str) -> str:
        return self._draw(st.sampled_from(choices))

    def _put(self, text: str) -> None:
        self.text += text

    def _name(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def _gap(self) -> None:
        self._put(self._one_of("", "", " ", "\t", "\n", " # [x] = '''\n", '\n\n#"""\n  '))

    def table(self, of: dict[str, Any], path: Path = ()) -> None:
        """Its plain entries first: what follows a header is below it."""
        later = []
        for key, value in of.items():
            if value and self._draw(st.booleans()) and isinstance(value, dict):
                later.append(((*path, key), value))
            elif value and isinstance(value, list) and all(isinstance(v, dict) for v in value):
                later += [((*path, key, index), each) for index, each in enumerate(value)]
            else:
                self._entry(path, key, value)
        for below, value in later:
            self._header(below)
            self.table(value, below)

    def _header(self, path: Path) -> None:
        for length in range(1, len(path) + 1):
            self._name(path[:length])
        opens, closes = ("[", "]") if isinstance(path[-1], str) else ("[[", "]]")
        dotted = " . ".join(self._key(name) for name in path if isinstance(name, str))
        self._put(opens + self._one_of("", " ") + dotted + closes + self._end())

    def _end(self) -> str:
        return self._one_of("\n", " # a = 1\n", "\t\n\n")

    def _key(self, name: str) -> str:
        return written_key(name) if self._draw(st.booleans()) else written(name)

    def _entry(self, path: Path, key: str, value: Any) -> None:
        self._dotted(path, key, value)
        self._put(self._end())

    def _dotted(self, path: Path, key: str, value: Any) -> None:
        """As a.b = 1 what has one member only; it is nowhere else, so that nothing is defined
        twice."""
        path = (*path, key)
        self._name(path)
        self._put(self._key(key))
        if isinstance(value, dict) and len(value) == 1 and self._draw(st.booleans()):
            ((inner, below),) = value.items()
            self._put(self._one_of(".", " . "))
            self._dotted(path, inner, below)
        else:
            self._put(self._one_of("=", " = "))
            self._value(path, value)

    def _value(self, path: Path, value: Any) -> None:
        if isinstance(value, list):
            self._put("[")
            for index, each in enumerate(value):
                self._gap()
                self._name((*path, index))
                self._value((*path, index), each)
                self._gap()
                self._put("," if index < len(value) - 1 else self._one_of("", ","))
            self._gap()
            self._put("]")
        elif isinstance(value, dict):
            self._put("{")
            for number, (key, each) in enumerate(value.items()):
                self._put(", " if number else " ")
                self._dotted(path, key, each)
            self._put(" }")
        else:
            self._put(self._scalar(value))

    def _scalar(self, value: Any) -> str:
        if not isinstance(value, str):
            return written(value)
        ways = [written(value), '"""' + written(value)[1:-1].replace("\\n", "\n") + '"""']
        if "'''" not in value and not value.endswith("'"):
            ways.append(f"'''\n{value}'''")
        if "'" not in value and "\n" not in value:
            ways.append(f"'{value}'")
        return self._one_of(*ways)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, dict[Path, int]]:
    writer = Writer(draw)
    writer.table(draw(st.dictionaries(KEYS, VALUES, max_size=5)))
    return writer.text, writer.lines


@given(texts())
def test_every_way_to_write_it(made: tuple[str, dict[Path, int]]) -> None:
    text, lines = made
    assert set(paths(tomllib.loads(text))) == set(lines), "the test's own writer"
    assert places(text) == lines


FRAGMENTS = st.sampled_from(
    ["a", "b", ".", "=", " = ", "1", '"', "'", '"""', "'''", "\\", "[", "]", "[[", "]]", "{", "}",
     ",", "\n", "\r\n", "#", "a=1\n", "b=[", "[a]\n", "[[b]]\n", "1979-05-27 07:32:00", " ", "é"]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=20).map("".join))
def test_whatever_tomllib_takes(text: str) -> None:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with suppress(ValueError):
            places(text)  # ends, whatever it says
        return
    assert set(places(text)) == set(paths(tables))
