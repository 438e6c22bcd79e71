"""Whether the loops that do a host's work get on. systemd's watchdog is told so, or is not.

Each loop says when it has done a step. A step is one wait for something outside, or a few, and
all of these have bounds: a loop that says nothing for longer than the longest of them is stuck, by
a fault of ours, and only a new process gets it on. Who merely waits for the network is not: those
waits end too, and the loop turns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vastskyd.ports import Clock

# The longest step: an export server that does not answer is stopped (45 s) and started with other
# settings, by some ten questions to it, systemd and its packet filter (5 to 10 s each). Twice that.
STEP_MOST_S = 300.0

Step = Callable[[], None]


def unwatched() -> None:
    """For who steps where nobody looks."""


class Progress:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stepped_s: dict[str, float] = {}

    @contextmanager
    def loop(self, name: str) -> Iterator[Step]:
        """While it runs, the loop owes a step every STEP_MOST_S."""

        def step() -> None:
            self._stepped_s[name] = self._clock.monotonic_s()

        step()
        try:
            yield step
        finally:
            self._stepped_s.pop(name, None)

    def stuck(self) -> dict[str, float]:
        """Loops that do not get on, and for how many seconds."""
        now_s = self._clock.monotonic_s()
        still_s = {name: now_s - then_s for name, then_s in self._stepped_s.items()}
        return {name: since_s for name, since_s in still_s.items() if since_s > STEP_MOST_S}
