"""What random seasons and storms found, each as a script."""

import asyncio

from tests.sim.cluster import SimCluster
from tests.sim.test_cluster import legs_on, simulate
from vastskyd.core import api
from vastskyd.core.units import MIB


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
