"""What the person at the terminal reads."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE_S = 0.5


class DemoError(Exception):
    """Something was not as promised."""


class Narrator:
    """Titles with the time since the beginning, and lines below them."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._steps = 0
        self._bold = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")

    def seconds(self) -> float:
        return time.monotonic() - self._begun

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._steps += 1
        on, off = self._bold
        print(f"\n[{self.seconds():6.1f} s] {on}{self._steps}. {title}{off}", flush=True)
        yield

    def line(self, said: str) -> None:
        print(f"             {said}", flush=True)

    def typed(self, host: str, command: str, output: str) -> None:
        """A command and what it answered, as on a terminal of that host."""
        self.line(f"{host}# {command}")
        for each in output.rstrip().splitlines():
            self.line(f"  {each}")


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DemoError(otherwise)


def wait_until(what: str, check: Callable[[], bool], limit_s: float) -> None:
    """Asks again and again; DemoError names what did not come."""
    end = time.monotonic() + limit_s
    while not check():
        if time.monotonic() > end:
            raise DemoError(f"not within {limit_s:.0f} s: {what}")
        time.sleep(PAUSE_S)
