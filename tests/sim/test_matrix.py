"""The matrix of faults: each happens once to a volume that is written to; then status must say what
is so, writes must go on or wait as promised, and in the end all must be whole again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.sim.cluster import (
    LEG_TIMEOUT_S,
    RACKED,
    REBUILD_DELAY_S,
    SMART_INTERVAL_S,
    Shape,
    SimCluster,
)
from tests.sim.fake_disks import FAILING, FakeMedia
from tests.sim.survey import Watch
from tests.sim.test_cluster import at_the_end, attached, legs_on, simulate
from vastskyd.core import api
from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.units import MIB

# Until a silent host is missed, by the heartbeats and by the head; then status has 5 s.
NOTICED_S = LEG_TIMEOUT_S + 4.0
SAID_S = 5.0
HEAD = "h1"
# The manager is no head here, and a fourth storage host is to spare.
SPREAD: Shape = {
    "h1": RACKED["h2"],
    "h2": RACKED["h2"],
    "m": ((RACKED["h1"][0][0],), 0),
    **dict.fromkeys(("s1", "s2", "s3", "s4"), (RACKED["a1"][0], 1)),
}


@dataclass(frozen=True)
class Case:
    """`happens` does it, and mends nothing. `said`: what status must have among its problems then,
    a part of a sentence; empty if it must stay "ok". `waits`: writes wait until it is mended;
    otherwise they must go on by themselves. `mended`: by whom it is not by vastskyd."""

    happens: Callable[[SimCluster], Awaitable[None]]
    said: str = ""
    mended: Callable[[SimCluster], Awaitable[None]] | None = None
    copies: int = 2
    waits: bool = False
    lasts_s: float = 20.0


def media_of(cluster: SimCluster, host: str) -> FakeMedia:
    return cluster.world.hosts[host].media[0]


def with_leg(act: Callable[[SimCluster, str], object]) -> Callable[[SimCluster], Awaitable[None]]:
    async def happens(cluster: SimCluster) -> None:
        act(cluster, "s1")

    return happens


def cut(cluster: SimCluster, *hosts: str) -> None:
    for host in hosts:
        cluster.world.power_cut(host)


def part(cluster: SimCluster, one: str, two: str, *networks: int) -> None:
    for network in networks:
        cluster.world.network.cut_data(one, two, network)


def heals() -> Callable[[SimCluster], Awaitable[None]]:
    async def mended(cluster: SimCluster) -> None:
        for name, host in cluster.world.hosts.items():
            cluster.world.thaw(name)
            cluster.power_on(name)
            host.skew_s = 0.0
        cluster.world.full_stores.clear()
        cluster.world.heal()

    return mended


async def reboot(cluster: SimCluster) -> None:
    cluster.world.power_cut("s1")
    await asyncio.sleep(8)
    cluster.power_on("s1")


async def export_killed(cluster: SimCluster) -> None:
    cluster.world.hosts["s1"].kill_export_server(NodeId(HEAD))


async def bad_range(cluster: SimCluster) -> None:
    media = media_of(cluster, "s1")
    written = [grain for grain, value in media.data.items() if value]
    media.bad |= dict.fromkeys(range(min(written), min(written) + 8))


async def bad_range_mended(cluster: SimCluster) -> None:
    media_of(cluster, "s1").bad.clear()
    await asyncio.sleep(60)  # until the wipe of the extent is tried again


async def unreadable_range(cluster: SimCluster) -> None:
    media = media_of(cluster, "s1")
    media.unreadable |= dict.fromkeys(media.data)


async def slow(cluster: SimCluster) -> None:
    media_of(cluster, "s1").slow_s = 1.5


async def slow_mended(cluster: SimCluster) -> None:
    media_of(cluster, "s1").slow_s = 0.0


async def smart_fails(cluster: SimCluster) -> None:
    media_of(cluster, "s1").smart = FAILING
    await asyncio.sleep(SMART_INTERVAL_S)


async def disk_fails(cluster: SimCluster) -> None:
    media_of(cluster, "s1").failed = True


async def new_disk(cluster: SimCluster) -> None:
    """In the place of the one that failed, or was pulled."""
    host = cluster.world.hosts["s1"]
    for media in list(host.media):
        host.pull(media.serial)
    host.insert(FakeMedia("s1-new", 128 * MIB))

    async def enrolled() -> bool:
        try:
            await cluster.do(api.EnrolDisk(node=NodeId("s1"), path="/dev/disk/by-id/s1-new"))
        except VastskyError:
            return False
        return True

    await cluster.until("enrolled", 20, enrolled)
    (old,) = [disk for disk in cluster.state().disks.values() if disk.serial == "s1-0"]

    async def retired() -> bool:
        try:
            await cluster.ask(api.RetireDisk(disk=old.id))
        except VastskyError:
            return False
        return True

    await cluster.until("retired", 90, retired)


async def pulled(cluster: SimCluster) -> None:
    cluster.world.hosts["s1"].pull("s1-0")


def put_back(after_s: float, to: str = "s1") -> Callable[[SimCluster], Awaitable[None]]:
    async def happens(cluster: SimCluster) -> None:
        media = cluster.world.hosts["s1"].pull("s1-0")
        await asyncio.sleep(after_s)
        cluster.world.hosts[to].insert(media)

    return happens


async def moved_home(cluster: SimCluster) -> None:
    await cluster.until("it is seen there", 30, lambda: _is_on(cluster, "s4"))
    media = cluster.world.hosts["s4"].pull("s1-0")
    cluster.world.hosts["s1"].insert(media)
    await cluster.until("it is seen at home", 30, lambda: _is_on(cluster, "s1"))


def _is_on(cluster: SimCluster, node: str) -> bool:
    return any(d.serial == "s1-0" and d.node == node for d in cluster.state().disks.values())


async def foreign(cluster: SimCluster) -> None:
    host = cluster.world.hosts["s1"]
    host.pull("s1-0")
    found = FakeMedia("theirs", 128 * MIB, "ext4 filesystem", data={5: 7})
    host.insert(found)
    await asyncio.sleep(15)
    assert (found.data, found.found) == ({5: 7}, "ext4 filesystem")


async def flapping(cluster: SimCluster) -> None:
    for _ in range(8):
        part(cluster, HEAD, "s1", 0, 1)
        cluster.world.network.cut_control("m", "s1")
        await asyncio.sleep(1.1)
        cluster.world.heal()
        await asyncio.sleep(0.7)


async def manager_killed(cluster: SimCluster) -> None:
    cluster.world.kill_daemon("m")


async def manager_full(cluster: SimCluster) -> None:
    cluster.world.full_stores["m"] = None
    cluster.world.power_cut("s1")


async def clock_back(cluster: SimCluster) -> None:
    cluster.world.hosts["m"].skew_s = -3600.0
    cluster.world.power_cut("s1")


async def clock_ahead(cluster: SimCluster) -> None:
    cluster.world.hosts["m"].skew_s = 3600.0
    cluster.world.power_cut("s1")


async def one_network(cluster: SimCluster) -> None:
    for store in ("s1", "s2", "s3", "s4"):
        part(cluster, HEAD, store, 0)


async def both_of_a_segment(cluster: SimCluster) -> None:
    (first, *_) = cluster.state_of("v").segments
    disks = [cluster.state().disk_of(leg.extent) for leg in first.legs]
    cut(cluster, *(disk.node for disk in disks if disk is not None))


def hangs(cluster: SimCluster, host: str) -> None:
    cluster.world.freeze(host)


MISSING = "disk s1:/dev/disk/by-id/s1-0 is missing"
AWAY = "node s1 is unreachable"
CASES = {
    "storage: power cut": Case(with_leg(cut), AWAY, heals()),
    "storage: hangs for 5 s": Case(with_leg(hangs), "", heals(), lasts_s=5),
    "storage: hangs for 60 s": Case(with_leg(hangs), AWAY, heals(), lasts_s=60),
    "storage: hangs past the rebuild's delay": Case(
        with_leg(hangs), AWAY, heals(), copies=3, lasts_s=REBUILD_DELAY_S + 60
    ),
    "storage: reboots": Case(reboot),
    "storage: vastskyd killed": Case(with_leg(lambda c, s: c.world.kill_daemon(s))),
    "storage: export server killed": Case(export_killed),
    "disk: pulled": Case(pulled, MISSING, new_disk),
    "disk: I/O errors on a range": Case(bad_range, "", bad_range_mended),
    "disk: a range cannot be read": Case(unreadable_range),
    "disk: slow": Case(slow, "", slow_mended),
    "disk: says that it is failing": Case(
        smart_fails, "disk s1:/dev/disk/by-id/s1-0 is failing", new_disk, lasts_s=40
    ),
    "disk: fails": Case(disk_fails, "", new_disk, lasts_s=40),
    "disk: returns at once": Case(put_back(0.3)),
    "disk: returns with old data": Case(put_back(30)),
    "disk: moved to another host": Case(put_back(5, "s4"), "", moved_home),
    "disk: a foreign one in its place": Case(foreign, MISSING, new_disk),
    "network: one of two": Case(one_network, "", heals()),
    "network: both": Case(with_leg(lambda c, s: c.world.partition(s)), AWAY, heals()),
    "network: the head does not see the host": Case(
        with_leg(lambda c, s: part(c, HEAD, s, 0, 1)), "volume v is", heals()
    ),
    "network: the manager does not see the host": Case(
        with_leg(lambda c, s: c.world.network.cut_control("m", s)),
        "node s1 is unreachable from the manager",
        heals(),
    ),
    "network: flaps": Case(flapping, "", heals()),
    "manager: killed": Case(manager_killed),
    "manager: disk full while a host dies": Case(
        manager_full, "m cannot record anything", heals(), copies=3
    ),
    "manager: clock jumps back while a host dies": Case(clock_back, AWAY, heals()),
    "manager: clock jumps ahead while a host dies": Case(clock_ahead, AWAY, heals()),
    "two: storage hosts, of three copies": Case(
        with_leg(lambda c, s: cut(c, s, "s2")), "node s2 is unreachable", heals(), copies=3
    ),
    "two: storage hosts, of two copies": Case(both_of_a_segment, "is stalled", heals(), waits=True),
}


@pytest.mark.parametrize("name", CASES)
def test_fault(name: str) -> None:
    case = CASES[name]

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, case.copies, HEAD)
        assert await legs_on(cluster, "s1")
        await asyncio.sleep(8)  # all grains have been written
        watch = cluster.spawn(Watch(cluster).run())
        await case.happens(cluster)
        if case.said:
            await cluster.until("it is said", NOTICED_S + SAID_S, lambda: _says(cluster, case.said))
        await asyncio.sleep(case.lasts_s)
        before = cluster.checker.acknowledged
        await asyncio.sleep(8)
        assert (cluster.checker.acknowledged == before) is case.waits
        if case.mended is not None:
            await case.mended(cluster)
        await cluster.until("redundant", REBUILD_DELAY_S + 90, cluster.redundant)
        await cluster.until("nothing is left to say", 90, lambda: _is_ok(cluster))
        assert cluster.checker.acknowledged > before
        watch.cancel()
        await at_the_end(cluster, HEAD)

    simulate(body, lambda: SimCluster(60, SPREAD))


async def _says(cluster: SimCluster, words: str) -> bool:
    return any(words in said for said in (await cluster.status()).problems)


async def _is_ok(cluster: SimCluster) -> bool:
    return (await cluster.status()).health == "ok"
