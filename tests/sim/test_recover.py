"""The manager's records are lost while the cluster runs, and made anew from what the hosts say."""


import pytest

from tests.sim.cluster import APART, TOGETHER, Shape, SimCluster
from tests.sim.test_cluster import at_the_end, attached, simulate
from vastskyd.core import api
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
    return "cluster recover" in status.problems[0] and status.health == "critical"


async def view(cluster: SimCluster) -> api.RecoveryView:
    answer: api.RecoveryView = await cluster.ask(api.ShowRecovery())
    return answer


async def heard(cluster: SimCluster, *, without: tuple[str, ...] = ()) -> api.RecoveryView:
    """Once all hosts but some have spoken."""
    names = set(cluster.world.hosts) - set(without)

    async def all_spoke() -> bool:
        return set((await view(cluster)).nodes) == names

    await cluster.until("the hosts have spoken", 30, all_spoke)
    return await view(cluster)


async def recover(cluster: SimCluster, *, without: tuple[str, ...] = ()) -> api.RecoveryView:
    await heard(cluster, without=without)
    answer: api.RecoveryView = await cluster.ask(api.FinishRecovery(without_missing=bool(without)))
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
        assert not found.missing
        assert not found.blocked
        assert {v.name: v.head for v in found.volumes} == {"v": head, "idle": ""}
        assert cluster.stacks(head) == stood
        await recover(cluster)
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
