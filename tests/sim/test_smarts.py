"""When a storage host asks its disks for their health, and what it remembers."""

import asyncio
import random

from tests.sim import loop
from tests.sim.fake_disks import FAILING, WELL
from tests.sim.loop import SimClock
from vastskyd.core.errors import DeviceError
from vastskyd.core.ids import DiskId
from vastskyd.core.model import SmartHealth, SmartReading
from vastskyd.roles.smarts import Smarts

ONE, TWO = DiskId("1" * 16), DiskId("2" * 16)
PATHS = {ONE: "/dev/one", TWO: "/dev/two"}
INTERVAL_S = 100.0


class Answers:
    """ports.Smart, which takes its time."""

    def __init__(self) -> None:
        self.says: dict[str, SmartReading | DeviceError | None] = {}
        self.asked: list[str] = []
        self.woken: list[str] = []
        self.at_once = 0
        self.most_at_once = 0

    async def read(self, path: str, *, wake: bool = False) -> SmartReading | None:
        self.asked.append(path)
        self.woken += [path] * wake
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(1)
        self.at_once -= 1
        said = self.says.get(path, WELL)
        if isinstance(said, DeviceError):
            raise said
        return said


class Host:
    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self.answers = Answers()
        self.changes = 0
        clock = SimClock(random.Random(1), lambda: 0.0)
        self.smarts = Smarts(self.answers, clock, interval_s, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def passes(self, duration_s: float, paths: dict[DiskId, str] = PATHS) -> None:
        """As the role's own passes do it, every second."""
        for _ in range(int(duration_s)):
            self.smarts.look(paths)
            await asyncio.sleep(1)


def test_each_is_asked_at_once_and_then_from_time_to_time() -> None:
    async def main() -> None:
        host = Host()
        assert not host.smarts.asked(ONE)
        await host.passes(5)
        assert (host.answers.asked, host.changes) == (["/dev/one", "/dev/two"], 2)
        assert (host.smarts.asked(ONE), host.smarts.reading(TWO)) == (True, WELL)
        await host.passes(90)
        assert len(host.answers.asked) == 2
        await host.passes(20)
        assert len(host.answers.asked) == 4
        assert host.answers.most_at_once == 1
        await host.smarts.stop()

    loop.run(main(), 1000)


def test_a_disk_that_sleeps_is_what_it_was() -> None:
    async def main() -> None:
        host = Host()
        host.answers.says["/dev/one"] = FAILING
        host.answers.says["/dev/two"] = None
        await host.passes(5)
        assert (host.smarts.asked(TWO), host.smarts.reading(TWO)) == (True, None)
        host.answers.says["/dev/one"] = None
        await host.passes(110)
        assert host.smarts.reading(ONE) == FAILING
        await host.smarts.stop()

    loop.run(main(), 1000)


def test_one_that_is_being_enrolled_is_woken_once() -> None:
    async def main() -> None:
        host = Host()
        for _ in range(3):
            host.smarts.look(PATHS, [TWO])
            await asyncio.sleep(INTERVAL_S + 5)
        assert host.answers.asked.count("/dev/two") == 3
        assert host.answers.woken == ["/dev/two"]
        await host.smarts.stop()

    loop.run(main(), 1000)


def test_one_that_cannot_be_asked_is_of_unknown_health() -> None:
    async def main() -> None:
        host = Host()
        host.answers.says["/dev/one"] = DeviceError("`smartctl` cannot be started")
        await host.passes(5)
        reading = host.smarts.reading(ONE)
        assert reading is not None
        assert (reading.health, reading.reason) == (
            SmartHealth.UNKNOWN,
            "`smartctl` cannot be started",
        )
        assert host.smarts.reading(TWO) == WELL
        await host.smarts.stop()

    loop.run(main(), 1000)


def test_never_and_then_sooner() -> None:
    async def main() -> None:
        host = Host(interval_s=0.0)
        await host.passes(500)
        assert (host.answers.asked, host.smarts.asked(ONE)) == ([], True)
        host.smarts.interval_s = 10.0
        await host.passes(30)
        assert len(host.answers.asked) >= 4
        await host.smarts.stop()

    loop.run(main(), 1000)


def test_one_that_went_is_forgotten() -> None:
    async def main() -> None:
        host = Host()
        await host.passes(5)
        await host.passes(2, {TWO: "/dev/two"})
        assert host.smarts.reading(ONE) is None
        await host.passes(3)
        assert host.answers.asked.count("/dev/one") == 2
        await host.smarts.stop()

    loop.run(main(), 1000)
