"""Tables: whole in a pipe; on a terminal as wide as it is.

Where there is no room for all, each step is taken only if those before it are not enough:

1. ornaments are left out;
2. a name that takes more than its share stands on a line of its own, or has its path shortened;
3. what may be shortened is, down to its least;
4. columns are left out: that with the highest `spare` first, those with 0 never;
5. what may be shortened is, to a few letters.

What is shortened has an ellipsis where something is missing.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import click

from vastskyd.cli.output import cell, has_screen, heading, pad, width

ELLIPSIS = "…"
ORNAMENT = 9  # the `spare` of what tells nothing that other columns do not
_GAP = 2  # blanks between columns
_NAME_SHARE = 0.4  # of the room, for names where not all has room
_TAIL_LEAST = 10  # what tells paths apart stands at their ends
_LETTERS_LEAST = 8
_LINES_MOST = 4  # of one row's last cell on a terminal


@dataclass(frozen=True)
class Column:
    """The first one of a table has the names. `least`: it may be shortened to so many letters; 0:
    not at all."""

    title: str
    spare: int = 0
    least: int = 0


Row = tuple[str, ...]


@dataclass(frozen=True)
class Laid:
    """The lines of the titles and of each row."""

    titles: str
    rows: tuple[tuple[str, ...], ...]


def print_table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Always with its titles, also if there are no rows: a script counts lines from the second."""
    room = shutil.get_terminal_size().columns if has_screen() else None
    filled = [tuple(each or "-" for each in row) for row in rows]
    laid = lay_out(columns, filled, room, _LINES_MOST)
    for line in (laid.titles, *(line for lines in laid.rows for line in lines)):
        click.echo(line)


def lay_out(
    columns: Sequence[Column], rows: Sequence[Row], room: int | None, lines_most: int
) -> Laid:
    """`room`: letters on a line, None for as many as there are. The last cell of a row may take
    `lines_most` lines."""
    cells = [tuple(cell(each) for each in row) for row in rows]
    wanted = [
        max(width(each) for each in (column.title, *(row[at] for row in cells)))
        for at, column in enumerate(columns)
    ]
    widths = wanted if room is None else fit(columns, wanted, room)
    titles = _line([heading(column.title) for column in columns], widths)
    return Laid(titles, tuple(_lines(row, widths, room, lines_most) for row in cells))


def fit(columns: Sequence[Column], wanted: Sequence[int], room: int) -> list[int]:
    """How wide each column is; 0: it is left out."""
    if _together(wanted) <= room:
        return list(wanted)
    kept = [at for at, column in enumerate(columns) if column.spare != ORNAMENT]
    plainer = [wanted[at] if at in kept else 0 for at in range(len(columns))]
    if _together(plainer) <= room:
        return plainer
    needed = plainer.copy()
    needed[0] = min(wanted[0], max(int(room * _NAME_SHARE), len(columns[0].title)))
    while True:
        widths = [needed[at] if at in kept else 0 for at in range(len(columns))]
        left = room - _together(widths)
        least = [
            min(wanted[at], max(column.least, len(column.title))) if column.least else needed[at]
            for at, column in enumerate(columns)
        ]
        if left + sum(widths[at] - least[at] for at in kept) >= 0:
            break
        spared = max(kept, key=lambda at: (columns[at].spare, at))
        if not columns[spared].spare:
            least = [
                min(each, _LETTERS_LEAST) if column.least else each
                for each, column in zip(least, columns, strict=True)
            ]
            break
        kept.remove(spared)
    _shorten_widest(widths, least, -left)
    widths[0] += min(max(left, 0), wanted[0] - widths[0])
    return widths


def _together(widths: Sequence[int]) -> int:
    kept = [each for each in widths if each]
    return sum(kept) + _GAP * (len(kept) - 1)


def _shorten_widest(widths: list[int], least: Sequence[int], excess: int) -> None:
    for _ in range(excess):
        widest = max(range(len(widths)), key=lambda at: (widths[at] > least[at], widths[at]))
        if widths[widest] <= least[widest]:
            return
        widths[widest] -= 1


def _lines(row: Row, widths: Sequence[int], room: int | None, lines_most: int) -> tuple[str, ...]:
    """Of one row: its name above, if that is too long, and what its last cell has below."""
    above: list[str] = []
    below: list[str] = []
    cells = list(row)
    if room is not None:
        above, cells[0] = _name(row[0], widths[0], room)
        for at in range(1, len(cells) - 1):
            cells[at] = shorten(cells[at], widths[at])
        if widths[-1]:
            cells[-1], *below = _wrap(cells[-1], widths[-1], lines_most)
    indent = [""] * (len(cells) - 1)
    return (*above, _line(cells, widths), *(_line([*indent, each], widths) for each in below))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    shown = [pad(each, to) for each, to in zip(cells, widths, strict=True) if to]
    return (" " * _GAP).join(shown).rstrip()


def _name(name: str, most: int, room: int) -> tuple[list[str], str]:
    """Lines above, and what stands in the name's own place."""
    if width(name) <= most:
        return [], name
    if short := _short_path(name, most):
        return [], short
    return _pieces(_short_path(name, room) or name, room), ""


def shorten(text: str, most: int) -> str:
    """To `most` letters: the paths in it first, in their middles, and then its end."""
    if width(text) <= most:
        return text
    text = click.unstyle(text)
    words = text.split(" ")
    for at, word in sorted(enumerate(words), key=lambda each: -width(each[1])):
        words[at] = _short_word(word, most - (width(text) - width(word)))
        text = " ".join(words)
    if len(words) == 1 and "/" not in text:
        return _without_middle(text, most)
    return _without_end(text, most)


def _short_word(word: str, most: int) -> str:
    """A path as far as it can be told from others; and then what it is in is cut."""
    before = width(word.partition("/")[0])
    return _short_path(word, max(before + _TAIL_LEAST + 4, most)) or word


def _short_path(word: str, most: int) -> str:
    """NODE:PATH, or PATH, without its directories, and then without its middle; empty: that is not
    enough, or there is no path in it from its root on."""
    if width(word) <= most:
        return word
    before, slash, path = word.partition("/")
    name = path.rpartition("/")[2]
    if (
        not slash
        or before[-1:].isalnum()
        or width(before) + min(width(name), _TAIL_LEAST + 1) > most
    ):
        return ""
    return before + _without_middle(name, most - width(before))


def _without_middle(text: str, most: int) -> str:
    """The end is what tells names of devices apart."""
    if width(text) <= most:
        return text
    head = _start(text, (most - 1) // 3)
    tail = _start(text[::-1], max(most - 1, 0) - width(head))[::-1]
    return f"{head}{ELLIPSIS}{tail}"


def _without_end(text: str, most: int) -> str:
    if width(text) <= most:
        return text
    return _start(text, most - 1).rstrip(f" {ELLIPSIS}") + ELLIPSIS


def _start(text: str, most: int) -> str:
    """As many of its letters as have room."""
    while text and width(text) > most:
        text = text[:-1]
    return text


def _pieces(text: str, most: int) -> list[str]:
    text = click.unstyle(text)
    pieces = []
    while width(text) > most and (piece := _start(text, most)):
        pieces.append(piece)
        text = text[len(piece) :]
    return [*pieces, text]


def _wrap(text: str, most: int, lines_most: int) -> list[str]:
    """At blanks where it can be; the last line says if something is missing."""
    if width(text) <= most:
        return [text]
    words = click.unstyle(text).split(" ")
    rest = " ".join(_short_word(word, most) for word in words)
    lines: list[str] = []
    while width(rest) > most and len(lines) < lines_most - 1:
        start = _start(rest, most + 1)
        blank = start.rfind(" ")
        line = rest[:blank] if blank > 0 else _start(rest, most)
        if not line:
            break
        lines.append(line)
        rest = rest[len(line) :].lstrip()
    return [*lines, shorten(rest, most)]
