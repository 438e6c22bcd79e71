"""Nobody reads what another volume wrote, however long its wipe takes."""

import msgspec

from tests.core.test_turns import ACTIVE, IN, VOLUME, cluster, head_facts, turn
from tests.sim.cluster import SimCluster
from tests.sim.test_cluster import simulate
from tests.sim.test_storage_role import START_GRAIN, Store, sim, spec
from vastskyd.core.documents import ExtentCondition
from vastskyd.core.ids import DiskId
from vastskyd.core.placement import PlacedExtent
from vastskyd.core.units import MIB

LONG = 100 * MIB  # more than one call to the disk wipes


def test_a_long_extent_is_wiped_to_its_end() -> None:
    async def body(store: Store) -> None:
        grains = range(START_GRAIN, START_GRAIN + LONG // MIB)
        store.media.data |= dict.fromkeys(grains, 99)
        fact = await store.converged(msgspec.structs.replace(spec(), length_bytes=LONG))
        assert fact.condition is ExtentCondition.READY
        assert [grain for grain in grains if store.media.data.get(grain)] == []

    sim(body)


def test_a_new_volume_reads_as_zeros_whatever_was_on_the_disk() -> None:
    async def body(cluster: SimCluster) -> None:
        for host in cluster.world.hosts.values():
            for media in host.media:
                media.data |= dict.fromkeys(range(2, 120), 99)
        await cluster.create()
        await cluster.attach()
        for grain in range(40):
            assert await cluster.checker.read("h1", "v", grain)

    simulate(body, lambda: SimCluster(71))


def test_what_a_volume_gets_is_no_longer_known_as_zeros() -> None:
    it = turn(cluster((IN, IN)), head_facts((ACTIVE, ACTIVE)))
    disk = it.draft.disks[DiskId("d0")]
    it.draft.put(msgspec.structs.replace(disk, clean=((30 * MIB, 50 * MIB),)))
    volume = it.draft.volumes[VOLUME]
    it.new_extent(volume, 0, PlacedExtent(disk.id, 32 * MIB, 8 * MIB, False))
    assert it.draft.disks[disk.id].clean == ((30 * MIB, 32 * MIB), (40 * MIB, 50 * MIB))
