"""A disk with something on it is nobody's to take, unless an administrator says so."""

import asyncio

import pytest

from tests.sim.cluster import SimCluster
from tests.sim.fake_disks import FakeMedia
from tests.sim.test_cluster import simulate
from vastskyd.core import answers, api
from vastskyd.core.errors import ConflictError
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.model import JobState
from vastskyd.core.units import MIB
from vastskyd.ondisk.slots import Current, choose

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


async def shown(cluster: SimCluster) -> tuple[dict[DiskId, str], dict[str, str]]:
    """The states of disks of the cluster by id, and what is said of the others by path."""
    said: answers.DiskList = await cluster.ask(api.ListDisks(node=NodeId("s1")))
    states = {disk.id: disk.state for disk in said.disks if disk.id}
    return states, {disk.path: disk.message for disk in said.disks if not disk.id}


def test_a_copy_of_a_disk_is_not_taken_for_it() -> None:
    """As dd leaves one, or a second way to the disk; and at boot nobody can know which is which."""

    async def body(cluster: SimCluster) -> None:
        host = cluster.world.hosts["s1"]
        media = next(each for each in host.media if each.is_member())
        found = choose(tuple(media.slots))
        assert isinstance(found, Current)
        disk = found.description.disk
        twin = FakeMedia("twin", media.size_bytes, data=dict(media.data), slots=list(media.slots))
        host.insert(twin)
        await asyncio.sleep(10)
        states, others = await shown(cluster)
        assert states[disk] == "online"
        assert f"a copy of disk {disk}" in others["/dev/disk/by-id/twin"]
        cluster.world.kill_daemon("s1")
        await asyncio.sleep(30)
        states, others = await shown(cluster)
        assert states[disk] == "missing"
        assert "more than once" in others["/dev/disk/by-id/twin"]
        before = list(twin.slots)
        host.pull("twin")
        await asyncio.sleep(30)
        assert (await shown(cluster))[0][disk] == "online"
        assert twin.slots == before

    simulate(body, lambda: SimCluster(83))
