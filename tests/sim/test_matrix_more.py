"""The rest of the matrix: heads, the manager's absence, two things at once, no room, deletes."""

import asyncio
from functools import partial

import pytest

from tests.sim.accidents import Plots
from tests.sim.cluster import LEG_TIMEOUT_S, RACKED, RACKS, REBUILD_DELAY_S, SimCluster
from tests.sim.fake_disks import FakeMedia
from tests.sim.faults import Fault, FaultKind, NoFaults, ScriptedFaults
from tests.sim.storm import Weather, next_request
from tests.sim.survey import Watch
from tests.sim.test_cluster import (
    SMALL,
    Recorder,
    at_the_end,
    attached,
    health,
    legs_on,
    simulate,
    writing,
)
from tests.sim.test_matrix import SPREAD
from vastskyd.core import api
from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import JobState
from vastskyd.core.turn import Policy
from vastskyd.core.units import MIB


def spread() -> SimCluster:
    return SimCluster(61, SPREAD)


# --- heads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("off_s", [1.0, 8.0, 100.0])
def test_a_head_that_loses_power_during_writes_has_its_volume_again(off_s: float) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h1")
        cluster.world.power_cut("h1")
        if off_s > 10:
            await cluster.until("it is said", 12, lambda: health(cluster, "unknown"))
        await asyncio.sleep(off_s)
        cluster.power_on("h1")
        await asyncio.sleep(5)
        await cluster.until("it is back", 30, cluster.redundant)
        await at_the_end(cluster, "h1")

    simulate(body, spread)


@pytest.mark.parametrize("hangs_s", [5.0, 60.0])
def test_a_head_that_hangs_and_finds_its_volume_moved_takes_it_down(hangs_s: float) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h1")
        await asyncio.sleep(8)
        cluster.world.freeze("h1")
        await asyncio.sleep(hangs_s / 2)
        job = await cluster.job(await cluster.start_job(api.FailoverVolume(volume="v", head="h2")))
        assert job.state is JobState.DONE, job
        writing(cluster, "h2")
        await asyncio.sleep(hangs_s / 2)
        cluster.world.thaw("h1")
        await cluster.until("taken down", 30, lambda: not cluster.stacks("h1"))
        await at_the_end(cluster, "h2")

    simulate(body, spread)


async def _replaced(cluster: SimCluster) -> None:
    """A leg is lost and replaced, and all is well; with what the plan does meanwhile."""
    for number in range(16):
        await cluster.checker.write("h1", "v", number)
    (host, *_) = [n for n in ("s1", "s2", "s3", "s4") if await legs_on(cluster, n)]
    media = cluster.world.hosts[host].pull(f"{host}-0")
    stop = cluster.spawn(cluster.checker.keep_writing("h1", "v", 16, 0.3))
    await cluster.until("replaced", 90, lambda: _moved_away(cluster, host))
    await cluster.until("redundant", 90, cluster.redundant)
    cluster.world.hosts[host].insert(media)
    await asyncio.sleep(3)
    stop.cancel()
    await cluster.checker.read_all("h1", "v")


async def _moved_away(cluster: SimCluster, host: str) -> bool:
    return await legs_on(cluster, host) == 0


async def _leg_replacement(cluster: SimCluster, plan: Recorder | ScriptedFaults) -> None:
    await cluster.create(size_bytes=SMALL)
    await cluster.attach(head="h1")
    cluster.world.plan = plan
    await _replaced(cluster)
    cluster.world.plan = NoFaults()
    await asyncio.sleep(2)
    await cluster.detach()
    await cluster.delete()
    await cluster.nothing_left()


@pytest.mark.parametrize(
    ("host", "prefixes"),
    [("h1", ("nbd.", "dm.", "md.")), ("m", ("store.",)), ("s3", ("disks.", "dm.", "exports."))],
    ids=["head", "manager", "storage"],
)
def test_a_crash_anywhere_in_the_replacement_of_a_leg(host: str, prefixes: tuple[str, ...]) -> None:
    recorder = Recorder()
    simulate(lambda cluster: _leg_replacement(cluster, recorder), spread)
    places = recorder.places(host, prefixes)
    assert places
    for place in places:
        plan = ScriptedFaults({place: Fault(FaultKind.CRASH)})
        try:
            simulate(partial(_with_plan, plan), spread)
        except Exception as error:
            raise AssertionError(f"crash at {place}: {error}") from error


async def _with_plan(plan: ScriptedFaults, cluster: SimCluster) -> None:
    await _leg_replacement(cluster, plan)


# --- the manager's absence ----------------------------------------------------------------------


@pytest.mark.parametrize("copies", [2, 3])
def test_the_manager_is_away_for_ten_minutes_while_a_leg_dies(copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies, "h1")
        await asyncio.sleep(8)
        cluster.world.partition("m")
        await asyncio.sleep(5)
        cluster.world.power_cut("s1")
        await asyncio.sleep(LEG_TIMEOUT_S + 10)
        before = cluster.checker.acknowledged
        await asyncio.sleep(580)
        (shown,) = cluster.members["h1"].local_volumes()
        if copies == 2:
            assert cluster.checker.acknowledged == before
            assert shown.state == "stalled"
            assert "the leg on s1" in shown.message
            assert "the manager, which is unreachable" in shown.message
        else:
            assert cluster.checker.acknowledged > before + 1000
            assert (shown.state, shown.message) == ("degraded", "without the leg on s1")
        cluster.world.heal()
        await cluster.until("writes go on", 20, lambda: cluster.checker.acknowledged > before)
        await cluster.until("rebuilt", REBUILD_DELAY_S + 60, cluster.redundant)
        assert await legs_on(cluster, "s1") == 0
        cluster.power_on("s1")
        await at_the_end(cluster, "h1")

    simulate(body, spread)


# --- two at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("other", ["h1", "m"])
def test_a_storage_host_and(other: str, copies: int) -> None:
    """The head, or the manager."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies, "h1")
        cluster.world.power_cut("s1")
        cluster.world.power_cut(other)
        await asyncio.sleep(30)
        cluster.power_on(other)
        await cluster.until("it is up, degraded", 60, lambda: health(cluster, "degraded"))
        cluster.power_on("s1")
        await cluster.until("redundant", 60, cluster.redundant)
        await at_the_end(cluster, "h1")

    simulate(body, spread)


def test_a_disk_fails_during_the_rebuild_of_another() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, "h1")
        hosts = cluster.world.hosts
        first = hosts["s1"].pull("s1-0")
        await cluster.until("rebuilding", 30, lambda: health(cluster, "rebuilding"))
        second = hosts["s2"].pull("s2-0")
        await cluster.until("it is said", 15, lambda: health(cluster, "degraded", "rebuilding"))
        before = cluster.checker.acknowledged
        await asyncio.sleep(20)
        assert cluster.checker.acknowledged > before
        hosts["s1"].insert(first)
        hosts["s2"].insert(second)
        await cluster.until("redundant", 90, cluster.redundant)
        await at_the_end(cluster, "h1")

    simulate(body, spread)


@pytest.mark.parametrize("waited_for", ["s1", "s2", "s3"])
@pytest.mark.parametrize("other", ["s1", "s2", "s3"])
def test_two_of_three_legs_while_the_superblock_of_one_is_waited_for(
    other: str, waited_for: str
) -> None:
    """The first write after a pause: md keeps its lock while it waits for the superblock of a leg
    that the head may not let go of by itself, so it cannot be told that the other has gone."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create(copies=3)
        await cluster.attach(head="h1")
        await cluster.checker.write("h1", "v", 0)
        await asyncio.sleep(2)
        cluster.world.power_cut(waited_for)
        await asyncio.sleep(0.01)
        writing(cluster, "h1")
        await asyncio.sleep(0.02)
        if other != waited_for:
            cluster.world.power_cut(other)
        before = cluster.checker.acknowledged
        await cluster.until("writes go on", 9, lambda: cluster.checker.acknowledged > before)
        cluster.power_on(waited_for)
        if other != waited_for:
            cluster.power_on(other)
        await at_the_end(cluster, "h1")

    simulate(body, lambda: SimCluster(67))


def test_a_rack_is_lost() -> None:
    """The legs of a segment are in different ones."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, "h1")
        for host in ("a1", "a2"):
            cluster.world.power_cut(host)
        await cluster.until("it is said", 12, lambda: health(cluster, "degraded", "stalled"))
        await asyncio.sleep(5)
        before = cluster.checker.acknowledged
        await asyncio.sleep(10)
        assert cluster.checker.acknowledged > before
        for host in ("a1", "a2"):
            cluster.power_on(host)
        await cluster.until("redundant", 90, cluster.redundant)
        await at_the_end(cluster, "h1")

    simulate(body, lambda: SimCluster(62, RACKED, racks=RACKS))


# --- room ---------------------------------------------------------------------------------------


def test_without_a_spare_it_is_degraded_and_says_so_until_a_disk_is_added() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3)
        cluster.world.hosts["s1"].pull("s1-0")
        await cluster.until("it is said", 12, lambda: _says(cluster, "no disk of another node"))
        await asyncio.sleep(60)
        assert await health(cluster, "degraded")
        cluster.world.hosts["s1"].insert(FakeMedia("added", 128 * MIB))
        await cluster.until("it is offered", 15, lambda: _enrolled(cluster, "s1", "added"))
        await cluster.until("rebuilt on it", 90, cluster.redundant)
        await cluster.do(api.RetireDisk(disk="s1:/dev/disk/by-id/s1-0"))
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(63))


async def _says(cluster: SimCluster, words: str) -> bool:
    return any(words in said for said in (await cluster.status()).problems)


async def _enrolled(cluster: SimCluster, node: str, serial: str) -> bool:
    try:
        await cluster.do(api.EnrolDisk(node=NodeId(node), path=f"/dev/disk/by-id/{serial}"))
    except VastskyError:
        return False
    return True


# --- deletes ------------------------------------------------------------------------------------


def test_a_delete_with_a_dead_node_is_done_and_its_name_is_free_at_once() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        cluster.world.power_cut("s1")
        await asyncio.sleep(20)
        began_s = cluster.world.now_s()
        await cluster.delete()
        await cluster.create()
        assert cluster.world.now_s() - began_s < 5
        assert not await legs_on(cluster, "s1")
        await cluster.attach()
        await asyncio.sleep(100)
        cluster.power_on("s1")
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(64))


# --- many ---------------------------------------------------------------------------------------


def test_a_thousand_operations_with_faults_leave_nothing_stuck() -> None:
    """Steps fail, take long and crash all the while; 60 s after the last fault all has ended."""
    names = tuple("abcde")

    async def body(cluster: SimCluster) -> None:
        world = cluster.world
        kinds = {FaultKind.CRASH: 0.001, FaultKind.FAIL: 0.002, FaultKind.DELAY: 0.003}
        world.plan = Weather(world.rng("plan"), kinds)
        asked = 0

        async def use(name: str) -> None:
            nonlocal asked
            rng = world.rng(f"user:{name}")
            while asked < 1000:
                asked += 1
                request = next_request(cluster, rng, name, rng.choice((1, 2, 3)))
                try:
                    async with asyncio.timeout(rng.uniform(0.2, 5)):
                        await cluster.job(await cluster.start_job(request))
                except (TimeoutError, VastskyError):
                    await asyncio.sleep(rng.uniform(0, 2))

        await asyncio.gather(*(use(name) for name in names))
        world.plan = Plots()
        await asyncio.sleep(60)
        watch = Watch(cluster)
        await cluster.until("nothing is stuck", 1, lambda: _no_trouble(watch))

    async def _no_trouble(watch: Watch) -> bool:
        if trouble := await watch.trouble():
            raise AssertionError(trouble)
        return True

    policy = Policy(rebuild_delay_s=REBUILD_DELAY_S, segment_max_bytes=32 * MIB)
    simulate(body, lambda: SimCluster(65, policy=policy, disk_bytes=512 * MIB))
