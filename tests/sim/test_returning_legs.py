"""Legs that come back, and legs that are made anew: how much is written to them, and when they
are in the set."""

import asyncio
import re
from dataclasses import replace

from tests.sim.cluster import POLICY, SimCluster, data_grain
from tests.sim.test_cluster import simulate
from vastskyd.core import answers, api
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import Segment
from vastskyd.core.units import MIB

GRAINS = 16
SLOW = replace(POLICY, sync_rate_max_kib_s=1024)  # a grain a second


def segment(cluster: SimCluster) -> Segment:
    return cluster.state_of("v").segments[0]


def content(cluster: SimCluster, extent: ExtentId) -> list[int]:
    """What the leg's medium has of the segment."""
    record = cluster.state().extents[extent]
    serial = cluster.state().disks[record.disk].serial
    media = [m for host in cluster.world.hosts.values() for m in host.media if m.serial == serial]
    first = data_grain(record)
    return [media[0].data.get(first + grain, 0) for grain in range(GRAINS)]


def host_of(cluster: SimCluster, extent: ExtentId) -> str:
    return cluster.state().disks[cluster.state().extents[extent].disk].node


async def written(cluster: SimCluster) -> None:
    """A volume of one segment, all of it written, and quiet for long enough that its bitmap is
    clean."""
    await cluster.create(size_bytes=GRAINS * MIB)
    await cluster.attach()
    for grain in range(GRAINS):
        assert await cluster.checker.write("h1", "v", grain)
    await asyncio.sleep(30)


def test_a_leg_that_was_away_gets_what_it_lacks_and_no_more() -> None:
    async def body(cluster: SimCluster) -> None:
        await written(cluster)
        away = segment(cluster).legs[1].extent
        cluster.world.power_cut(host_of(cluster, away))
        for grain in (3, 5):
            assert await cluster.checker.write("h1", "v", grain)
        cluster.power_on(host_of(cluster, away))
        await cluster.until("redundant", 30, cluster.redundant)
        jobs: answers.JobList = await cluster.ask(api.ListJobs())
        (job,) = [job for job in jobs.jobs if job.kind == "rebuild"]
        said = re.search(r"([\d.]+) MiB were written to it", job.message)
        assert said is not None, job.message
        assert float(said[1]) <= 2
        legs = [content(cluster, leg.extent) for leg in segment(cluster).legs]
        assert legs[0] == legs[1]

    simulate(body, lambda: SimCluster(61))


def test_a_leg_is_in_the_set_once_it_has_everything() -> None:
    """Its host died for good; what replaces it is copied slowly, and written to meanwhile."""

    async def body(cluster: SimCluster) -> None:
        await written(cluster)
        lost = segment(cluster).legs[1].extent
        host = cluster.world.hosts[host_of(cluster, lost)]
        host.pull(host.media[0].serial)
        task = cluster.spawn(cluster.checker.keep_writing("h1", "v", GRAINS, 0.7))
        await cluster.until("it is replaced", 30, lambda: lost not in _legs(cluster))
        await cluster.until("it is taken in", 60, lambda: len(segment(cluster).in_sync()) == 2)
        # A write on its way may be on one leg only: at most the one.
        first, second = [content(cluster, extent) for extent in segment(cluster).in_sync()]
        differ = [grain for grain in range(GRAINS) if first[grain] != second[grain]]
        assert len(differ) <= 1, f"grains {differ} are not on both"
        task.cancel()

    simulate(body, lambda: SimCluster(62, policy=SLOW))


def _legs(cluster: SimCluster) -> list[ExtentId]:
    return [leg.extent for leg in segment(cluster).legs]
