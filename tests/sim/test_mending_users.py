"""A volume that is mended, and whoever wants it meanwhile: they come first."""

import asyncio
from functools import partial

import pytest

from tests.sim.cluster import (
    TOGETHER,
    Shape,
    SimCluster,
)
from tests.sim.put_away import (
    HEADS,
    detached,
    filling,
    healed,
    holds_everything,
    mending,
    plug_in,
    pull,
    running,
    spread,
)
from tests.sim.test_cluster import simulate
from tests.sim.test_matrix import SPREAD
from vastskyd.core import api
from vastskyd.core.errors import BusyError, ConflictError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import AttachmentState, JobKind, JobState


async def _while_mended(cluster: SimCluster, when: str) -> str:
    await detached(cluster)
    pull(cluster)
    on = await mending(cluster)
    if when == "filling":
        await cluster.until("it is rebuilt", 30, partial(filling, cluster))
    elif when == "leaving":
        await cluster.until(
            "it is given back",
            120,
            lambda: (
                (at := cluster.state_of("v").attachment) is not None
                and at.state is AttachmentState.DETACHING
            ),
        )
    return on


WHENS = ("begun", "filling", "leaving")


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_a_user_who_attaches_it_comes_first(same: bool, when: str) -> None:
    async def body(cluster: SimCluster) -> None:
        on = await _while_mended(cluster, when)
        head = on if same else next(each for each in HEADS if each != on)
        epoch = cluster.state_of("v").epoch
        await cluster.do(api.AttachVolume(volume="v", head=NodeId(head)), within_s=10)
        assert cluster.attached_on("v") == head
        assert cluster.world.hosts[head].has_volume("v")
        if same and when == "filling":
            assert cluster.state_of("v").epoch == epoch, "what is filled goes on being so"
        await cluster.checker.read_all(head, "v")
        await cluster.checker.write(head, "v", 3)
        await cluster.until("redundant", 120, cluster.redundant)
        assert cluster.attached_on("v") == head
        if not same:
            await cluster.until("it is not there", 20, lambda: not cluster.stacks(on))
        assert not {"head-fenced", "mending-failed"} & set(await cluster.events())
        await cluster.detach()
        await holds_everything(cluster)

    simulate(body, spread)


def test_a_user_need_not_wait_for_a_head_that_does_not_let_go() -> None:
    async def body(cluster: SimCluster) -> None:
        on = await _while_mended(cluster, "filling")
        cluster.world.freeze(on)
        other = next(each for each in HEADS if each != on)
        job = await cluster.start_job(api.AttachVolume(volume="v", head=NodeId(other)))
        view = await cluster.volume("v")
        assert (view.head, view.attachment) == (other, AttachmentState.FENCING)
        again = await cluster.start_job(api.AttachVolume(volume="v", head=NodeId(other)))
        assert again.id == job.id
        with pytest.raises(BusyError):
            await cluster.ask(api.DeleteVolume(volume="v"))
        async with asyncio.timeout(25):
            assert (await cluster.job(job)).state is JobState.DONE
        assert running(cluster, JobKind.ATTACH) == []
        cluster.world.thaw(on)
        await cluster.checker.write(other, "v", 3)
        await cluster.until("redundant", 120, cluster.redundant)
        await cluster.until("it is not there", 20, lambda: not cluster.stacks(on))
        await cluster.detach()
        await holds_everything(cluster)

    simulate(body, spread)


@pytest.mark.parametrize("how", ["cancel", "detach"])
def test_a_user_who_changes_his_mind_leaves_it_to_be_mended(how: str) -> None:
    async def body(cluster: SimCluster) -> None:
        on = await _while_mended(cluster, "filling")
        cluster.world.freeze(on)
        other = next(each for each in HEADS if each != on)
        job = await cluster.start_job(api.AttachVolume(volume="v", head=NodeId(other)))
        if how == "cancel":
            await cluster.ask(api.CancelJob(job=job.id))
        else:
            await cluster.do(api.DetachVolume(volume="v"))
        assert (await cluster.job(job)).state is JobState.FAILED
        cluster.world.thaw(on)
        await healed(cluster)
        assert cluster.attached_on("v") == ""
        await holds_everything(cluster)

    simulate(body, spread)


@pytest.mark.parametrize("shape", [SPREAD, TOGETHER], ids=["spread", "together"])
@pytest.mark.parametrize("when", WHENS)
def test_it_can_be_deleted_meanwhile(when: str, shape: Shape) -> None:
    async def body(cluster: SimCluster) -> None:
        await _while_mended(cluster, when)
        await cluster.do(api.DeleteVolume(volume="v"), within_s=2)
        await cluster.create("v")
        await cluster.attach("v")
        cluster.checker.forget("v")
        await cluster.detach("v")
        await cluster.until("all jobs end", 60, lambda: not running(cluster, *JobKind))
        plug_in(cluster)
        await cluster.delete()
        await cluster.nothing_left(120)

    simulate(body, lambda: SimCluster(64, shape))


def test_it_is_not_attached_for_those_who_ask_else() -> None:
    async def body(cluster: SimCluster) -> None:
        on = await _while_mended(cluster, "filling")
        job = await cluster.do(api.DetachVolume(volume="v"))
        assert job.message == "volume v is not attached"
        for request in (api.ScrubVolume(volume="v"), api.FailoverVolume(volume="v", head="h2")):
            with pytest.raises(ConflictError, match="is not attached"):
                await cluster.ask(request)
        (rebuild,) = [j for j in cluster.state().jobs.values() if j.kind is JobKind.REBUILD]
        with pytest.raises(ConflictError, match="a rebuild cannot be cancelled"):
            await cluster.ask(api.CancelJob(job=rebuild.id))
        await cluster.ask(api.SetStandby(volume="v", heads=(NodeId("h1"), NodeId("h2"))))
        cluster.world.power_cut(on)
        await asyncio.sleep(20)
        assert cluster.owner("v") == ""
        await healed(cluster)
        cluster.power_on(on)
        await holds_everything(cluster)

    simulate(body, spread)


def test_a_head_that_mends_can_be_removed() -> None:
    async def body(cluster: SimCluster) -> None:
        on = await _while_mended(cluster, "filling")
        await cluster.ask(api.RemoveNode(node=NodeId(on)))
        await cluster.until("it is whole", 120, cluster.redundant)
        await cluster.until("it is given back", 30, lambda: not cluster.mended_on("v"))

    simulate(body, spread)
