"""What commands print: JSON for programs, aligned columns for people. Tables are in table.

Colours are for terminals only (click strips them elsewhere) and not with NO_COLOR or on a dumb one.
"""

import os
import re
import sys
import time
import unicodedata
from collections.abc import Sequence

import click
import msgspec

from vastskyd.core.model import Record

_COLOURS = {
    "green": "ok online redundant in-sync done attached available passed",
    "yellow": "degraded rebuilding behind joining enrolling draining retiring creating fencing"
    " attaching detaching unfenced running warning unknown",
    "red": "critical unreachable failed failing stalled unavailable error",
}
_COLOUR_OF = {word: colour for colour, words in _COLOURS.items() for word in words.split()}

# Colours, which may stay, or what a terminal would obey instead of showing it: control characters,
# and those that turn the direction of writing.
_NOT_TEXT = re.compile(
    r"(\x1b\[[0-9;]*m)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def plain(text: str) -> str:
    """Text from elsewhere (a program's name, a disk's serial number) with what is no text in it
    shown as such."""
    return _NOT_TEXT.sub(lambda found: found[1] or "\N{REPLACEMENT CHARACTER}", text)


def say(text: str = "", *, err: bool = False) -> None:
    """A line for people, whatever is in it."""
    click.echo(plain(text), err=err)


def cell(text: str) -> str:
    """On one line, of which each letter has its width."""
    return plain(" ".join(text.replace("\t", " ").splitlines()))


def has_screen() -> bool:
    """What is printed goes to a terminal that can be drawn on."""
    return sys.stdout.isatty() and not _is_dumb()


def _is_dumb() -> bool:
    return os.environ.get("TERM") == "dumb"


def _has_style() -> bool:
    """https://no-color.org: set and not empty."""
    return not os.environ.get("NO_COLOR") and not _is_dumb()


def colour_of(word: str) -> str | None:
    return _COLOUR_OF.get(word)


def paint(word: str) -> str:
    """A word of state in its colour."""
    colour = colour_of(word)
    return click.style(word, fg=colour) if colour and _has_style() else word


def heading(word: str) -> str:
    return click.style(word, bold=True) if _has_style() else word


def print_json(record: Record, *, one_line: bool = False) -> None:
    """The record as its type in vastskyd.core.api says."""
    encoded = msgspec.json.encode(record)
    click.echo(encoded if one_line else msgspec.json.format(encoded, indent=2))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells padded to the widest of their column, two blanks between, none at the end."""
    if not rows:
        return []
    rows = [[cell(each) for each in row] for row in rows]
    widths = [max(width(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(map(pad, row, widths)).rstrip() for row in rows]


def pad(cell: str, to: int) -> str:
    return cell + " " * (to - width(cell))


def width(cell: str) -> int:
    """On a terminal, without what only colours it."""
    shown = click.unstyle(cell)
    return len(shown) if shown.isascii() else sum(map(_letter_width, shown))


def _letter_width(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Lines of a word and what is so; empty ones left out."""
    for line in columns([[heading(name), what] for name, what in facts if what]):
        click.echo(line)


def interactive() -> bool:
    """Somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def format_time(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s)) if time_s else ""


def format_duration(duration_s: float) -> str:
    """ "45 s", "12 min", "3 h", "4 d".

    >>> format_duration(7300)
    '2 h'
    """
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if duration_s >= 2 * length_s or (unit != "d" and duration_s >= length_s):
            return f"{int(duration_s // length_s)} {unit}"
    return f"{int(duration_s)} s"


def format_share(done_bytes: int, total_bytes: int) -> str:
    """ "45 %", or nothing if there is no total."""
    return f"{100 * done_bytes // total_bytes} %" if total_bytes > 0 else ""
