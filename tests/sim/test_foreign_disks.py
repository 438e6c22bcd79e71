"""A disk with something on it is nobody's to take, unless an administrator says so."""

import asyncio

import pytest

from tests.sim.cluster import SimCluster
from tests.sim.fake_disks import FakeMedia
from tests.sim.test_cluster import simulate
from vastskyd.core import api
from vastskyd.core.errors import ConflictError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import JobState
from vastskyd.core.units import MIB

PATH = "/dev/disk/by-id/extra"
ENROL = api.EnrolDisk(node=NodeId("s1"), path=PATH)


async def plugged_in(cluster: SimCluster, found: str = "") -> FakeMedia:
    media = FakeMedia("extra", 128 * MIB, found=found, data={2: 77})
    cluster.world.hosts["s1"].insert(media)
    await asyncio.sleep(5)
    return media


def untouched(media: FakeMedia) -> bool:
    return media.data == {2: 77} and media.found == "ext4 filesystem" and not media.is_member()


def test_a_disk_with_something_on_it_is_refused_by_the_manager() -> None:
    async def body(cluster: SimCluster) -> None:
        media = await plugged_in(cluster, "ext4 filesystem")
        with pytest.raises(ConflictError, match="ext4 filesystem"):
            await cluster.ask(ENROL)
        assert untouched(media)
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path=PATH, wipe=True))
        assert media.is_member()

    simulate(body, lambda: SimCluster(81))


def test_what_came_on_the_disk_after_the_manager_looked_is_kept() -> None:
    async def body(cluster: SimCluster) -> None:
        media = await plugged_in(cluster)
        media.found = "ext4 filesystem"
        job = await cluster.job(await cluster.start_job(ENROL))
        assert job.state is JobState.FAILED
        assert "ext4 filesystem" in job.message
        assert untouched(media)

    simulate(body, lambda: SimCluster(82))
