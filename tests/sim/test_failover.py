"""Volumes that move: by an administrator's word, or because their head is unreachable."""

import asyncio

import pytest

from tests.sim.cluster import SimCluster
from tests.sim.test_cluster import at_the_end, attached, simulate, writing
from vastskyd.core import api
from vastskyd.core.errors import ConflictError
from vastskyd.core.ids import NodeId


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
