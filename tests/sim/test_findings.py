"""What random seasons and storms found, each as a script."""

import asyncio

import pytest

from tests.sim.accidents import Plots
from tests.sim.cluster import SimCluster
from tests.sim.faults import Fault, FaultKind
from tests.sim.test_cluster import at_the_end, attached, health, legs_on, simulate
from tests.sim.test_matrix import media_of
from vastskyd.core import api
from vastskyd.core.errors import NoSpaceError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import DiskState, JobState
from vastskyd.core.units import MIB
from vastskyd.roles.connections import retry_pause_s


def test_a_volume_that_waits_for_its_leg_is_detached_once_the_leg_is_back() -> None:
    """Its user is a write that waits for the leg, and so it stays in use until somebody connects
    the leg again: nobody did, once the job had been given up."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=16 * MIB, copies=1)
        await cluster.attach(head="h2")
        (store,) = [name for name in ("s1", "s2", "s3") if await legs_on(cluster, name)]
        cluster.world.power_cut(store)
        await asyncio.sleep(1)
        waiting = cluster.spawn(cluster.checker.write("h2", "v", 1))
        await asyncio.sleep(20)
        detach = await cluster.start_job(api.DetachVolume(volume="v"))
        cluster.world.partition("h2")
        assert (await cluster.job(detach)).error_code == "Unreachable"
        cluster.world.heal()
        await asyncio.sleep(20)
        assert not waiting.done()
        cluster.power_on(store)
        await cluster.until("it is detached", 60, lambda: not cluster.owner("v"))
        assert waiting.result()
        await cluster.attach()
        await cluster.checker.read_all("h1", "v")
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(51))


def test_a_volume_whose_only_copy_failed_passes_errors_on_and_can_be_given_up() -> None:
    """It waited for ever for a disk that would not be used again."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=16 * MIB, copies=1)
        await cluster.attach(head="h2")
        assert await cluster.checker.write("h2", "v", 1)
        (store,) = [name for name in ("s1", "s2", "s3") if await legs_on(cluster, name)]
        plots = Plots()
        for _ in range(4):
            plots.next(store, "disks.write_slot", Fault(FaultKind.FAIL))
        cluster.world.plan = plots
        await cluster.start_job(api.CreateVolume(name="w", size_bytes=16 * MIB, copies=3))
        await cluster.until("the disk failed", 120, lambda: "disk-failed" in said(cluster))
        assert await cluster.checker.write("h2", "v", 1)  # as long as it can
        await cluster.until("that is said", 5, lambda: problem(cluster, "which has failed: save"))
        cluster.world.power_cut(store)
        await asyncio.sleep(10)
        for number in (1, 2):
            assert not await asyncio.wait_for(cluster.checker.write("h2", "v", number), 30)
        await cluster.until("that is said", 5, lambda: problem(cluster, "v is unavailable"))
        cluster.power_on(store)
        await cluster.detach()
        await cluster.delete()
        await cluster.insist(api.DeleteVolume(volume="w"))
        (failed,) = [
            disk for disk in cluster.state().disks.values() if disk.state is DiskState.FAILED
        ]
        await cluster.do(api.RetireDisk(disk=failed.id))
        await cluster.nothing_left()

    async def problem(cluster: SimCluster, words: str) -> bool:
        return any(words in line for line in (await cluster.status()).problems)

    def said(cluster: SimCluster) -> list[str]:
        return [event.kind for event in cluster.state().events.values()]

    simulate(body, lambda: SimCluster(53))


def test_a_volume_whose_only_disk_is_gone_is_given_up_by_moving_it() -> None:
    """Its programs wait for a disk that may come back, and hold the volume; where it moves away
    they get errors."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=16 * MIB, copies=1)
        await cluster.attach(head="h2")
        (store,) = [name for name in ("s1", "s2", "s3") if await legs_on(cluster, name)]
        (disk,) = [each for each in cluster.state().disks.values() if each.node == store]
        cluster.world.power_cut(store)
        waiting = cluster.spawn(cluster.checker.write("h2", "v", 1))
        await asyncio.sleep(1)
        cluster.world.hosts[store].pull(disk.serial)
        cluster.power_on(store)
        await asyncio.sleep(60)
        detach = await cluster.start_job(api.DetachVolume(volume="v"))
        assert (await cluster.job(detach)).error_code == "Busy"
        assert not waiting.done()
        await cluster.ask(api.FailoverVolume(volume="v", head=NodeId("h1")))
        assert not await asyncio.wait_for(waiting, 60)
        await cluster.insist(api.DetachVolume(volume="v"))
        await cluster.until("it is detached", 60, lambda: not cluster.owner("v"))
        await cluster.delete()
        await cluster.do(api.RetireDisk(disk=disk.id))
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(54))


def test_a_volume_with_one_copy_that_nobody_writes_to_is_not_well_without_its_host() -> None:
    """No I/O had failed yet, so the leg whose paths had gone was said to be at work (liveness
    63005)."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=16 * MIB, copies=1)
        await cluster.attach(head="h2")
        (store,) = [name for name in ("s1", "s2", "s3") if await legs_on(cluster, name)]
        cluster.world.power_cut(store)
        await cluster.until("it is said", 12, lambda: health(cluster, "stalled"))
        cluster.power_on(store)
        await cluster.until("it is well again", 30, cluster.redundant)

    simulate(body, lambda: SimCluster(55))


def test_a_path_that_stays_away_is_tried_for_ever_and_not_without_a_pause() -> None:
    """After 1075 tries, an hour, the pause was more than a number can hold: there was none."""
    pauses_s = [retry_pause_s(failures) for failures in (1, 2, 3, 1074, 1075, 100_000)]
    assert pauses_s[:3] == [0.2, 0.4, 0.8]
    assert set(pauses_s[3:]) == {3.0}


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0])
def test_a_clock_that_jumps_neither_ends_a_job_nor_keeps_it(skew_s: float) -> None:
    """How long an attach may try was reckoned by the wall clock."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=16 * MIB)
        legs = [name for name in ("s1", "s2", "s3") if await legs_on(cluster, name)]
        for name in legs:
            cluster.world.power_cut(name)
        await asyncio.sleep(10)
        attach = await cluster.start_job(api.AttachVolume(volume="v", head=NodeId("h2")))
        await asyncio.sleep(5)
        cluster.world.hosts["h1"].skew_s += skew_s
        await asyncio.sleep(5)
        assert cluster.state().jobs[attach.id].state is JobState.RUNNING
        timeout_s = cluster.policy.attach_timeout_s
        await cluster.until(
            "it ends",
            timeout_s,
            lambda: cluster.state().jobs[attach.id].state is JobState.FAILED,
        )
        assert "within reach" in cluster.state().jobs[attach.id].message
        cluster.power_on(*legs)
        await cluster.until("detached", 30, lambda: not cluster.owner("v"))
        await cluster.delete()
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(52))


def test_a_manager_whose_disk_is_full_says_so_and_goes_on() -> None:
    """It ended, and the head and the storage of its host with it."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies=3)
        cluster.world.full_stores["h1"] = None
        with pytest.raises(NoSpaceError, match="full"):
            await cluster.ask(api.CreateVolume(name="w", size_bytes=16 * MIB))
        status = await cluster.status()
        assert status.health == "critical"
        assert "h1 cannot record anything" in status.problems[0]
        cluster.world.power_cut("s1")
        await asyncio.sleep(30)
        assert "leg-lost" not in await cluster.events()  # nothing could be decided
        before = cluster.checker.acknowledged
        cluster.world.kill_daemon("h1")  # nor can it begin anew
        await asyncio.sleep(30)
        assert cluster.checker.acknowledged > before
        cluster.world.full_stores.clear()
        await cluster.until("it is known", 20, lambda: _recorded(cluster))
        cluster.power_on("s1")
        await cluster.until("redundant", 60, cluster.redundant)
        await at_the_end(cluster)

    async def _recorded(cluster: SimCluster) -> bool:
        return "leg-lost" in await cluster.events()

    simulate(body, lambda: SimCluster(53))


def test_a_disk_too_slow_for_its_description_is_used_again_once_it_is_quick() -> None:
    """A call that was late counted as a refusal, and the second made the disk failed for good."""
    names = ("w1", "w2", "w3")

    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        media = media_of(cluster, "s1")
        media.slow_s = 45.0
        for name in names:
            await cluster.start_job(api.CreateVolume(name=name, size_bytes=16 * MIB, copies=3))
        await asyncio.sleep(180)
        media.slow_s = 0.0
        await asyncio.sleep(60)
        assert "disk-failed" not in await cluster.events()
        states = {disk.state for disk in cluster.state().disks.values()}
        assert states == {DiskState.ONLINE}
        await cluster.until("redundant", 60, cluster.redundant)
        for name in names:
            await cluster.delete(name)
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(54))


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_late_call_has_written_all_the_same_does_not_stay(killed: bool) -> None:
    """Nobody wanted it any more, and so nothing was written after it (liveness 72037)."""

    async def body(cluster: SimCluster) -> None:
        media = media_of(cluster, "s1")
        media.slow_s = 45.0
        create = await cluster.start_job(api.CreateVolume(name="v", size_bytes=16 * MIB, copies=3))
        await asyncio.sleep(12)
        await cluster.delete()
        assert cluster.state().jobs[create.id].state is JobState.FAILED
        await asyncio.sleep(10)
        if killed:
            cluster.world.kill_daemon("s1")
        await asyncio.sleep(50)
        media.slow_s = 0.0
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(55))
