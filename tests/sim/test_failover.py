"""Volumes that move: by an administrator's word, or because their head is unreachable."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.sim.cluster import SimCluster
from tests.sim.survey import Watch
from tests.sim.test_cluster import at_the_end, attached, simulate, writing
from vastskyd.core import answers, api
from vastskyd.core.errors import BusyError, ConflictError, UnreachableError
from vastskyd.core.ids import JobId, NodeId
from vastskyd.core.model import AttachmentState


async def set_standby(cluster: SimCluster, *heads: str) -> None:
    names = tuple(NodeId(head) for head in heads)
    await cluster.ask(api.SetStandby(volume="v", heads=names))


def test_a_volume_goes_to_its_standby_head_when_its_own_loses_power() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        await set_standby(cluster, "h2", "h1")
        cluster.world.power_cut("h2")
        took_s = await cluster.until("on h1", 30, lambda: cluster.attached_on("v") == "h1")
        assert took_s < 20
        writing(cluster, "h1")
        await asyncio.sleep(5)
        assert "head-fenced" in await cluster.events()
        cluster.power_on("h2")
        await asyncio.sleep(20)
        assert cluster.attached_on("v") == "h1"  # nothing moves back by itself
        assert not cluster.stacks("h2")
        cluster.world.partition("h1")  # with the manager: it and the volume stay what they are
        await asyncio.sleep(20)
        cluster.world.heal()
        await cluster.until("redundant", 120, cluster.redundant)
        await at_the_end(cluster, "h1")

    simulate(body, lambda: SimCluster(31))


def test_a_head_that_others_reach_keeps_its_volume() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        await set_standby(cluster, "h1")
        cluster.world.network.cut_control("h1", "h2")
        await asyncio.sleep(60)
        assert cluster.attached_on("v") == "h2"
        cluster.world.heal()
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(32))


def test_a_manager_that_starts_takes_no_silence_for_death() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        await set_standby(cluster, "h1")
        for _ in range(4):
            cluster.world.kill_daemon("h1")
            await asyncio.sleep(4)
        await asyncio.sleep(30)
        assert cluster.attached_on("v") == "h2"
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(33))


def test_a_standby_goes_on_trying_where_an_administrator_would_give_up() -> None:
    """The head and both hosts of a segment's legs lose power; those come back late."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        await set_standby(cluster, "h1")
        for name in ("h2", "s1", "s2", "s3"):
            cluster.world.power_cut(name)
        await asyncio.sleep(200)
        assert not cluster.attached_on("v")
        cluster.power_on("s1", "s2", "s3")
        await cluster.until("on h1", 60, lambda: cluster.attached_on("v") == "h1")
        await cluster.checker.read_all("h1", "v")
        cluster.power_on("h2")
        await cluster.until("redundant", 120, cluster.redundant)
        await at_the_end(cluster, "h1")

    simulate(body, lambda: SimCluster(34))


def test_a_failover_from_a_head_that_works() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        with pytest.raises(ConflictError, match="not attached"):
            await cluster.ask(api.FailoverVolume(volume="v", head="h1"))
        await cluster.attach(head="h2")
        writing(cluster, "h2")
        with pytest.raises(ConflictError, match="no standby head"):
            await cluster.ask(api.FailoverVolume(volume="v"))
        with pytest.raises(ConflictError, match="already"):
            await cluster.ask(api.FailoverVolume(volume="v", head="h2"))
        await cluster.do(api.FailoverVolume(volume="v", head="h1"))
        await cluster.checker.read_all("h1", "v")
        await cluster.until("torn down", 60, lambda: not cluster.stacks("h2"))
        await at_the_end(cluster, "h1")

    simulate(body, lambda: SimCluster(35))


# --- a head that could not be fenced ----------------------------------------------------------


async def _cut_off_and_moved(cluster: SimCluster, *stores: str) -> JobId:
    """h2, together with these hosts; its volume is to go to h1."""
    cluster.world.partition("h2", *stores)
    await asyncio.sleep(20)
    job = await cluster.start_job(api.FailoverVolume(volume="v", head=NodeId("h1")))
    await asyncio.sleep(5)
    return job.id


async def _is_given_up(cluster: SimCluster, job: JobId) -> None:
    within_s = cluster.policy.attach_timeout_s + 10
    async with asyncio.timeout(within_s):
        ended = await cluster.job(cluster.state().jobs[job])
    assert ended.error_code == UnreachableError.code


async def _is_cancelled(cluster: SimCluster, job: JobId) -> None:
    await cluster.ask(api.CancelJob(job=job))


async def _is_to_be_detached(cluster: SimCluster, job: JobId) -> None:
    await cluster.start_job(api.DetachVolume(volume="v"))


@pytest.mark.parametrize("ends", [_is_given_up, _is_cancelled, _is_to_be_detached])
def test_a_volume_counts_as_its_last_heads_until_that_one_is_fenced(
    ends: Callable[[SimCluster, JobId], Awaitable[None]],
) -> None:
    """The head is cut off together with the hosts of its legs: it goes on acknowledging. A failover
    that came to nothing left the volume "not attached", and it could be deleted."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        job = await _cut_off_and_moved(cluster, "s1", "s2", "s3")
        await ends(cluster, job)
        await asyncio.sleep(20)
        before = cluster.checker.acknowledged
        await asyncio.sleep(20)
        assert cluster.checker.acknowledged > before
        view = await cluster.volume("v")
        assert (view.head, view.attachment) == ("h2", AttachmentState.UNFENCED)
        assert (view.health, view.device) == ("unknown", "")
        assert "may still write to it" in view.message
        with pytest.raises(BusyError, match="h2 had it last and is not fenced"):
            await cluster.ask(api.DeleteVolume(volume="v"))
        cluster.world.heal()
        await cluster.until("detached", 60, lambda: not cluster.owner("v"))
        await cluster.until("torn down", 60, lambda: not cluster.stacks("h2"))
        await cluster.attach(head="h1")
        await cluster.checker.read_all("h1", "v")
        await at_the_end(cluster, "h1")

    simulate(body, lambda: SimCluster(36))


def test_legs_that_a_fenced_head_left_behind_are_mended() -> None:
    """It has let go of one by itself, and nobody else was ever told: by the records all are in
    sync (liveness 5009)."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies=3, head="h2")
        await asyncio.sleep(10)
        await _cut_off_and_moved(cluster, "s1", "s2")
        await cluster.start_job(api.DetachVolume(volume="v"))
        await asyncio.sleep(20)
        for task in cluster.checker.tasks:
            task.cancel()
        cluster.world.heal()
        await cluster.until("detached", 60, lambda: not cluster.owner("v"))
        assert not await cluster.redundant()
        watch = Watch(cluster)
        assert watch.legs_differ()
        await cluster.until("mended", 60, cluster.redundant)
        assert not watch.legs_differ()
        assert not cluster.owner("v")
        await cluster.attach(head="h1")
        await at_the_end(cluster, "h1")

    simulate(body, lambda: SimCluster(38))


@pytest.mark.parametrize("head", ["h1", "h2"])
def test_a_volume_whose_last_head_was_not_fenced_can_be_attached(head: str) -> None:
    """Elsewhere once there are enough legs within reach, and on that head again."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        job = await _cut_off_and_moved(cluster, "s1", "s2", "s3")
        await cluster.ask(api.CancelJob(job=job))
        cluster.world.heal()
        await cluster.until("h2 is back", 60, lambda: _is_online(cluster, "h2"))
        await cluster.attach(head=head)
        await cluster.checker.read_all(head, "v")
        await at_the_end(cluster, head)

    async def _is_online(cluster: SimCluster, name: str) -> bool:
        shown: answers.NodeList = await cluster.ask(api.ListNodes())
        return any(node.id == name and node.state == "online" for node in shown.nodes)

    simulate(body, lambda: SimCluster(37))
