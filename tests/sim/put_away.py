"""Volumes that nobody has attached, and looks at how they heal."""

import asyncio

from tests.sim.cluster import (
    SimCluster,
)
from tests.sim.fake_disks import DiskBlock, FakeMedia
from tests.sim.test_matrix import SPREAD, media_of
from vastskyd.core import api
from vastskyd.core.mending import PATIENCE_S
from vastskyd.core.model import JobKind, JobState
from vastskyd.core.names import VolumeDeviceName

HEADS = ("h1", "h2")
BEGUN_S = PATIENCE_S + 15
GRAINS = 40


def spread(seed: int = 62) -> SimCluster:
    return SimCluster(seed, SPREAD)


class Unexposed:
    """Looks all the time whether a mended volume has a device anywhere, of its own epoch."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self.seen_on: dict[str, None] = {}

    async def run(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(0.05)

    def _look(self) -> None:
        for volume in self._cluster.state().volumes.values():
            on = volume.attachment
            if on is None or not on.mending:
                continue
            self.seen_on[on.head] = None
            for host in self._cluster.world.hosts.values():
                uuids = [getattr(block, "uuid", "") for block in host.kernel.blocks.values()]
                if VolumeDeviceName(volume.id, on.epoch).dm_uuid() in uuids:
                    self._cluster.world.failures.append(f"{volume.name} is exposed on {host.name}")


async def detached(cluster: SimCluster, copies: int = 2, size_bytes: int = 0) -> Unexposed:
    """A volume that was written to, and that nobody has."""
    if size_bytes:
        await cluster.create(copies=copies, size_bytes=size_bytes)
    else:
        await cluster.create(copies=copies)
    head = cluster.heads[0]
    await cluster.attach(head=head)
    for number in range(16 if size_bytes else GRAINS):
        assert await cluster.checker.write(head, "v", number)
    await cluster.detach()
    looks = Unexposed(cluster)
    cluster.spawn(looks.run())
    return looks


def store_of(cluster: SimCluster) -> str:
    """One that has a leg of the volume."""
    state = cluster.state()
    disk = state.disk_of(cluster.state_of("v").segments[0].legs[0].extent)
    assert disk is not None
    return disk.node


def pull(cluster: SimCluster, host: str = "") -> tuple[str, FakeMedia]:
    host = host or store_of(cluster)
    return host, cluster.world.hosts[host].pull(media_of(cluster, host).serial)


async def mending(cluster: SimCluster) -> str:
    await cluster.until("it is mended", BEGUN_S, lambda: cluster.mended_on("v"))
    return cluster.mended_on("v")


async def filling(cluster: SimCluster) -> bool:
    return (await cluster.volume("v")).health == "rebuilding"


async def is_degraded(cluster: SimCluster) -> bool:
    return (await cluster.volume("v")).health != "redundant"


async def healed(cluster: SimCluster, within_s: float = 120) -> None:
    await cluster.until("it is whole", within_s, cluster.redundant)
    await cluster.until("it is given back", 30, lambda: not cluster.mended_on("v"))
    await cluster.until("nothing stands", 30, lambda: not any(map(cluster.stacks, cluster.heads)))


def plug_in(cluster: SimCluster) -> None:
    """What was pulled, where it was."""
    for host in cluster.world.hosts.values():
        for block in host.kernel.pulled:
            media = block.media if isinstance(block, DiskBlock) else None
            if media and not any(media in other.media for other in cluster.world.hosts.values()):
                host.insert(media)


async def holds_everything(cluster: SimCluster) -> None:
    """On all heads and all copies; and then it goes, and nothing is left of it."""
    plug_in(cluster)
    await cluster.until("all heads are there", 20, lambda: all_online(cluster))
    for head in cluster.heads:
        await cluster.attach(head=head)
        await cluster.checker.read_all(head, "v")
        await cluster.detach()
    await cluster.delete()
    await cluster.nothing_left()


async def all_online(cluster: SimCluster) -> bool:
    return all(node.state == "online" for node in (await cluster.ask(api.ListNodes())).nodes)


def running(cluster: SimCluster, *kinds: JobKind) -> list[JobKind]:
    jobs = cluster.state().jobs.values()
    return [job.kind for job in jobs if job.state is JobState.RUNNING and job.kind in kinds]
