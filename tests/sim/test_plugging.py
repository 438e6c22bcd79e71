"""Disks that are plugged and pulled: how soon that is known, whatever becomes of the events."""

import asyncio

from tests.sim.cluster import SimCluster
from tests.sim.fake_disks import FakeMedia
from tests.sim.fake_kernel import UDEV_S
from tests.sim.test_cluster import simulate
from vastskyd.core import answers, api
from vastskyd.core.units import MIB

PATH = "/dev/disk/by-id/extra"


async def is_shown(cluster: SimCluster, path: str = PATH) -> bool:
    shown = await cluster.ask(api.ListDisks())
    assert isinstance(shown, answers.DiskList)
    return any(view.path == path for view in shown.disks)


def test_plugged_and_pulled_disks_are_noticed_within_a_second() -> None:
    """A second after udev has named it; again and again, at any moment."""

    async def body(cluster: SimCluster) -> None:
        for again in range(8):
            await asyncio.sleep(7 + again * 0.13)
            cluster.world.hosts["s1"].insert(FakeMedia("extra", 128 * MIB))
            await asyncio.sleep(UDEV_S + 1.0)
            assert await is_shown(cluster), again
            await asyncio.sleep(again * 0.11)
            cluster.world.hosts["s1"].pull("extra")
            await asyncio.sleep(1.0)
            assert not await is_shown(cluster), again

    simulate(body, lambda: SimCluster(83))


def test_a_disk_whose_uevents_were_lost_is_found_all_the_same() -> None:
    async def body(cluster: SimCluster) -> None:
        await asyncio.sleep(5)
        cluster.world.hosts["s1"].insert(FakeMedia("extra", 128 * MIB), told=False)
        await asyncio.sleep(40)
        assert await is_shown(cluster)

    simulate(body, lambda: SimCluster(84))
