"""A disk that is retired while it is in use: its legs move elsewhere first."""

import asyncio
from functools import partial

import pytest

from tests.sim.cluster import SimCluster
from tests.sim.fake_disks import FakeMedia
from tests.sim.test_cluster import at_the_end, attached, legs_on, simulate
from tests.sim.test_failing_disks import Redundancy, is_of_one_size
from tests.sim.test_matrix import SPREAD, _is_ok, _says, media_of
from vastskyd.core import answers, api
from vastskyd.core.errors import BusyError, CancelledError, ExistsError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import DiskState, Job, JobState
from vastskyd.core.units import MIB

HEAD = "h1"
DISK = "s1:/dev/disk/by-id/s1-0"
DRAINED_S = 240


def spread() -> SimCluster:
    return SimCluster(62, SPREAD, disk_bytes=256 * MIB)


def state_of(cluster: SimCluster) -> str:
    disks = cluster.state().disks.values()
    return next((disk.state.value for disk in disks if disk.serial == "s1-0"), "")


async def shown(cluster: SimCluster, job: Job) -> Job:
    answer: answers.JobList = await cluster.ask(api.ShowJob(job=job.id))
    return answer.jobs[0]


async def is_empty(cluster: SimCluster, host: str, *names: str) -> bool:
    views = [await cluster.volume(name) for name in names]
    return not any(leg.node == host for v in views for s in v.segments for leg in s.legs)


async def others(cluster: SimCluster) -> None:
    """A volume that nobody has, and one that nobody ever had."""
    await cluster.create("idle")
    await cluster.attach("idle", "h2")
    for number in range(40):
        await cluster.checker.write("h2", "idle", number)
    await cluster.detach("idle")
    await cluster.create("new", copies=3)


@pytest.mark.parametrize("copies", [2, 3])
def test_a_disk_in_use_is_emptied_and_then_retired(copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies, HEAD)
        await others(cluster)
        assert await legs_on(cluster, "s1")
        await asyncio.sleep(8)
        looks = Redundancy(cluster, copies)
        look = cluster.spawn(looks.run())
        job = await cluster.start_job(api.RetireDisk(disk=DISK))
        assert job.state is JobState.RUNNING
        assert (await cluster.start_job(api.RetireDisk(disk=DISK))).id == job.id
        assert state_of(cluster) == "draining"
        node, path = DISK.split(":", 1)
        with pytest.raises(ExistsError, match=r"enrolled already, .* and is draining"):
            await cluster.ask(api.EnrolDisk(node=NodeId(node), path=path))
        assert await _is_ok(cluster)
        seen = set[int]()
        while (now := await shown(cluster, job)).state is JobState.RUNNING:
            seen.add(now.done_bytes)
            assert now.total_bytes
            assert now.message
            await asyncio.sleep(0.5)
        assert (now.state, now.message) == (JobState.DONE, f"{DISK} retired")
        assert len(seen) > 2
        look.cancel()
        assert state_of(cluster) == ""
        assert await is_empty(cluster, "s1", "v", "idle", "new")
        assert looks.most == copies + 1
        await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster))
        events = await cluster.events()
        assert {"disk-draining", "leg-moving", "volume-mended", "disk-retired"} <= set(events)
        assert "leg-lost" not in events
        await cluster.until("all is well", 30, lambda: _is_ok(cluster))
        await cluster.attach("idle", "h2")
        await cluster.checker.read_all("h2", "idle")
        await cluster.detach("idle")
        for name in ("idle", "new"):
            await cluster.delete(name)
        cluster.world.hosts["s1"].pull("s1-0")
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


def test_without_room_it_says_so_until_there_is_some() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, HEAD)
        job = await cluster.start_job(api.RetireDisk(disk=DISK))
        said = "no other disk has room for the legs of v"
        await cluster.until("it is said", 10, lambda: _says(cluster, f"cannot be emptied: {said}"))
        await asyncio.sleep(60)
        now = await shown(cluster, job)
        assert (now.state, now.done_bytes) == (JobState.RUNNING, 0)
        assert said in now.message
        cluster.world.hosts["s1"].insert(FakeMedia("fresh", media_of(cluster, "s1").size_bytes))
        await asyncio.sleep(5)
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path="/dev/disk/by-id/fresh"))
        async with asyncio.timeout(DRAINED_S):
            assert (await cluster.job(job)).state is JobState.DONE
        cluster.world.hosts["s1"].pull("s1-0")
        await at_the_end(cluster, HEAD)

    simulate(body, lambda: SimCluster(7))


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3])
def test_a_disk_that_is_not_retired_after_all_is_used_on(after_s: float) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, HEAD)
        job = await cluster.start_job(api.RetireDisk(disk=DISK))
        await asyncio.sleep(after_s)
        await cluster.ask(api.CancelJob(job=job.id))
        ended = await cluster.job(job)
        assert (ended.state, ended.error_code) == (JobState.FAILED, CancelledError.code)
        assert state_of(cluster) == DiskState.ONLINE
        await cluster.until("all is well", 60, lambda: _is_ok(cluster))
        legs = [len(segment.legs) for segment in cluster.state_of("v").segments]
        await cluster.until("no leg too many", 60, lambda: set(legs) == {2} or _two(cluster))
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


def _two(cluster: SimCluster) -> bool:
    return all(len(segment.legs) == 2 for segment in cluster.state_of("v").segments)


@pytest.mark.parametrize("back", [True, False])
def test_a_disk_that_goes_while_it_is_emptied(back: bool) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, HEAD)
        job = await cluster.start_job(api.RetireDisk(disk=DISK))
        await asyncio.sleep(2)
        media = cluster.world.hosts["s1"].pull("s1-0")
        await asyncio.sleep(5)
        if back:
            cluster.world.hosts["s1"].insert(media)
        async with asyncio.timeout(DRAINED_S):
            assert (await cluster.job(job)).state is JobState.DONE
        assert state_of(cluster) == ""
        if back:
            cluster.world.hosts["s1"].pull("s1-0")
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


@pytest.mark.parametrize("whom", ["m", "s1", HEAD])
def test_vastskyd_is_killed_while_a_disk_is_emptied(whom: str) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, HEAD)
        job = await cluster.start_job(api.RetireDisk(disk=DISK))
        for _ in range(6):
            await asyncio.sleep(2)
            cluster.world.kill_daemon(whom)
        await cluster.until("it is retired", DRAINED_S, lambda: not state_of(cluster))
        assert (await cluster.job(job)).state is JobState.DONE
        cluster.world.hosts["s1"].pull("s1-0")
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


def test_an_only_copy_is_not_moved() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create("w", copies=1, size_bytes=16 * MIB)
        (segment,) = cluster.state_of("w").segments
        found = cluster.state().disk_of(segment.legs[0].extent)
        assert found is not None
        disk = found.id
        with pytest.raises(BusyError, match="holds the only copy of w"):
            await cluster.ask(api.RetireDisk(disk=disk))
        await cluster.delete("w")
        await cluster.do(api.RetireDisk(disk=disk))

    simulate(body, spread)


def test_nothing_new_is_placed_on_it() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, HEAD)
        job = await cluster.start_job(api.RetireDisk(disk=DISK))
        await cluster.create("w", copies=3, size_bytes=16 * MIB)
        assert await is_empty(cluster, "s1", "w")
        assert (await shown(cluster, job)).state is JobState.RUNNING
        await cluster.until("retired", DRAINED_S, partial(_is_done, cluster, job))
        await cluster.delete("w")
        cluster.world.hosts["s1"].pull("s1-0")
        await at_the_end(cluster, HEAD)

    simulate(body, spread)


async def _is_done(cluster: SimCluster, job: Job) -> bool:
    return (await shown(cluster, job)).state is JobState.DONE
