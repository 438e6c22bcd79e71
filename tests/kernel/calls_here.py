"""Kernel calls made in this process: for tests of what they do."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class CallsHere:
    async def call(self, act: Callable[[], T], timeout_s: float, what: str, *, lane: str = "") -> T:
        return act()

    def at_work(self, lane: str) -> bool:
        return False
