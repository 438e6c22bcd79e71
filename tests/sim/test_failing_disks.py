"""Disks that say they are failing: their legs move while they can still be read, and there are
never fewer of them in sync than the volume has copies."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import msgspec
import pytest

from tests.sim.cluster import POLICY, REBUILD_DELAY_S, SimCluster
from tests.sim.fake_array import FakeArray
from tests.sim.fake_disks import FAILING, WELL, FakeMedia
from tests.sim.faults import Fault, FaultKind, NoFaults, ScriptedFaults
from tests.sim.survey import Watch
from tests.sim.test_cluster import SMALL, Recorder, at_the_end, attached, legs_on, simulate
from tests.sim.test_matrix import SPREAD, _is_ok, _says, media_of
from vastskyd.core import api
from vastskyd.core.errors import BusyError, ConflictError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import DiskState, SmartHealth
from vastskyd.core.smart import SmartLimits
from vastskyd.core.turn import Policy
from vastskyd.core.units import MIB
from vastskyd.ports import MemberState

HEAD = "h1"
FOUND_S = 45.0
STORES = ("s1", "s2", "s3", "s4")


def spread(policy: Policy = POLICY) -> SimCluster:
    return SimCluster(62, SPREAD, policy=policy)


class Redundancy:
    """Looks all the time whether a segment has fewer legs in sync than copies: by the manager's
    records, by the array, and by what is said."""

    def __init__(self, cluster: SimCluster, copies: int, head: str = HEAD) -> None:
        self._cluster = cluster
        self._copies = copies
        self._head = head
        self.most = 0

    async def run(self) -> None:
        while True:
            self._look()
            if (await self._cluster.volume("v")).health != "redundant":
                self._tell("status says that it is not redundant")
            await asyncio.sleep(0.02)

    def _look(self) -> None:
        for segment in self._cluster.state_of("v").segments:
            self.most = max(self.most, len(segment.in_sync()))
            if len(segment.in_sync()) < self._copies:
                self._tell(f"segment {segment.index} has {segment.in_sync()} in sync")
        for block in self._cluster.world.hosts[self._head].kernel.blocks.values():
            if isinstance(block, FakeArray):
                whole = [m for m in block.members if m.state is MemberState.IN_SYNC]
                if len(whole) < self._copies:
                    self._tell(f"{block.name} has {len(whole)} legs in sync")

    def _tell(self, what: str) -> None:
        self._cluster.world.failures.append(what)


async def state_of(cluster: SimCluster, serial: str) -> DiskState:
    (disk,) = [disk for disk in cluster.state().disks.values() if disk.serial == serial]
    return disk.state


async def is_empty(cluster: SimCluster, host: str) -> bool:
    return await legs_on(cluster, host) == 0


def is_of_one_size(cluster: SimCluster, head: str = HEAD) -> bool:
    """No array is left with a place too many."""
    blocks = cluster.world.hosts[head].kernel.blocks.values()
    copies = cluster.state_of("v").copies
    return all(block.copies == copies for block in blocks if isinstance(block, FakeArray))


@pytest.mark.parametrize("copies", [2, 3])
def test_a_failing_disk_is_rebuilt_from_with_no_moment_of_less_redundancy(copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies, HEAD)
        assert await legs_on(cluster, "s1")
        await asyncio.sleep(8)
        looks = Redundancy(cluster, copies)
        look = cluster.spawn(looks.run())
        watch = cluster.spawn(Watch(cluster).run())
        media_of(cluster, "s1").smart = FAILING
        said = "disk s1:/dev/disk/by-id/s1-0 is failing: it says so itself (SMART: its reliability"
        await cluster.until("it is said", FOUND_S, lambda: _says(cluster, said))
        await cluster.until("its legs are elsewhere", 120, lambda: is_empty(cluster, "s1"))
        await cluster.until("all is whole", 60, cluster.redundant)
        await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster))
        assert looks.most == copies + 1
        before = cluster.checker.acknowledged
        await asyncio.sleep(8)
        assert cluster.checker.acknowledged > before
        look.cancel()
        watch.cancel()
        events = await cluster.events()
        assert {"disk-failing", "leg-moving", "leg-in-sync", "leg-moved"} <= set(events)
        assert "leg-lost" not in events
        assert await _says(cluster, "no volume uses it any more")
        assert await state_of(cluster, "s1-0") is DiskState.FAILING
        await cluster.until("it is wiped", 60, lambda: _is_wiped(cluster))
        await cluster.do(api.RetireDisk(disk="s1:/dev/disk/by-id/s1-0"))
        cluster.world.hosts["s1"].pull("s1-0")
        await cluster.until("nothing is left to say", 30, lambda: _is_ok(cluster))
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


def _is_wiped(cluster: SimCluster) -> bool:
    failing = [d.id for d in cluster.state().disks.values() if d.state is DiskState.FAILING]
    return not any(extent.disk in failing for extent in cluster.state().extents.values())


def test_legs_move_one_after_the_other() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, HEAD)
        most = 0
        media_of(cluster, "s1").smart = FAILING
        while not await is_empty(cluster, "s1"):
            segments = cluster.state_of("v").segments
            most = max(most, sum(len(segment.legs) > 2 for segment in segments))
            await asyncio.sleep(0.05)
        assert most == 1
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


def test_without_a_spare_it_is_said_and_used_until_there_is_one() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, "h1")
        await asyncio.sleep(8)
        looks = cluster.spawn(Redundancy(cluster, 3).run())
        media_of(cluster, "s1").smart = FAILING
        said = "no other disk has room for the legs of v, which go on using it"
        await cluster.until("it is said", FOUND_S, lambda: _says(cluster, said))
        before = cluster.checker.acknowledged
        await asyncio.sleep(60)
        assert cluster.checker.acknowledged > before
        assert await legs_on(cluster, "s1")
        cluster.world.hosts["s1"].insert(FakeMedia("s1-new", 128 * MIB))
        await asyncio.sleep(10)
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path="/dev/disk/by-id/s1-new"))
        await cluster.until(
            "its legs are on the new one",
            120,
            lambda: _serials(cluster) == {"s1-new", "s2-0", "s3-0"},
        )
        await cluster.until("all is whole", 60, cluster.redundant)
        looks.cancel()
        await at_the_end(cluster, "h1")

    three = {name: parts for name, parts in SPREAD.items() if name != "s4"}
    simulate(body, lambda: SimCluster(63, three))


def _serials(cluster: SimCluster) -> set[str]:
    disks = [cluster.state().disk_of(leg.extent) for _, _, leg in cluster.state().legs()]
    return {disk.serial for disk in disks if disk is not None}


def test_nothing_new_is_placed_on_it() -> None:
    async def body(cluster: SimCluster) -> None:
        media_of(cluster, "s1").smart = FAILING
        await cluster.until("marked", FOUND_S, lambda: _is(cluster, "s1-0", DiskState.FAILING))
        for name in ("a", "b", "c"):
            await cluster.create(name, 8 * MIB)
        assert "s1-0" not in _serials(cluster)

    simulate(body, spread)


async def _is(cluster: SimCluster, serial: str, state: DiskState) -> bool:
    return await state_of(cluster, serial) is state


def test_a_detached_volume_moves_by_itself() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        await cluster.attach(head=HEAD)
        for number in range(40):
            await cluster.checker.write(HEAD, "v", number)
        await cluster.detach()
        media_of(cluster, "s1").smart = FAILING
        said = "the legs of v are moved off it as soon as a head can"
        await cluster.until("it is said", FOUND_S, lambda: _says(cluster, said))
        assert await legs_on(cluster, "s1")
        await cluster.until("its legs are elsewhere", 120, lambda: is_empty(cluster, "s1"))
        await cluster.until("all is whole", 60, cluster.redundant)
        await cluster.attach(head="h2")
        await cluster.checker.read_all("h2", "v")

    simulate(body, spread)


def test_a_volume_of_one_copy_is_named() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(copies=1)
        for name in STORES:
            media_of(cluster, name).smart = FAILING
        said = "the only copy of v is on it: save what is there"
        await cluster.until("it is said", FOUND_S, lambda: _says(cluster, said))
        await cluster.attach(head=HEAD)
        assert await cluster.checker.write(HEAD, "v", 1)
        await cluster.checker.read_all(HEAD, "v")

    simulate(body, spread)


@pytest.mark.parametrize("asleep", [True, False])
def test_a_disk_that_takes_its_word_back(asleep: bool) -> None:
    async def body(cluster: SimCluster) -> None:
        media = media_of(cluster, "s1")
        media.smart = FAILING
        await cluster.until("marked", FOUND_S, lambda: _is(cluster, "s1-0", DiskState.FAILING))
        media.smart, media.asleep = WELL, asleep
        await asyncio.sleep(FOUND_S)
        assert await _is(cluster, "s1-0", DiskState.FAILING) is asleep
        media.asleep = False
        await cluster.until("well", FOUND_S, lambda: _is(cluster, "s1-0", DiskState.ONLINE))
        assert await _is_ok(cluster)

    simulate(body, spread)


def test_a_warning_is_shown_and_not_acted_on() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, HEAD)
        legs = _serials(cluster)
        media = media_of(cluster, "s1")
        media.smart = msgspec.structs.replace(WELL, reallocated=8, temperature_c=71)
        said = "disk s1:/dev/disk/by-id/s1-0: its reallocated sectors grew from 0 to 8"
        await cluster.until("it is said", FOUND_S, lambda: _says(cluster, said))
        assert await _says(cluster, "it is 71 °C warm")
        await asyncio.sleep(60)
        assert (await cluster.events()).count("disk-warning") == 2
        assert await _is(cluster, "s1-0", DiskState.ONLINE)
        assert _serials(cluster) == legs
        shown = await cluster.ask(api.ListDisks(disk="s1:/dev/disk/by-id/s1-0"))
        (view,) = shown.disks
        assert view.volumes == ("v",)
        assert (view.smart.health, view.smart.reallocated) == (SmartHealth.PASSED, 8)
        assert len(view.smart.warnings) == 2
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


def test_thresholds_are_the_policys() -> None:
    async def body(cluster: SimCluster) -> None:
        media_of(cluster, "s1").smart = msgspec.structs.replace(WELL, reallocated=8)
        await asyncio.sleep(FOUND_S)
        assert await _is_ok(cluster)

    quiet = replace(POLICY, smart=SmartLimits(reallocated=9))
    simulate(body, lambda: spread(quiet))


@pytest.mark.parametrize("asleep", [True, False])
def test_a_failing_disk_is_not_enrolled_unless_told_to(asleep: bool) -> None:
    async def body(cluster: SimCluster) -> None:
        bad = FakeMedia("bad", 128 * MIB, smart=FAILING, asleep=asleep)
        cluster.world.hosts["s1"].insert(bad)
        await asyncio.sleep(10)
        request = api.EnrolDisk(node=NodeId("s1"), path="/dev/disk/by-id/bad")
        job = await cluster.job(await cluster.start_job(request))
        assert job.error_code == ConflictError.code
        assert "bad says that it is failing (SMART): its reliability is degraded" in job.message
        assert job.hint.endswith("`vastskyctl disk enrol /dev/disk/by-id/bad --failing`")
        assert len(cluster.state().disks) == len(STORES)
        await cluster.do(msgspec.structs.replace(request, failing=True))
        await asyncio.sleep(FOUND_S)
        assert await _is(cluster, "bad", DiskState.ONLINE)
        assert await _says(cluster, "it was enrolled although it says that it is failing")

    simulate(body, spread)


# --- more goes wrong meanwhile ------------------------------------------------------------


async def _the_failing_one_dies(cluster: SimCluster) -> None:
    media_of(cluster, "s1").failed = True


async def _the_other_leg_dies(cluster: SimCluster) -> None:
    (host,) = [n for n in ("s2", "s3", "s4") if await _holds_whole_leg(cluster, n)][:1]
    cluster.world.power_cut(host)
    await asyncio.sleep(REBUILD_DELAY_S / 2)
    cluster.power_on(host)


async def _holds_whole_leg(cluster: SimCluster, host: str) -> bool:
    view = await cluster.volume("v")
    return any(leg.node == host and leg.state == "in-sync" for s in view.segments for leg in s.legs)


async def _the_new_leg_dies(cluster: SimCluster) -> None:
    view = await cluster.volume("v")
    hosts = [leg.node for s in view.segments for leg in s.legs if leg.state == "rebuilding"]
    for host in hosts[:1]:
        cluster.world.power_cut(host)
        await asyncio.sleep(REBUILD_DELAY_S + 30)
        cluster.power_on(host)


async def _the_head_loses_power(cluster: SimCluster) -> None:
    cluster.world.power_cut(HEAD)
    await asyncio.sleep(5)
    cluster.power_on(HEAD)


async def _the_manager_is_killed(cluster: SimCluster) -> None:
    cluster.world.kill_daemon("m")


@pytest.mark.parametrize(
    "happens",
    [
        _the_failing_one_dies,
        _the_other_leg_dies,
        _the_new_leg_dies,
        _the_head_loses_power,
        _the_manager_is_killed,
    ],
)
@pytest.mark.parametrize("after_s", [0.0, 0.6, 1.5])
def test_something_else_fails_during_the_move(
    happens: Callable[[SimCluster], Awaitable[None]], after_s: float
) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, HEAD)
        await asyncio.sleep(8)
        media_of(cluster, "s1").smart = FAILING
        await cluster.until("a leg moves", 60, lambda: _moves(cluster))
        await asyncio.sleep(after_s)
        await happens(cluster)
        await cluster.until("its legs are elsewhere", 240, lambda: is_empty(cluster, "s1"))
        await cluster.until("all is whole", 120, cluster.redundant)
        await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster))
        if media_of(cluster, "s1").failed:
            await cluster.until("retired", 60, lambda: _is_retired(cluster))
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


async def _is_retired(cluster: SimCluster) -> bool:
    """A disk that died is given up once that is found out; one that was left by then, at once."""
    with contextlib.suppress(BusyError):
        await cluster.do(api.RetireDisk(disk="s1:/dev/disk/by-id/s1-0"))
        return True
    return False


async def _moves(cluster: SimCluster) -> bool:
    return "leg-moving" in await cluster.events()


async def _move_everything(plan: Recorder | ScriptedFaults, cluster: SimCluster) -> None:
    await cluster.create(size_bytes=SMALL)
    await cluster.attach(head=HEAD)
    for number in range(16):
        await cluster.checker.write(HEAD, "v", number)
    (host, *_) = [n for n in STORES if await legs_on(cluster, n)]
    cluster.world.plan = plan
    media_of(cluster, host).smart = FAILING
    stop = cluster.spawn(cluster.checker.keep_writing(HEAD, "v", 16, 0.3))
    await cluster.until("moved", 120, lambda: is_empty(cluster, host))
    await cluster.until("redundant", 90, cluster.redundant)
    cluster.world.plan = NoFaults()
    await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster))
    media_of(cluster, host).smart = WELL
    stop.cancel()
    await cluster.checker.read_all(HEAD, "v")
    await asyncio.sleep(2)
    await cluster.detach()
    await cluster.delete()
    await cluster.nothing_left()


@pytest.mark.parametrize(
    ("host", "prefixes"),
    [(HEAD, ("dm.", "md.")), ("m", ("store.",))],
    ids=["head", "manager"],
)
def test_a_crash_anywhere_in_the_move_of_a_leg(host: str, prefixes: tuple[str, ...]) -> None:
    recorder = Recorder()
    simulate(partial(_move_everything, recorder), spread)
    places = recorder.places(host, prefixes)
    assert places
    for place in places:
        plan = ScriptedFaults({place: Fault(FaultKind.CRASH)})
        try:
            simulate(partial(_move_everything, plan), spread)
        except Exception as error:
            raise AssertionError(f"crash at {place}: {error}") from error
