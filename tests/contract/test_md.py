"""Md's contract."""

import asyncio
from collections.abc import Awaitable

import pytest

from tests.contract.world import World
from vastskyd.core import names
from vastskyd.core.errors import BusyError, ConflictError, DeviceError, VastskyError
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.names import LegName
from vastskyd.core.units import MD_DATA_OFFSET_BYTES
from vastskyd.ports import CheckStatus, MdArray, MemberState

MIB = 1024 * 1024
SIZE = 16 * MIB
LEG_SIZE = SIZE + MD_DATA_OFFSET_BYTES
VOLUME = VolumeId("0123456789abcdef01234567")
UUID = names.array_uuid(VOLUME, 5)
NAME = "v-5"
BLOCK = bytes(range(256)) * 16
OTHER = BLOCK[::-1]
FAR = 8 * MIB
ALL_S = 60.0
# Until md has marked an array clean that nobody writes to: twice its safe_mode_delay at most
# (md_write_end in drivers/md/md.c rounds up).
PAUSE_S = 11.5


class Stack:
    """Legs over devices of the world, and an array over them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.paths: list[str] = []
        self.legs: list[str] = []
        self.array = ""

    async def add_legs(self, count: int) -> None:
        for path in await self.world.make_legs(count, LEG_SIZE):
            self.paths.append(path)
            self.legs.append("")
            await self.map_leg(len(self.legs) - 1)

    def name(self, index: int) -> LegName:
        return LegName(VOLUME, 5, ExtentId(f"{index:016x}"), 1)

    async def map_leg(self, index: int) -> None:
        name = self.name(index)
        leg = await self.world.kernel.dm.ensure_leg(name, (self.paths[index],), LEG_SIZE)
        self.legs[index] = leg

    async def create(self, count: int, copies: int) -> None:
        await self.add_legs(count)
        md = self.world.kernel.md
        self.array = await md.create(UUID, NAME, tuple(self.legs), copies, SIZE)

    async def assemble(self, *indexes: int) -> None:
        legs = tuple(self.legs[index] for index in indexes)
        self.array = await self.world.kernel.md.assemble(UUID, NAME, legs)

    async def shown(self) -> MdArray | None:
        arrays = await self.world.kernel.md.arrays()
        return next((one for one in arrays if one.device == self.array), None)

    async def states(self) -> list[MemberState | None]:
        """By leg; None: not a member."""
        array = await self.shown()
        assert array is not None
        by_device = {f"/dev/{member.device}": member.state for member in array.members}
        return [by_device.get(leg) for leg in self.legs]

    async def whole(self) -> MdArray:
        """Waits until nothing is being copied and every leg is in sync."""
        async with asyncio.timeout(ALL_S):
            while True:
                array = await self.shown()
                assert array is not None
                states = [member.state for member in array.members]
                done = array.sync_action == "idle" and len(states) == array.raid_devices
                if done and set(states) == {MemberState.IN_SYNC}:
                    return array
                await asyncio.sleep(0.05)

    async def end_without_stop(self) -> None:
        """As a head's death leaves the legs: md writes nothing more to any of them. Were one to
        fail before the other, md might just then tell the other of it."""
        for path in self.paths:
            await self.world.fail_path(path)
        for index in range(len(self.legs)):
            await self.world.kernel.dm.replace_with_error(self.name(index).dm_name())
        await self.world.kernel.md.stop(self.array)
        for index, path in enumerate(self.paths):
            await self.world.kernel.dm.remove(self.name(index).dm_name())
            await self.world.mend_path(path)
            await self.map_leg(index)

    async def data_of_legs(self) -> list[bytes]:
        return [await self.world.read(leg, MD_DATA_OFFSET_BYTES, SIZE) for leg in self.legs]


@pytest.fixture
def stack(world: World) -> Stack:
    return Stack(world)


async def test_a_frozen_array_copies_nothing_until_it_is_thawed(stack: Stack) -> None:
    await stack.create(1, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, MIB, BLOCK)
    await stack.world.leave_frozen(stack.array)
    await stack.add_legs(1)
    await md.add(stack.array, stack.legs[1], fresh=True)
    array = await stack.shown()
    assert array is not None
    assert array.sync_action == "frozen"
    assert (await stack.states())[1] in (MemberState.SPARE, MemberState.RECOVERING)
    await md.thaw(stack.array)
    await stack.whole()
    await md.thaw(stack.array)
    one, other = await stack.data_of_legs()
    assert one == other


async def test_an_array_that_was_never_made_is_discarded_and_no_other(stack: Stack) -> None:
    await stack.create(1, 2)
    left = await stack.world.leave_unmade()
    assert await stack.world.is_array(left)
    await stack.world.kernel.md.discard_unmade()
    assert not await stack.world.is_array(left)
    assert await stack.world.is_array(stack.array)


async def test_a_new_array(stack: Stack) -> None:
    await stack.create(3, 3)
    array = await stack.shown()
    assert array is not None
    assert array.uuid == UUID
    assert array.raid_devices == 3
    assert array.read_only
    assert array.sync_action == "idle"
    assert await stack.states() == [MemberState.IN_SYNC] * 3
    with pytest.raises(OSError):
        await stack.world.write(stack.array, 0, BLOCK)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, SIZE - 4096, BLOCK)
    with pytest.raises(OSError):
        await stack.world.write(stack.array, SIZE, BLOCK)
    data = await stack.data_of_legs()
    assert data[0][-4096:] == BLOCK
    assert data[0] == data[1] == data[2]
    array = await stack.shown()
    assert array is not None
    assert not array.read_only
    assert array.sync_action == "idle", "assumed clean"


async def test_creating_again_answers_what_is_there(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    assert await md.create(UUID, NAME, tuple(stack.legs), 2, SIZE) == stack.array
    assert await md.assemble(UUID, NAME, tuple(stack.legs)) == stack.array
    assert len(await md.arrays()) == 1


async def test_creating_over_an_older_array_forgets_it(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.stop(stack.array)
    other = names.array_uuid(VOLUME, 6)
    await md.create(other, "v-6", tuple(stack.legs), 2, SIZE)
    superblock = await md.superblock(stack.legs[0])
    assert superblock is not None
    assert superblock.array_uuid == other


async def test_superblocks(stack: Stack) -> None:
    await stack.add_legs(2)
    md = stack.world.kernel.md
    assert await md.superblock(stack.legs[0]) is None
    stack.array = await md.create(UUID, NAME, tuple(stack.legs), 2, SIZE)
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    await md.stop(stack.array)
    first, second = [await md.superblock(leg) for leg in stack.legs]
    assert first is not None
    assert first == second
    assert first.array_uuid == UUID
    assert first.in_array


async def test_fewer_legs_than_copies(stack: Stack) -> None:
    await stack.create(1, 2)
    array = await stack.shown()
    assert array is not None
    assert array.raid_devices == 2
    assert await stack.states() == [MemberState.IN_SYNC]
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, MIB, BLOCK)
    await stack.add_legs(1)
    await md.add(stack.array, stack.legs[1], fresh=True)
    await stack.whole()
    data = await stack.data_of_legs()
    assert data[1] == data[0]
    assert data[1][MIB : MIB + 4096] == BLOCK


async def test_stopped_and_assembled_again(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    await md.stop(stack.array)
    assert await md.arrays() == ()
    await md.stop(stack.array)
    await stack.assemble(0, 1)
    array = await stack.shown()
    assert array is not None
    assert array.read_only
    assert await stack.states() == [MemberState.IN_SYNC] * 2
    assert await stack.world.read(stack.array, 0, 4096) == BLOCK
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)


async def test_assembled_from_some_legs_only(stack: Stack) -> None:
    await stack.create(3, 3)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await md.stop(stack.array)
    await stack.assemble(0, 2)
    array = await stack.shown()
    assert array is not None
    assert array.raid_devices == 3
    assert await stack.states() == [MemberState.IN_SYNC, None, MemberState.IN_SYNC]


async def test_a_stale_leg_is_left_out(stack: Stack) -> None:
    await stack.create(3, 3)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await md.fail(stack.array, stack.legs[1])
    await md.remove(stack.array, stack.legs[1])
    await stack.world.write(stack.array, 0, BLOCK)
    await md.stop(stack.array)
    stale = await md.superblock(stack.legs[1])
    good = await md.superblock(stack.legs[0])
    assert stale is not None
    assert good is not None
    assert stale.events < good.events
    await stack.assemble(0, 1, 2)
    assert await stack.states() == [MemberState.IN_SYNC, None, MemberState.IN_SYNC]
    assert await stack.world.read(stack.array, 0, 4096) == BLOCK


async def test_nothing_stays_of_what_cannot_be_assembled(stack: Stack) -> None:
    await stack.add_legs(2)
    with pytest.raises(DeviceError):
        await stack.assemble(0, 1)
    assert await stack.world.kernel.md.arrays() == ()
    for index in range(2):
        await stack.world.kernel.dm.remove(stack.name(index).dm_name())


async def test_an_unclean_end_is_resynced_once_writable(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    await stack.end_without_stop()
    # What was in flight reached one leg only.
    await stack.world.write(stack.legs[0], MD_DATA_OFFSET_BYTES + 4096, BLOCK)
    await stack.assemble(0, 1)
    array = await stack.shown()
    assert array is not None
    assert array.read_only
    await md.make_writable(stack.array)
    await stack.whole()
    data = await stack.data_of_legs()
    assert data[0] == data[1]
    assert data[0][:4096] == BLOCK


async def test_a_held_leg_stops_writes_until_released_and_failed(stack: Stack) -> None:
    await stack.create(3, 3)
    kernel = stack.world.kernel
    await kernel.md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    await stack.world.fail_path(stack.paths[1])
    write = asyncio.ensure_future(stack.world.write(stack.array, MIB, BLOCK))
    done, _ = await asyncio.wait([write], timeout=1.5)
    assert not done
    # Looking never waits, whatever is held.
    async with asyncio.timeout(3):
        assert await stack.states() == [MemberState.IN_SYNC] * 3
    await kernel.dm.release_leg(stack.name(1))
    await asyncio.wait_for(write, 10)
    assert (await stack.states())[1] in (None, MemberState.FAULTY)
    await kernel.md.fail(stack.array, stack.legs[1])
    await kernel.md.remove(stack.array, stack.legs[1])
    await kernel.md.remove(stack.array, stack.legs[1])
    assert await stack.states() == [MemberState.IN_SYNC, None, MemberState.IN_SYNC]
    await kernel.dm.remove(stack.name(1).dm_name())


async def test_while_a_superblock_is_held_no_leg_is_failed(stack: Stack) -> None:
    """With its lock md waits for the superblocks of all legs (drivers/md/md.c, md_update_sb): here
    of the first write after a pause."""
    await stack.create(3, 3)
    kernel = stack.world.kernel
    await kernel.md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    await asyncio.sleep(PAUSE_S)
    await stack.world.fail_path(stack.paths[1])
    write = asyncio.ensure_future(stack.world.write(stack.array, MIB, BLOCK))
    await asyncio.wait([write], timeout=0.5)
    failing = asyncio.ensure_future(kernel.md.fail(stack.array, stack.legs[0]))
    done, _ = await asyncio.wait([write, failing], timeout=1.5)
    assert not done
    assert await stack.states() == [MemberState.IN_SYNC] * 3
    await kernel.dm.release_leg(stack.name(1))
    await asyncio.wait_for(asyncio.gather(write, failing), 10)
    faulty = (None, MemberState.FAULTY)
    states = await stack.states()
    assert states[0] in faulty, states
    assert states[1] in faulty, states
    assert states[2] is MemberState.IN_SYNC


async def test_a_leg_that_was_away_comes_back(stack: Stack) -> None:
    await stack.create(2, 2)
    kernel = stack.world.kernel
    await kernel.md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    # A new bitmap is all dirty for seconds; the end of the array cleans it at once.
    await kernel.md.stop(stack.array)
    await stack.assemble(0, 1)
    await kernel.md.make_writable(stack.array)
    await stack.world.fail_path(stack.paths[1])
    write = asyncio.ensure_future(stack.world.write(stack.array, MIB, BLOCK))
    await asyncio.sleep(0.2)
    await kernel.dm.release_leg(stack.name(1))
    await asyncio.wait_for(write, 10)
    await stack.world.mend_path(stack.paths[1])
    await stack.map_leg(1)
    # Behind md's back, where nobody wrote meanwhile: a copy of the whole leg would mend it.
    await stack.world.write(stack.legs[1], MD_DATA_OFFSET_BYTES + FAR, OTHER)
    await kernel.md.add(stack.array, stack.legs[1], fresh=False)
    await kernel.md.add(stack.array, stack.legs[1], fresh=False)
    await stack.whole()
    first, second = await stack.data_of_legs()
    assert second[MIB : MIB + 4096] == BLOCK
    assert second[FAR : FAR + 4096] == OTHER != first[FAR : FAR + 4096]
    assert first[:FAR] == second[:FAR]


async def test_a_fresh_leg_is_copied_whole(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    await md.fail(stack.array, stack.legs[1])
    await md.remove(stack.array, stack.legs[1])
    # Behind md's back: a copy by the bitmap would not mend it.
    await stack.world.write(stack.legs[1], MD_DATA_OFFSET_BYTES + 8 * MIB, BLOCK)
    await md.add(stack.array, stack.legs[1], fresh=True)
    await stack.whole()
    data = await stack.data_of_legs()
    assert data[0] == data[1]


async def test_a_leg_md_does_not_know_is_filled_all_the_same(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, 0, BLOCK)
    await md.fail(stack.array, stack.legs[1])
    await md.remove(stack.array, stack.legs[1])
    await stack.add_legs(1)
    await md.add(stack.array, stack.legs[2], fresh=False)
    await stack.whole()
    assert await stack.states() == [MemberState.IN_SYNC, None, MemberState.IN_SYNC]


async def test_the_rate_of_a_rebuild_and_how_far_it_is(stack: Stack) -> None:
    await stack.create(1, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await md.set_sync_rate(stack.array, 1_000, 100)
    await stack.add_legs(1)
    await md.add(stack.array, stack.legs[1], fresh=True)
    async with asyncio.timeout(15):
        while (array := await stack.shown()) is None or array.sync_action != "recover":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert await stack.states() == [MemberState.IN_SYNC, MemberState.RECOVERING]
    assert array.sync_total_bytes == SIZE
    assert 0 <= array.sync_done_bytes < SIZE
    await md.set_sync_rate(stack.array, 0, 1_000_000)
    await stack.whole()


async def test_the_last_leg_is_kept(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await md.fail(stack.array, stack.legs[0])
    await md.fail(stack.array, stack.legs[0])
    with pytest.raises(ConflictError):
        await md.fail(stack.array, stack.legs[1])


async def test_an_array_in_use_is_not_stopped(stack: Stack) -> None:
    await stack.create(2, 2)
    md = stack.world.kernel.md
    async with stack.world.opened(stack.array):
        with pytest.raises(BusyError):
            await md.stop(stack.array)
    await md.stop(stack.array)
    assert await md.arrays() == ()


async def test_no_member_is_missing_from_an_array_that_runs(stack: Stack) -> None:
    md = stack.world.kernel.md

    async def watched(change: Awaitable[object]) -> None:
        task = asyncio.ensure_future(change)
        while not task.done():
            for array in await md.arrays():
                assert len(array.members) == 3 or not array.running
            await asyncio.sleep(0.001)
        await task

    await watched(stack.create(3, 3))
    for _ in range(3):
        await watched(md.stop(stack.array))
        assert await md.arrays() == ()
        await watched(stack.assemble(0, 1, 2))
    array = await stack.shown()
    assert array is not None
    assert array.running


async def test_a_failed_leg_is_a_change(stack: Stack) -> None:
    await stack.create(2, 2)
    kernel = stack.world.kernel
    await kernel.md.make_writable(stack.array)
    loop = asyncio.get_running_loop()
    quiet = False
    while not quiet:
        start_s = loop.time()
        await kernel.wait_change(1.0)
        quiet = loop.time() - start_s > 0.9
    await kernel.md.fail(stack.array, stack.legs[1])
    start_s = loop.time()
    await kernel.wait_change(10.0)
    assert loop.time() - start_s < 5


# --- scrubs ------------------------------------------------------------------------------


async def checked(stack: Stack) -> CheckStatus:
    """What a check found that came to its end."""
    await stack.world.kernel.md.start_check(stack.array)
    status = await ended_check(stack)
    assert status.complete
    return status


async def ended_check(stack: Stack) -> CheckStatus:
    async with asyncio.timeout(ALL_S):
        while True:
            status = await stack.world.kernel.md.check_status(stack.array)
            if not status.running:
                return status
            await asyncio.sleep(0.05)


async def in_use(stack: Stack, copies: int) -> None:
    await stack.create(copies, copies)
    await stack.world.kernel.md.make_writable(stack.array)
    await stack.world.write(stack.array, MIB, BLOCK)


async def waits(writing: "asyncio.Future[None]") -> bool:
    done, _ = await asyncio.wait([writing], timeout=1.0)
    return not done


async def test_a_check_of_equal_legs_finds_nothing(stack: Stack) -> None:
    await in_use(stack, 3)
    before = await stack.data_of_legs()
    assert (await checked(stack)).mismatch_bytes == 0
    assert (await checked(stack)).mismatch_bytes == 0
    assert await stack.data_of_legs() == before
    array = await stack.shown()
    assert array is not None
    assert array.sync_action == "idle"


async def test_a_check_finds_what_was_changed_behind_mds_back(stack: Stack) -> None:
    await in_use(stack, 2)
    await stack.world.write(stack.legs[1], MD_DATA_OFFSET_BYTES + SIZE - 4096, BLOCK)
    before = await stack.data_of_legs()
    assert (await checked(stack)).mismatch_bytes >= 4096
    assert await stack.data_of_legs() == before, "it only looks"
    await stack.world.write(stack.array, SIZE - 4096, BLOCK)
    assert (await checked(stack)).mismatch_bytes == 0


async def test_a_check_that_is_stopped_is_not_complete(stack: Stack) -> None:
    await in_use(stack, 2)
    md = stack.world.kernel.md
    assert (await checked(stack)).complete
    await md.set_sync_rate(stack.array, 1, 1_000)
    await md.start_check(stack.array)
    await asyncio.sleep(0.5)
    await md.start_check(stack.array)
    status = await md.check_status(stack.array)
    assert status.running
    assert not status.complete
    assert status.done_bytes < SIZE
    array = await stack.shown()
    assert array is not None
    assert array.sync_action == "check"
    assert await stack.states() == [MemberState.IN_SYNC] * 2
    await md.stop_check(stack.array)
    await md.stop_check(stack.array)
    assert not (await ended_check(stack)).complete
    await md.set_sync_rate(stack.array, 1_000, 1_000_000)
    assert (await checked(stack)).complete


async def test_no_check_while_a_leg_is_filled(stack: Stack) -> None:
    await stack.create(1, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await md.set_sync_rate(stack.array, 1, 100)
    await stack.add_legs(1)
    await md.add(stack.array, stack.legs[1], fresh=True)
    with pytest.raises(BusyError):
        await md.start_check(stack.array)
    await md.set_sync_rate(stack.array, 1_000, 1_000_000)
    await stack.whole()
    assert (await checked(stack)).mismatch_bytes == 0


async def test_held_writes_wait_and_nothing_else(stack: Stack) -> None:
    await in_use(stack, 2)
    md = stack.world.kernel.md
    await md.hold_writes(stack.array, 8 * MIB, MIB)
    await md.hold_writes(stack.array, 8 * MIB, MIB)
    array = await stack.shown()
    assert array is not None
    assert array.writes_held
    within = asyncio.ensure_future(stack.world.write(stack.array, 8 * MIB + 4096, BLOCK))
    assert await waits(within)
    async with asyncio.timeout(10):
        await stack.world.write(stack.array, 10 * MIB, BLOCK)
        await stack.world.write(stack.array, 0, BLOCK)
        assert await stack.world.read(stack.array, 8 * MIB, 4096) == bytes(4096)
    await md.release_writes(stack.array)
    async with asyncio.timeout(10):
        await within
    await md.release_writes(stack.array)
    array = await stack.shown()
    assert array is not None
    assert not array.writes_held
    await stack.world.write(stack.array, 8 * MIB, BLOCK)
    assert (await checked(stack)).mismatch_bytes == 0


async def test_while_writes_are_held_none_is_under_way(stack: Stack) -> None:
    await in_use(stack, 3)
    md = stack.world.kernel.md
    ended = asyncio.Event()

    async def write(at: int) -> None:
        number = 0
        while not ended.is_set():
            number = (number + 1) % 250
            await stack.world.write(stack.array, 4 * MIB + at, bytes([number]) * 4096)

    writers = [asyncio.ensure_future(write(at * 4096)) for at in range(3)]
    for _ in range(20):
        await asyncio.sleep(0.05)
        await md.hold_writes(stack.array, 4 * MIB, 3 * 4096)
        found = [await md.read_leg(leg, 4 * MIB, 3 * 4096) for leg in stack.legs]
        await md.release_writes(stack.array)
        assert found[0] == found[1] == found[2]
    ended.set()
    await asyncio.gather(*writers)


async def test_a_legs_data_behind_mds_back(stack: Stack) -> None:
    await in_use(stack, 2)
    md = stack.world.kernel.md
    await md.hold_writes(stack.array, 2 * MIB, 2 * MIB)
    other = BLOCK[::-1]
    await md.write_leg(stack.legs[1], 3 * MIB - 4096, other + BLOCK)
    await md.release_writes(stack.array)
    assert await md.read_leg(stack.legs[1], MIB, 4096) == BLOCK
    assert await md.read_leg(stack.legs[1], 3 * MIB - 4096, 8192) == other + BLOCK
    assert await md.read_leg(stack.legs[0], 3 * MIB - 4096, 8192) == bytes(8192)
    assert await md.read_leg(stack.legs[0], SIZE - MIB, MIB) == bytes(MIB)
    raw = await stack.world.read(stack.legs[1], MD_DATA_OFFSET_BYTES + 3 * MIB, 4096)
    assert raw == BLOCK


async def test_held_writes_wait_for_a_repair_that_is_on_its_way(stack: Stack) -> None:
    await in_use(stack, 3)
    kernel = stack.world.kernel
    await kernel.md.hold_writes(stack.array, 8 * MIB, MIB)
    await stack.world.fail_path(stack.paths[1])
    repair = asyncio.ensure_future(kernel.md.write_leg(stack.legs[1], 8 * MIB, BLOCK))
    assert await waits(repair)
    repair.cancel()  # nobody waits for it any more, but it is not undone
    with pytest.raises(BusyError):
        await kernel.md.release_writes(stack.array)
    array = await stack.shown()
    assert array is not None
    assert array.writes_held
    await stack.world.mend_path(stack.paths[1])
    await kernel.dm.retry_leg(stack.name(1))
    async with asyncio.timeout(10):
        while True:
            try:
                await kernel.md.release_writes(stack.array)
                break
            except BusyError:
                await asyncio.sleep(0.05)
    assert await kernel.md.read_leg(stack.legs[1], 8 * MIB, 4096) == BLOCK


async def test_an_array_is_stopped_whatever_is_being_checked(stack: Stack) -> None:
    await in_use(stack, 2)
    md = stack.world.kernel.md
    await md.set_sync_rate(stack.array, 1, 100)
    await md.start_check(stack.array)
    assert (await md.check_status(stack.array)).running
    await md.stop(stack.array)
    assert await md.arrays() == ()
    await md.stop_check(stack.array)
    await md.release_writes(stack.array)
    with pytest.raises(VastskyError):
        await md.check_status(stack.array)
    with pytest.raises(VastskyError):
        await md.start_check(stack.array)
