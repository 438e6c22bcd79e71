"""What is shown is what is so, also by those who cannot ask the manager."""

import asyncio
from dataclasses import replace

from tests.sim.cluster import LEG_TIMEOUT_S, POLICY, SimCluster
from tests.sim.fake_disks import FAILING
from tests.sim.test_cluster import at_the_end, attached, simulate
from vastskyd.core import answers, api
from vastskyd.core.model import SmartHealth, SmartReading


def test_a_head_says_why_writes_wait_while_the_manager_is_away() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        (shown,) = cluster.members["h2"].local_volumes()
        assert (shown.name, shown.state, shown.message) == ("v", "active", "")
        cluster.world.partition("h1")
        (leg,) = cluster.state_of("v").segments[0].legs[:1]
        disk = cluster.state().disk_of(leg.extent)
        assert disk is not None
        cluster.world.power_cut(disk.node)
        await asyncio.sleep(LEG_TIMEOUT_S + 10)
        (shown,) = cluster.members["h2"].local_volumes()
        assert shown.state == "stalled"
        assert f"the leg on {disk.node}" in shown.message
        assert "the manager, which is unreachable" in shown.message
        acknowledged = cluster.checker.acknowledged
        await asyncio.sleep(20)
        assert cluster.checker.acknowledged == acknowledged
        cluster.world.heal()
        await cluster.until("degraded", 20, lambda: _state(cluster) == "degraded")
        await cluster.until("writes go on", 10, lambda: cluster.checker.acknowledged > acknowledged)
        cluster.power_on(disk.node)
        await cluster.until("whole again", 60, lambda: _state(cluster) == "active")
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(41))


def _state(cluster: SimCluster) -> str:
    (shown,) = cluster.members["h2"].local_volumes()
    return shown.state


def test_a_host_shows_its_disks_as_the_manager_does() -> None:
    async def body(cluster: SimCluster) -> None:
        told: list[bool] = []
        cluster.members["s1"].tell(lambda: told.append(True))
        await cluster.create(copies=3)
        await cluster.until("it shows the same", 20, lambda: same(cluster))
        (disk,) = cluster.members["s1"].local_disks()
        assert disk.smart is not None
        assert (disk.state, disk.node) == ("online", "s1")
        assert 0 < disk.free_bytes < disk.size_bytes
        assert disk.volumes == ("v",)
        assert told
        assert cluster.members["h1"].local_disks() == ()
        cluster.world.hosts["s1"].media[0].smart = FAILING
        await cluster.until("it is failing", 60, lambda: shows_failing(cluster))
        await cluster.until("it shows the same", 20, lambda: same(cluster))
        (disk,) = cluster.members["s1"].local_disks()
        cluster.world.partition("h1")
        (alone,) = cluster.members["s1"].local_disks()
        assert alone == disk

    def shows_failing(cluster: SimCluster) -> bool:
        return [disk.state for disk in cluster.members["s1"].local_disks()] == ["failing"]

    async def same(cluster: SimCluster) -> bool:
        wanted: answers.DiskList = await cluster.ask(api.ListDisks(node="s1"))
        return cluster.members["s1"].local_disks() == wanted.disks

    simulate(body, lambda: SimCluster(43))


def test_nothing_is_told_again_and_again_to_a_host_of_a_quiet_cluster() -> None:
    """Or no report would ever be of the newest document: here with disks that have no SMART."""

    def revisions(cluster: SimCluster) -> list[int]:
        agents = [member._agent for member in cluster.members.values()]
        return [agent._document.revision for agent in agents if agent._document is not None]

    async def body(cluster: SimCluster) -> None:
        await cluster.create(copies=3)
        await cluster.attach("v", "h2")
        await asyncio.sleep(60)
        before = revisions(cluster)
        await asyncio.sleep(120)
        assert revisions(cluster) == before
        assert len(before) == len(cluster.members)

    def made() -> SimCluster:
        cluster = SimCluster(44)
        none = SmartReading(health=SmartHealth.UNKNOWN, reason="it has no SMART")
        for name in ("s1", "s2"):
            cluster.world.hosts[name].media[0].smart = none
        return cluster

    simulate(body, made)


def test_a_head_that_is_back_is_not_taken_by_its_old_word() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        cluster.world.partition("h1")
        await asyncio.sleep(5)
        (leg,) = cluster.state_of("v").segments[0].legs[:1]
        disk = cluster.state().disk_of(leg.extent)
        assert disk is not None
        cluster.world.power_cut(disk.node)
        await asyncio.sleep(60)
        cluster.world.heal()
        manager = cluster.members["h1"].manager
        assert manager is not None
        for _ in range(500):
            await asyncio.sleep(0.01)
            shown = await manager.ask(api.ListVolumes(volume="v"))
            assert isinstance(shown, answers.VolumeList)
            nodes = {leg.node for segment in shown.volumes[0].segments for leg in segment.legs}
            assert disk.node not in nodes or shown.volumes[0].health != "redundant"
        cluster.power_on(disk.node)
        await at_the_end(cluster, "h2")

    simulate(body, lambda: SimCluster(44))


def test_a_head_tells_of_a_rebuild_as_it_goes() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        (leg,) = cluster.state_of("v").segments[0].legs[:1]
        disk = cluster.state().disk_of(leg.extent)
        assert disk is not None
        seen: list[str] = []

        def look() -> None:
            for volume in cluster.members["h2"].local_volumes():
                assert 0 <= volume.rebuilt_bytes <= volume.rebuild_bytes
                assert (volume.state == "rebuilding") <= (volume.rebuild_bytes > 0)
                if seen[-1:] != [volume.state]:
                    seen.append(volume.state)

        cluster.members["h2"].tell(look)
        cluster.world.power_cut(disk.node)
        await cluster.until("it is rebuilt elsewhere", 200, lambda: "rebuilding" in seen)
        await cluster.until("whole again", 100, lambda: seen[-1] == "active")
        assert "degraded" in seen[: seen.index("rebuilding")]
        cluster.power_on(disk.node)
        await at_the_end(cluster, "h2")

    # Slow enough to be seen.
    policy = replace(POLICY, sync_rate_max_kib_s=4096)
    simulate(body, lambda: SimCluster(44, policy=policy))


def test_a_disk_that_answers_slowly_is_named_and_not_given_up() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        (leg,) = cluster.state_of("v").segments[0].legs[:1]
        disk = cluster.state().disk_of(leg.extent)
        assert disk is not None
        name = f"disk {disk.node}:{disk.path} is slow: a request takes 2."
        host = cluster.world.hosts[disk.node]
        (media,) = (m for m in host.media if disk.path.endswith(m.serial))
        media.slow_s = 2.0
        await cluster.until("it is said", 20, lambda: _said(cluster, name))
        assert "disk-slow" in await cluster.events()
        media.slow_s = 0.0
        await cluster.until("it is well", 20, lambda: _nothing_said(cluster))
        events = await cluster.events()
        assert events.count("disk-slow") == events.count("disk-quick") == 1
        assert "leg-lost" not in events
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(42))


def test_a_disk_that_was_slow_and_that_nobody_uses_any_more_is_asked() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        (leg,) = cluster.state_of("v").segments[0].legs[:1]
        disk = cluster.state().disk_of(leg.extent)
        assert disk is not None
        host = cluster.world.hosts[disk.node]
        (media,) = (m for m in host.media if disk.path.endswith(m.serial))
        media.slow_s = 2.0
        name = f"disk {disk.node}:{disk.path} is slow"
        await cluster.until("it is said", 20, lambda: _said(cluster, name))
        for task in cluster.checker.tasks:
            task.cancel()
        await asyncio.sleep(10)
        await cluster.detach("v")
        await asyncio.sleep(60)
        assert await _said(cluster, name)
        media.slow_s = 0.0
        await cluster.until("it is well", 20, lambda: _nothing_said(cluster))

    simulate(body, lambda: SimCluster(42))


async def _said(cluster: SimCluster, start: str) -> bool:
    return any(line.startswith(start) for line in (await cluster.status()).problems)


async def _nothing_said(cluster: SimCluster) -> bool:
    return not (await cluster.status()).problems
