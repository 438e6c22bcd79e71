"""The manager's records are lost while the cluster runs, and made anew from what the hosts say."""

import asyncio

import pytest

from tests.sim.cluster import APART, LEG_TIMEOUT_S, REBUILD_DELAY_S, TOGETHER, Shape, SimCluster
from tests.sim.faults import Fault, FaultKind, ScriptedFaults
from tests.sim.test_cluster import at_the_end, attached, health, simulate, writing
from vastskyd.core import answers, api
from vastskyd.core.errors import ConflictError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import AttachmentState, LegState
from vastskyd.core.state import ClusterState


async def lose(cluster: SimCluster, *, damaged: bool = False) -> ClusterState:
    """What the records were."""
    before = cluster.state()
    store = cluster.world.stores[cluster.manager]
    cluster.world.kill_daemon(cluster.manager)
    if damaged:
        store.damage = "file is not a database"
    else:
        store.lose()
    await cluster.until("the manager says so", 20, lambda: says_so(cluster))
    return before


async def says_so(cluster: SimCluster) -> bool:
    status = await cluster.status()
    said = "".join(status.problems[:1])
    return "cluster recover" in said and status.health == "critical"


async def view(cluster: SimCluster) -> answers.RecoveryView:
    answer: answers.RecoveryView = await cluster.ask(api.ShowRecovery())
    return answer


async def heard(cluster: SimCluster, *, without: tuple[str, ...] = ()) -> answers.RecoveryView:
    """Once all hosts but some have spoken."""
    names = set(cluster.world.hosts) - set(without)

    async def all_spoke() -> bool:
        return set((await view(cluster)).nodes) == names

    await cluster.until("the hosts have spoken", 30, all_spoke)
    return await view(cluster)


async def recover(cluster: SimCluster, *, without: tuple[str, ...] = ()) -> answers.RecoveryView:
    found = await heard(cluster, without=without)
    if found.listens_s:
        assert any("about to connect" in line for line in found.missing)
        await asyncio.sleep(found.listens_s)
    answer: answers.RecoveryView = await cluster.ask(
        api.FinishRecovery(without_missing=bool(without))
    )
    return answer


async def writes_go_on(cluster: SimCluster, within_s: float = 20) -> None:
    before = cluster.checker.acknowledged
    await cluster.until("writes go on", within_s, lambda: cluster.checker.acknowledged > before + 5)


def legs(state: ClusterState) -> dict[str, dict[str, str]]:
    """Each volume's legs that are in some set, and what they are."""
    return {
        volume.name: {
            leg.extent: leg.state.value for segment in volume.segments for leg in segment.legs
        }
        for volume in state.volumes.values()
    }


@pytest.mark.parametrize("damaged", [False, True], ids=["missing", "damaged"])
@pytest.mark.parametrize("shape", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_records_lost_under_writes_are_made_anew(shape: Shape, copies: int, damaged: bool) -> None:
    async def body(cluster: SimCluster) -> None:
        head = cluster.heads[1]
        await attached(cluster, copies, head)
        await cluster.create("idle", copies=copies)
        before = await lose(cluster, damaged=damaged)
        stood = cluster.stacks(head)
        await writes_go_on(cluster)
        found = await heard(cluster)
        assert not found.blocked
        assert {v.name: v.head for v in found.volumes} == {"v": head, "idle": ""}
        assert cluster.stacks(head) == stood
        assert not (await recover(cluster)).missing
        await writes_go_on(cluster)
        after = cluster.state()
        assert legs(after) == legs(before)
        assert after.disks.keys() == before.disks.keys()
        assert after.extents.keys() == before.extents.keys()
        for volume in before.volumes.values():
            assert after.volumes[volume.id].epoch == volume.epoch
            assert after.volumes[volume.id].attachment is None or volume.attachment is not None
        assert sorted(cluster.stacks(head)) == sorted(stood)
        assert not {"leg-lost", "head-fenced"} & set(await cluster.events())
        await cluster.until("sure of it", 20, lambda: not in_doubt(cluster, "v"))
        await cluster.attach("idle", head)
        await cluster.detach("idle")
        await cluster.delete("idle")
        await at_the_end(cluster, head)

    simulate(body, lambda: SimCluster(7, shape))


def in_doubt(cluster: SimCluster, name: str) -> bool:
    return any(segment.in_doubt for segment in cluster.state_of(name).segments)


def test_nothing_is_touched_by_a_manager_without_records() -> None:
    """Not even when every daemon begins anew meanwhile."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, "n2")
        await lose(cluster)
        stood = {name: cluster.stacks(name) for name in cluster.world.hosts}
        servers = {h.name: list(h.servers) for h in cluster.world.hosts.values()}
        for name in list(cluster.world.hosts):
            cluster.world.kill_daemon(name)
        await asyncio.sleep(60)
        await writes_go_on(cluster)
        assert {name: cluster.stacks(name) for name in cluster.world.hosts} == stood
        assert {h.name: list(h.servers) for h in cluster.world.hosts.values()} == servers
        with pytest.raises(ConflictError, match="no records"):
            await cluster.ask(api.ListVolumes())
        await recover(cluster)
        await writes_go_on(cluster)
        assert {name: cluster.stacks(name) for name in cluster.world.hosts} == stood
        await at_the_end(cluster, "n2")

    simulate(body, lambda: SimCluster(3, TOGETHER))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("copies", [2, 3])
def test_a_storage_host_that_was_away_is_taken_in_later(copies: int, seed: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies, "h2")
        cluster.world.power_cut("s1")
        await writes_go_on(cluster, 60)
        await lose(cluster)
        with pytest.raises(ConflictError, match="about to connect"):
            await cluster.ask(api.FinishRecovery())
        await asyncio.sleep(20)
        with pytest.raises(ConflictError, match="node s1"):
            await cluster.ask(api.FinishRecovery())
        found = await recover(cluster, without=("s1",))
        assert any("node s1" in line for line in found.missing)
        await writes_go_on(cluster)
        status = await cluster.status()
        assert any("node s1 was away" in problem for problem in status.problems)
        cluster.power_on("s1")
        await asyncio.sleep(5)
        await cluster.ask(api.BeginRecovery())
        await writes_go_on(cluster)
        assert not (await recover(cluster)).missing
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_leg_that_is_away_and_stale_is_never_taken_for_the_newest(seed: int) -> None:
    """Both hosts of the newer writes are away during the recovery; the stale leg's is there."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, "h2")
        stale = sorted(node for node in ("s1", "s2", "s3") if legs_there(cluster, node))[0]
        cluster.world.power_cut(stale)
        await writes_go_on(cluster, 60)
        for task in cluster.checker.tasks:
            task.cancel()
        await asyncio.sleep(1)
        await cluster.detach()
        others = [name for name in ("s1", "s2", "s3") if name != stale]
        for name in others:
            cluster.world.power_cut(name)
        await lose(cluster)
        cluster.power_on(stale)
        await recover(cluster, without=tuple(others))
        job = await cluster.job(
            await cluster.start_job(api.AttachVolume(volume="v", head=NodeId("h2")))
        )
        assert job.state == "failed"
        assert "within reach" in job.message
        cluster.power_on(*others)
        await asyncio.sleep(5)
        await cluster.ask(api.BeginRecovery())
        await recover(cluster)
        await cluster.attach(head="h2")
        await cluster.checker.read_all("h2", "v")
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(seed))


def legs_there(cluster: SimCluster, node: str) -> bool:
    state = cluster.state()
    disks = [state.disk_of(leg.extent) for _, _, leg in state.legs()]
    return any(disk is not None and disk.node == node for disk in disks)


@pytest.mark.parametrize("when", ["held", "degraded"])
@pytest.mark.parametrize("copies", [2, 3])
def test_records_lost_while_a_leg_was_away(copies: int, when: str) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies, "h2")
        cluster.world.power_cut("s2")
        if when == "degraded":
            await writes_go_on(cluster, 60)
        await lose(cluster)
        cluster.power_on("s2")
        found = await recover(cluster)
        assert not found.missing
        await writes_go_on(cluster, 60)
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(23))


def test_a_head_that_died_before_the_recovery_has_its_volume_back() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, "h2")
        cluster.world.power_cut("h2")
        await asyncio.sleep(LEG_TIMEOUT_S)
        await lose(cluster)
        cluster.power_on("h2")
        await recover(cluster)
        await cluster.until("attached", 60, lambda: cluster.attached_on("v") == "h2")
        for task in cluster.checker.tasks:
            task.cancel()
        writing(cluster, "h2")
        await writes_go_on(cluster)
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(5))


def test_a_head_that_the_manager_does_not_hear_keeps_its_volume() -> None:
    """It is in use there all the time: the export servers say so."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, "h2")
        await lose(cluster)
        cluster.world.network.cut_control("h1", "h2")
        await recover(cluster, without=("h2",))
        volume = cluster.state_of("v")
        assert volume.attachment is not None
        assert (volume.attachment.head, volume.attachment.state) == (
            "h2",
            AttachmentState.ATTACHED,
        )
        await asyncio.sleep(REBUILD_DELAY_S + 10)
        await writes_go_on(cluster)
        cluster.world.heal()
        await asyncio.sleep(5)
        await writes_go_on(cluster)
        await cluster.ask(api.BeginRecovery())
        await recover(cluster)
        await writes_go_on(cluster)
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(5))


def test_a_storage_host_that_the_manager_does_not_hear_goes_on_serving() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, "h2")
        await lose(cluster)
        cluster.world.network.cut_control("h1", "s1")
        await recover(cluster, without=("s1",))
        await cluster.until("sure of it", 20, lambda: not in_doubt(cluster, "v"))
        await asyncio.sleep(REBUILD_DELAY_S + 10)
        await writes_go_on(cluster)
        assert {leg.state for _, _, leg in cluster.state().legs()} == {LegState.IN_SYNC}
        cluster.world.heal()
        await asyncio.sleep(5)
        await cluster.ask(api.BeginRecovery())
        await recover(cluster)
        assert not {"leg-lost", "leg-replaced"} & set(await cluster.events())
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(5))


def test_a_move_that_was_under_way_is_not_undone() -> None:
    """The head that is fenced stays so: its volume goes where it is attached next."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, "h1")
        cluster.world.partition("h2", "s1", "s2", "s3")
        store = cluster.world.stores["h1"]
        before = cluster.state_of("v").epoch
        await asyncio.sleep(1)
        cluster.world.heal()
        await cluster.until("online", 20, lambda: health(cluster, "redundant"))
        await cluster.start_job(api.FailoverVolume(volume="v", head="h2"))
        await asyncio.sleep(0.05)
        cluster.world.kill_daemon("h1")
        store.lose()
        await cluster.until("the manager says so", 20, lambda: says_so(cluster))
        await recover(cluster)
        assert cluster.state_of("v").epoch >= before
        if not cluster.owner("v"):
            await cluster.attach(head="h2")
        head = cluster.owner("v")
        await cluster.until("attached", 60, lambda: cluster.attached_on("v") == head)
        for task in cluster.checker.tasks:
            task.cancel()
        await cluster.checker.read_all(head, "v")
        await at_the_end(cluster, head)

    simulate(body, lambda: SimCluster(9))


def test_a_deleted_volume_does_not_come_back() -> None:
    """A host was away when it was deleted, and is back for the recovery."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create("gone", copies=3)
        await cluster.create("kept", copies=2)
        cluster.world.power_cut("s1")
        await asyncio.sleep(10)
        await cluster.delete("gone")
        await asyncio.sleep(20)
        before = await lose(cluster)
        assert any(extent.disk for extent in before.extents.values())
        cluster.power_on("s1")
        found = await recover(cluster)
        assert [volume.name for volume in found.volumes] == ["kept"]
        await cluster.delete("kept")
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(9))


def test_a_replaced_leg_does_not_come_back() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, "h2")
        cluster.world.power_cut("s1")
        await cluster.until("replaced", 120, lambda: not legs_there(cluster, "s1"))
        await cluster.until("redundant", 120, cluster.redundant)
        before = await lose(cluster)
        cluster.power_on("s1")
        await recover(cluster)
        assert legs(cluster.state()) == legs(before)
        await writes_go_on(cluster)
        await cluster.until("wiped", 60, lambda: not released(cluster))
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(13))


def released(cluster: SimCluster) -> list[str]:
    return [e.id for e in cluster.state().extents.values() if e.state == "released"]


def test_force_goes_on_without_what_nobody_has_seen() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(copies=2)
        await cluster.attach(head="h2")
        for number in range(20):
            assert await cluster.checker.write("h2", "v", number)
        await cluster.detach()
        away = next(name for name in ("s1", "s2", "s3") if legs_there(cluster, name))
        cluster.world.power_cut(away)
        await lose(cluster)
        await recover(cluster, without=(away,))
        await cluster.attach(head="h2", force=True)
        await cluster.checker.read_all("h2", "v")
        await cluster.until("rebuilt elsewhere", 120, cluster.redundant)
        cluster.power_on(away)
        await asyncio.sleep(5)
        await cluster.ask(api.BeginRecovery())
        await recover(cluster)
        states = {leg.state for _, _, leg in cluster.state().legs()}
        assert states == {LegState.IN_SYNC}
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(2))


POINTS = ("store.renew", "store.renew.aside", "store.renew.done")


@pytest.mark.parametrize("point", POINTS)
def test_a_manager_that_dies_while_it_makes_its_records(point: str) -> None:
    plan = ScriptedFaults({("h1", point, 1): Fault(FaultKind.CRASH)})

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, "h2")
        await lose(cluster, damaged=True)
        await heard(cluster)
        await asyncio.sleep(20)
        await cluster._ask_once(api.FinishRecovery(), "h1")
        assert plan.passed["h1", point] == 1
        await asyncio.sleep(5)
        if point != POINTS[-1]:
            await recover(cluster)
        await writes_go_on(cluster)
        assert len(cluster.world.stores["h1"].kept) == 1
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(4, plan=plan))


def test_a_database_that_cannot_be_read_for_a_while_needs_no_recovery() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 2, "h2")
        store = cluster.world.stores["h1"]
        store.unreadable = "disk I/O error"
        cluster.world.kill_daemon("h1")
        await cluster.until("the manager says so", 20, lambda: says_so(cluster))
        store.unreadable = ""
        await cluster.until("it is back", 60, lambda: is_back(cluster))
        await writes_go_on(cluster)
        assert not store.kept
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(4))


async def is_back(cluster: SimCluster) -> bool:
    return (await cluster.status()).health == "ok"


def test_what_is_there_again_and_again_is_the_same() -> None:
    """A recovery of records that are whole changes nothing."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, 3, "h2")
        await cluster.create("idle")
        await cluster.ask(api.SetStandby(volume="idle", heads=(NodeId("h1"),)))
        before = cluster.state()
        for _ in range(3):
            await cluster.ask(api.BeginRecovery())
            await recover(cluster)
            await writes_go_on(cluster)
            assert legs(cluster.state()) == legs(before)
        assert len(cluster.world.stores["h1"].kept) == 3
        assert cluster.state_of("idle").standby == ("h1",)
        assert "standby-set" in await cluster.events()
        await cluster.delete("idle")
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(4))
