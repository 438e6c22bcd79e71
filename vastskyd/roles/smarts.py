"""A storage host's disks are asked for their health: at enrolment, and from time to time."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping

from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import DiskId
from vastskyd.core.model import SmartHealth, SmartReading
from vastskyd.ports import Clock, Smart

log = logging.getLogger(__name__)


class Smarts:
    """Remembers what each disk last said. One is asked at a time, in the background: a dying one
    takes its time. `changed` is called when one has answered."""

    def __init__(
        self, smart: Smart, clock: Clock, interval_s: float, changed: Callable[[], None]
    ) -> None:
        """`interval_s`: 0 asks no disk, ever."""
        self.interval_s = interval_s
        self._smart = smart
        self._clock = clock
        self._changed = changed
        self._readings: dict[DiskId, SmartReading] = {}
        self._asked_s: dict[DiskId, float] = {}
        self._asking: asyncio.Task[None] | None = None

    def look(self, paths: Mapping[DiskId, str], enrolling: Collection[DiskId] = ()) -> None:
        """Begins to ask those of these disks that are due; others are forgotten. One of `enrolling`
        is not let sleep: it is written to in a moment, and is to say first how it is."""
        self._readings = {disk: said for disk, said in self._readings.items() if disk in paths}
        self._asked_s = {disk: when for disk, when in self._asked_s.items() if disk in paths}
        if not self.interval_s or (self._asking is not None and not self._asking.done()):
            return
        now_s = self._clock.monotonic_s()
        due = {
            disk: path
            for disk, path in paths.items()
            if now_s >= self._asked_s.get(disk, float("-inf")) + self.interval_s
        }
        if due:
            self._asking = asyncio.create_task(self._ask_all(due, set(enrolling)), name="SMART")

    def reading(self, disk: DiskId) -> SmartReading | None:
        """None: it was not asked yet, or has slept ever since."""
        return self._readings.get(disk)

    def asked(self, disk: DiskId) -> bool:
        """Whether nothing more is to be waited for: it has been asked, or nobody asks disks."""
        return not self.interval_s or disk in self._asked_s

    async def stop(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask_all(self, paths: Mapping[DiskId, str], enrolling: set[DiskId]) -> None:
        for disk, path in paths.items():
            is_first = disk not in self._asked_s
            said = await self._ask(path, wake=is_first and disk in enrolling)
            self._asked_s[disk] = self._clock.monotonic_s()
            before = self._readings.get(disk)
            if said is not None and said != before:
                if said.health is SmartHealth.UNKNOWN:
                    log.info("SMART of %s is not known: %s", path, said.reason)
                self._readings[disk] = said
                self._changed()
            elif is_first:
                self._changed()

    async def _ask(self, path: str, *, wake: bool) -> SmartReading | None:
        try:
            return await self._smart.read(path, wake=wake)
        except VastskyError as error:
            return SmartReading(health=SmartHealth.UNKNOWN, reason=error.message)
