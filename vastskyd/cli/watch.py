"""What is asked is shown: once, or with --watch again and again until Ctrl-C."""

import io
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TypeVar

import click

from vastskyd.cli.output import format_time, has_screen, plain, print_json, say, width
from vastskyd.core.errors import UnreachableError
from vastskyd.core.model import Record

INTERVAL_S = 2.0

A = TypeVar("A", bound=Record)
Print = Callable[[A], None]

watch_option = click.option(
    "--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C."
)


def shown(ask: Callable[[], A], show: Print[A], *, as_json: bool, watch: bool = False) -> None:
    """`show` prints the answer for people; for programs it is JSON, with `watch` on a line each.

    Who cannot be reached while it is watched is asked again: what is watched may be just this.
    """
    if as_json:
        show = _json_lines if watch else print_json
    if not watch:
        show(ask())
    elif as_json or not has_screen():
        _repeat(ask, show if as_json else _apart(show), _complain)
    else:
        click.clear()
        _repeat(ask, _drawn(show), lambda error: _draw([plain(f"vastskyctl: {error.message}")]))


def _repeat(
    ask: Callable[[], A], show: Print[A], complain: Callable[[UnreachableError], None]
) -> None:
    while True:
        try:
            show(ask())
        except UnreachableError as error:
            complain(error)
        sys.stdout.flush()
        time.sleep(INTERVAL_S)


def _complain(error: UnreachableError) -> None:
    say(f"vastskyctl: {error.message}", err=True)


def _json_lines(answer: Record) -> None:
    print_json(answer, one_line=True)


def _apart(show: Print[A]) -> Print[A]:
    def print_it(answer: A) -> None:
        show(answer)
        say()

    return print_it


class _Page(io.StringIO):
    """It ends on a terminal, and is written as for one."""

    def isatty(self) -> bool:
        return True


def _drawn(show: Print[A]) -> Print[A]:
    def draw(answer: A) -> None:
        page = _Page()
        with redirect_stdout(page):
            show(answer)
        _draw(page.getvalue().rstrip("\n").split("\n"))

    return draw


def _draw(lines: Sequence[str]) -> None:
    """Over what is there, in one write: nothing flickers, and nothing scrolls away."""
    size = shutil.get_terminal_size()
    title = f"{format_time(time.time())}  again every {INTERVAL_S:g} s, until Ctrl-C"
    page = fit([title, "", *lines], size.columns, size.lines - 1)
    sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in page) + "\x1b[J")


def fit(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """As many of the lines as have room; where they have not, the last says how many are left
    out."""
    heights = [max(1, -(-width(line) // max(columns, 1))) for line in lines]
    if sum(heights) <= rows:
        return list(lines)
    kept = 0
    while kept < len(lines) and sum(heights[: kept + 1]) < rows:
        kept += 1
    return [*lines[:kept], f"... {len(lines) - kept} more lines"]
