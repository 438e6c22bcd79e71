"""Disks that keep what was flushed, and of the rest what they like."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.sim import loop
from tests.sim.blocks import Bio, IoError, Op, PowerLostError
from tests.sim.by_hand import Stack
from tests.sim.cluster import SimCluster
from tests.sim.fake_disks import FakeMedia
from tests.sim.test_cluster import simulate
from tests.sim.world import World
from tests.sim.write_cache import WriteCache
from vastskyd.core.units import MIB

GRAINS = 16


def with_caches(world: World) -> list[FakeMedia]:
    media = [each for host in world.hosts.values() for each in host.media]
    for each in media:
        each.cache = WriteCache()
    return media


def sim(test: Callable[[Stack], Awaitable[None]], seed: int = 1) -> None:
    async def main() -> None:
        stack = Stack(World(seed))
        with_caches(stack.world)
        await test(stack)

    loop.run(main())


def test_what_was_not_flushed_is_lost_or_kept() -> None:
    seen = set()
    for seed in range(10):
        media = FakeMedia("m", 64 * MIB, cache=WriteCache())
        media.access(Bio(Op.WRITE, 9, 1))
        media.access(Bio(Op.FLUSH, 0))
        media.access(Bio(Op.WRITE, 9, 2))
        assert media.data == {9: 2}
        media.power_cut(random.Random(seed))
        seen.add(media.data[9])
    assert seen == {1, 2}


def test_what_md_writes_for_itself_is_durable_and_so_is_what_was_written_before() -> None:
    media = FakeMedia("m", 64 * MIB, cache=WriteCache())
    media.access(Bio(Op.WRITE, 9, 1))
    media.access(Bio(Op.WRITE_META, 4, "superblock"))
    for seed in range(10):
        media.power_cut(random.Random(seed))
    assert (media.data, media.meta) == ({9: 1}, {4: "superblock"})


def test_a_flush_reaches_every_leg() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        before = [_flushes(stack, number) for number in (1, 2)]
        await stack.world.hosts["head"].flush("data")
        after = [_flushes(stack, number) for number in (1, 2)]
        assert all(more > less for less, more in zip(before, after, strict=True))

    sim(test)


def test_a_write_that_was_answered_is_durable_on_every_leg() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        await stack.write(3, 1)
        for number in (1, 2):
            stack.world.power_cut(f"store{number}")
            assert stack.on_medium(number, 3) == 1

    for seed in range(5):
        sim(test, seed)


def _flushes(stack: Stack, number: int) -> int:
    cache = stack.world.hosts[f"store{number}"].media[0].cache
    assert cache is not None
    return cache.flushes


# --- the cluster ------------------------------------------------------------------------------


@dataclass
class Program:
    """Writes and flushes, as a database does. `durable`: what a flush was answered for; `maybe`:
    what was written since."""

    cluster: SimCluster
    head: str
    tag: int = 0
    flushed: int = 0
    noticed: int = 0
    durable: dict[int, int] = field(default_factory=dict)
    maybe: dict[int, set[int]] = field(default_factory=dict)

    async def run(self) -> None:
        host = self.cluster.world.hosts[self.head]
        while True:
            written = {}
            try:
                for grain in range(self.tag % 3, GRAINS, 3):
                    self.tag += 1
                    self.maybe.setdefault(grain, set()).add(self.tag)
                    await host.write("v", grain, self.tag)
                    written[grain] = self.tag
                    await asyncio.sleep(0.05)
                await host.flush("v")
            except (IoError, PowerLostError):
                return
            self.flushed += 1
            for grain, tag in written.items():
                self.durable[grain] = tag
                self.maybe[grain] = {tag}

    def flushed_again(self) -> bool:
        """Some times since this was last true."""
        if self.flushed < self.noticed + 3:
            return False
        self.noticed = self.flushed
        return True

    def check(self, media: dict[int, int]) -> None:
        for grain, tag in self.durable.items():
            allowed = {tag, *self.maybe[grain]}
            assert media.get(grain, 0) in allowed, f"grain {grain}: {media.get(grain)}, {allowed}"


async def _under_way(cluster: SimCluster) -> tuple[Program, "asyncio.Task[None]"]:
    with_caches(cluster.world)
    await cluster.create(size_bytes=GRAINS * MIB)
    await cluster.attach(head="h2")
    program = Program(cluster, "h2")
    task = cluster.spawn(program.run())
    await asyncio.sleep(3)
    return program, task


def _hosts(cluster: SimCluster) -> list[str]:
    state = cluster.state()
    legs = cluster.state_of("v").segments[0].legs
    return [state.disks[state.extents[leg.extent].disk].node for leg in legs]


async def _all_there(cluster: SimCluster, program: Program) -> None:
    """Read from each leg, in turn."""
    await cluster.until("redundant", 120, cluster.redundant)
    for grain in range(GRAINS):
        for _ in range(3):
            value = await cluster.world.hosts["h2"].read("v", grain)
            program.check(program.durable | {grain: value})


@pytest.mark.parametrize("seed", range(4))
def test_a_storage_host_that_lost_its_cache_is_filled_again(seed: int) -> None:
    async def body(cluster: SimCluster) -> None:
        program, task = await _under_way(cluster)
        host = _hosts(cluster)[seed % 2]
        cluster.world.power_cut(host)
        await asyncio.sleep(10)
        cluster.power_on(host)
        await cluster.until("redundant", 60, cluster.redundant)
        task.cancel()
        await asyncio.sleep(1)
        await _all_there(cluster, program)

    simulate(body, lambda: SimCluster(90 + seed))


@pytest.mark.parametrize("seed", range(4))
def test_a_storage_host_that_reboots_in_no_time_is_filled_again(seed: int) -> None:
    """Nobody had the time to miss it, and what it had not kept was answered for."""

    async def body(cluster: SimCluster) -> None:
        program, task = await _under_way(cluster)
        host = _hosts(cluster)[seed % 2]
        cluster.world.power_cut(host)
        await asyncio.sleep(1)
        cluster.power_on(host)
        flushed = program.flushed
        await cluster.until("a flush is answered", 60, lambda: program.flushed > flushed)
        task.cancel()
        await asyncio.sleep(1)
        await _all_there(cluster, program)

    simulate(body, lambda: SimCluster(90 + seed))
