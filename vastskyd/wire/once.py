"""A log that a misbehaving peer cannot flood: each kind of trouble once per peer and window."""

import logging
import time
from collections.abc import Callable


class OnceLog:
    """`window_s` begins with the first line of a peer and kind. All peers together get
    `lines_per_window`, because an attacker has as many addresses as it likes."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        window_s: float,
        lines_per_window: int,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._window_s = window_s
        self._lines_per_window = lines_per_window
        self._monotonic_s = monotonic_s
        self._window_began_s = monotonic_s()
        self._seen: dict[tuple[str, str], int] = {}
        self._lost = 0

    def trouble(self, event: str, peer: str, message: str) -> None:
        if self._is_due(event, peer):
            self._logger.warning("%s: %s", peer, message, extra={"EVENT": event, "PEER": peer})

    def bug(self, event: str, peer: str, message: str) -> None:
        """For an error of our own, with its traceback."""
        if self._is_due(event, peer):
            self._logger.exception("%s: %s", peer, message, extra={"EVENT": event, "PEER": peer})

    def news(self, event: str, peer: str, message: str) -> None:
        """For what happens by our own doing: never suppressed."""
        self._logger.info("%s: %s", peer, message, extra={"EVENT": event, "PEER": peer})

    def detail(self, event: str, peer: str, message: str) -> None:
        self._logger.debug("%s: %s", peer, message, extra={"EVENT": event, "PEER": peer})

    def _is_due(self, event: str, peer: str) -> bool:
        if self._monotonic_s() - self._window_began_s >= self._window_s:
            self._begin_window()
        key = (event, peer)
        if key in self._seen:
            self._seen[key] += 1
            return False
        if len(self._seen) >= self._lines_per_window:
            self._lost += 1
            return False
        self._seen[key] = 0
        return True

    def _begin_window(self) -> None:
        suppressed = sum(self._seen.values()) + self._lost
        if suppressed:
            self._logger.warning(
                "%d more warnings about peers were left out",
                suppressed,
                extra={"EVENT": "suppressed"},
            )
        self._seen.clear()
        self._lost = 0
        self._window_began_s = self._monotonic_s()
