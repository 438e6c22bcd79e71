"""The fakes keep the contract of ports.py and behave as the kernel was measured to."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.sim import by_hand, loop
from tests.sim.blocks import IoError, PowerLostError
from tests.sim.by_hand import UUID, Stack
from tests.sim.world import World
from vastskyd.core import names
from vastskyd.core.errors import (
    BusyError,
    ConflictError,
    DeniedError,
    DeviceError,
    NotFoundError,
    UnreachableError,
)
from vastskyd.core.units import KIB, MIB
from vastskyd.ports import Export, MdArray, MemberState, PathCondition


def sim(test: Callable[[Stack], Awaitable[None]], copies: int = 2, seed: int = 1) -> World:
    async def main() -> World:
        world = World(seed)
        await test(Stack(world, copies))
        return world

    return loop.run(main())


async def only_array(stack: Stack) -> MdArray:
    (array,) = await stack.head.kernel.md.arrays()
    return array


async def settled(stack: Stack) -> MdArray:
    while True:
        array = await only_array(stack)
        whole = [m for m in array.members if m.state is MemberState.IN_SYNC]
        if array.sync_action == "idle" and len(whole) == stack.copies:
            return array
        await asyncio.sleep(0.1)


async def write_later(stack: Stack, grain: int, tag: int) -> "asyncio.Task[None]":
    task = asyncio.create_task(stack.write(grain, tag))
    await asyncio.sleep(6.0)
    return task


async def drop(stack: Stack, number: int) -> "asyncio.Task[None]":
    """The leg's host dies under a write; the daemon ends the hold."""
    stack.world.power_cut(f"store{number}")
    write = await write_later(stack, 3, 33)
    assert not write.done()
    await stack.head.kernel.dm.release_leg(stack.leg(number))
    await asyncio.sleep(0.3)
    assert write.done()
    return write


async def come_back(stack: Stack, number: int, *, fresh: bool) -> None:
    stack.world.power_on(f"store{number}")
    await stack.export(number)
    md = stack.head.kernel.md
    array = await only_array(stack)
    leg = next(
        d.device
        for d in await stack.head.kernel.dm.devices()
        if d.name == stack.leg(number).dm_name()
    )
    await md.remove(array.device, leg)
    assert await stack.connect(number) == leg
    await md.add(array.device, leg, fresh=fresh)


def test_an_acknowledged_write_is_on_every_leg() -> None:
    async def test(stack: Stack) -> None:
        array = await stack.create()
        await stack.write(3, 7)
        assert [stack.on_medium(n, 3) for n in (1, 2)] == [7, 7]
        assert await stack.read(3) == 7
        assert await stack.read(4) == 0
        with pytest.raises(BusyError):
            await stack.head.kernel.md.stop(array)
        stack.world.hosts["head"].mount("data")
        with pytest.raises(BusyError, match="mounted on /srv"):
            await stack.head.kernel.dm.remove(names.volume_dm_name("data"))

    sim(test)


def test_a_dead_leg_holds_writes_until_it_is_released() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        await stack.write(1, 1)
        await drop(stack, 2)
        states = [m.state for m in (await only_array(stack)).members]
        assert states == [MemberState.IN_SYNC, MemberState.FAULTY]
        status = await stack.head.kernel.dm.leg_status(stack.leg(2))
        assert not status.holds
        assert {condition for _, condition in status.paths} == {PathCondition.FAILED}
        assert not any(d.alive for d in (await stack.head.kernel.nbd.devices())[2:])
        assert await stack.read(3) == 33

    sim(test)


def test_a_leg_given_new_paths_completes_what_was_held() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        stack.world.hosts["store2"].kill_export_server(by_hand.HEAD)
        write = await write_later(stack, 5, 55)
        assert not write.done()
        await stack.export(2)
        await stack.connect(2)
        await write
        assert stack.on_medium(2, 5) == 55
        assert [m.state for m in (await only_array(stack)).members] == [MemberState.IN_SYNC] * 2

    sim(test)


def test_a_leg_comes_back_by_bitmap_or_whole() -> None:
    async def copied(stack: Stack, *, fresh: bool) -> float:
        """How long it took, at a MiB in a second."""
        await stack.create()
        await stack.write(1, 11)
        await asyncio.sleep(30)  # the bitmap of a new array is all dirty until then
        await drop(stack, 2)
        await stack.write(1, 12)
        await come_back(stack, 2, fresh=fresh)
        array = await only_array(stack)
        await stack.head.kernel.md.set_sync_rate(array.device, KIB, KIB)
        began_s = stack.world.now_s()
        assert array.sync_action == "recover"
        assert array.sync_total_bytes == by_hand.SIZE
        await settled(stack)
        assert stack.on_medium(2, 1) == 12
        assert stack.on_medium(2, 3) == 33
        return stack.world.now_s() - began_s

    async def by_bitmap(stack: Stack) -> None:
        assert 2 <= await copied(stack, fresh=False) < 3

    async def whole(stack: Stack) -> None:
        assert 16 <= await copied(stack, fresh=True) < 17

    sim(by_bitmap)
    sim(whole)


def test_a_stale_leg_is_left_out_beside_good_ones_and_starts_alone() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        await stack.write(3, 1)
        await drop(stack, 2)
        stack.world.power_cut("head")
        stack.world.power_on("head")
        stack.world.power_on("store2")
        array = await stack.assemble(1, 2)
        assert len((await only_array(stack)).members) == 1
        await stack.volume(array)
        assert await stack.read(3) == 33
        stack.world.power_cut("head")
        stack.world.power_on("head")
        array = await stack.assemble(2)
        await stack.volume(array)
        assert await stack.read(3) == 1

    sim(test)


def test_after_an_unclean_stop_the_legs_are_equal_once_writable() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        writes = [asyncio.create_task(stack.write(g, 100 + g)) for g in range(16)]
        await asyncio.sleep(0.0035)
        stack.world.power_cut("head")
        results = await asyncio.gather(*writes, return_exceptions=True)
        acknowledged = [g for g, result in enumerate(results) if result is None]
        assert len(acknowledged) < 16
        assert all(isinstance(r, PowerLostError) for r in results if r is not None)
        stack.world.power_on("head")
        array = await stack.assemble(1, 2)
        await asyncio.sleep(60)
        assert (await only_array(stack)).read_only
        await stack.head.kernel.md.make_writable(array)
        await settled(stack)
        legs = [[stack.on_medium(n, g) for g in range(16)] for n in (1, 2)]
        assert legs[0] == legs[1]
        assert all(legs[0][g] == 100 + g for g in acknowledged)
        await stack.head.kernel.md.stop(array)
        assert await stack.head.kernel.md.arrays() == ()

    for seed in range(5):
        sim(test, seed=seed)


def test_the_last_leg_released_fails_writes() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        await drop(stack, 2)
        stack.world.partition("store1")
        write = await write_later(stack, 6, 66)
        await stack.head.kernel.dm.release_leg(stack.leg(1))
        with pytest.raises(IoError):
            await write
        assert (await only_array(stack)).members[0].state is MemberState.IN_SYNC

    sim(test)


def test_one_network_cut_is_a_stall_and_no_more() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        stack.world.network.cut_data("head", "store1", 0)
        began_s = stack.world.now_s()
        await stack.write(2, 22)
        assert 2.0 < stack.world.now_s() - began_s < 5.0
        failed = [d.alive for d in await stack.head.kernel.nbd.devices()]
        assert failed == [False, True, True, True]

    sim(test)


def test_a_cut_shorter_than_the_timeout_is_not_noticed() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        stack.world.partition("store1")
        write = asyncio.create_task(stack.write(2, 22))
        await asyncio.sleep(1.0)
        stack.world.heal()
        await write
        assert all(d.alive for d in await stack.head.kernel.nbd.devices())

    sim(test)


def test_a_bad_sector_is_held_while_the_server_lives() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        stack.world.hosts["store1"].media[0].bad[4 + 4 + 9] = None
        write = await write_later(stack, 9, 99)
        assert not write.done()
        assert all(d.alive for d in await stack.head.kernel.nbd.devices())
        await stack.head.kernel.dm.release_leg(stack.leg(1))
        await write

    sim(test)


def test_a_removed_export_lets_nothing_through_and_the_old_epoch_is_gone() -> None:
    async def test(stack: Stack) -> None:
        await stack.create()
        storage = stack.storage[1]
        other = Export(by_hand.HEAD, by_hand.extent(1), 2, "other")
        with pytest.raises(ConflictError):
            await storage.exports.add(other, "/dev/dm-0")
        with pytest.raises(BusyError, match="qemu-storage-daemon"):
            await storage.kernel.dm.remove(names.extent_dm_name(by_hand.extent(1)))
        write = asyncio.create_task(stack.write(2, 22))
        await storage.exports.remove(by_hand.HEAD, by_hand.extent(1))
        before = stack.on_medium(1, 2)
        await asyncio.sleep(10)
        assert stack.on_medium(1, 2) == before
        assert not write.done()
        with pytest.raises(NotFoundError):
            await Stack.connect(stack, 1)

    sim(test)


def test_servers_admit_only_their_head() -> None:
    async def test(stack: Stack) -> None:
        await stack.export(1)
        server = stack.world.hosts["store1"].servers[by_hand.HEAD]
        server.addresses = ("10.9.9.9",)
        with pytest.raises(DeniedError):
            await stack.connect(1)
        stack.world.partition("store1")
        with pytest.raises(UnreachableError):
            await stack.connect(1)

    sim(test)


def test_slots_and_wipes_of_a_disk() -> None:
    async def test(stack: Stack) -> None:
        host = stack.world.hosts["store1"]
        disks = stack.storage[1].disks
        path = (await disks.list())[0].path
        await disks.write_slot(path, 1, b"whole")
        assert (await disks.read_slots(path)).slots[1].startswith(b"whole\0")
        host.media[0].data[9] = 5
        await disks.wipe(path, 8 * MIB, 4 * MIB)
        assert host.media[0].data == {}
        host.pull("store1-0")
        assert await disks.list() == ()
        with pytest.raises(NotFoundError):
            await disks.read_slots(path)

    sim(test)


def test_what_a_killed_daemon_was_writing_comes_before_what_the_next_one_writes() -> None:
    async def test(stack: Stack) -> None:
        media, disks = stack.world.hosts["store1"].media[0], stack.storage[1].disks
        path = (await disks.list())[0].path
        media.slow_s = 5.0
        killed = asyncio.create_task(disks.write_slot(path, 0, b"earlier"))
        await asyncio.sleep(1.0)
        killed.cancel()
        media.slow_s = 0.0
        assert (await disks.read_slots(path)).slots[0].startswith(b"earlier")
        await disks.write_slot(path, 0, b"later")
        await asyncio.sleep(30.0)
        assert (await disks.read_slots(path)).slots[0].startswith(b"later")

    sim(test)


def test_a_power_cut_loses_completes_or_tears_a_slot() -> None:
    seen = set()
    for seed in range(30):

        async def test(stack: Stack) -> None:
            host = stack.world.hosts["store1"]
            disks = stack.storage[1].disks
            path = (await disks.list())[0].path
            await disks.write_slot(path, 0, b"old-old-old")
            write = asyncio.create_task(disks.write_slot(path, 0, b"NEW-NEW-NEW"))
            await asyncio.sleep(0.002)
            stack.world.power_cut("store1")
            await asyncio.gather(write, return_exceptions=True)
            seen.add(host.media[0].slots[0])

        sim(test, seed=seed)
    assert {b"old-old-old", b"NEW-NEW-NEW"} < seen


async def soak(stack: Stack) -> None:
    """Legs die and come back under a writer, some in the middle of their recovery."""
    world, rng = stack.world, stack.world.rng("soak")
    acknowledged: dict[int, int] = {}
    await stack.create()

    async def writer() -> None:
        for tag in range(1, 1_000_000):
            grain = rng.randrange(16)
            await stack.write(grain, tag)
            acknowledged[grain] = tag
            assert await stack.read(grain) == tag
            await asyncio.sleep(rng.choice((0.0, 0.05, 12.0 if tag % 50 == 0 else 0.1)))

    writing = asyncio.create_task(writer())
    for _ in range(8):
        await asyncio.sleep(rng.uniform(0.0, 15.0))
        number = rng.randrange(1, 4)
        store = f"store{number}"
        rng.choice((world.power_cut, world.partition))(store)
        await asyncio.sleep(rng.uniform(20.0, 40.0))
        await stack.head.kernel.dm.release_leg(stack.leg(number))
        await asyncio.sleep(rng.uniform(1.0, 30.0))
        world.heal()
        world.power_on(store)
        await come_back(stack, number, fresh=rng.random() < 0.3)
        if rng.random() < 0.5:
            continue  # the next may go while this one is being filled
        await settled(stack)
    await settled(stack)
    writing.cancel()
    await asyncio.sleep(1.0)
    for grain, tag in acknowledged.items():
        legs = {stack.on_medium(n, grain) for n in stack.numbers()}
        assert len(legs) == 1
        assert legs.pop() >= tag
    assert len(acknowledged) == 16


@pytest.mark.parametrize("seed", range(12))
def test_no_acknowledged_write_is_lost_while_legs_come_and_go(seed: int) -> None:
    sim(soak, copies=3, seed=seed)


def test_assembly_refuses_what_is_not_the_array() -> None:
    async def test(stack: Stack) -> None:
        (leg,) = await stack.legs(1)
        assert await stack.head.kernel.md.superblock(leg) is None
        with pytest.raises(DeviceError):
            await stack.head.kernel.md.assemble(UUID, "v", (leg,))

    sim(test)
