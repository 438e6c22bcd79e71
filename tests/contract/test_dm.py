"""DeviceMapper's contract."""

import asyncio
from collections.abc import Callable

import pytest

from tests.contract.world import World
from vastskyd.core import names
from vastskyd.core.errors import BusyError, ConflictError, NotFoundError
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.names import LegName, VolumeDeviceName
from vastskyd.ports import DmDevice, LinearTarget, PathCondition

MIB = 1024 * 1024
SIZE = 8 * MIB
VOLUME = VolumeId("0123456789abcdef01234567")
EXTENT = ExtentId("00000000000000e1")
LEG = LegName(VOLUME, 0, EXTENT, 1)
BLOCK = bytes(range(256)) * 16

# Longer than the kernel takes to try a path, shorter than anything it gives up by itself.
HELD_S = 1.5


async def eventually(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not so():  # noqa: ASYNC110 - a process's end, nobody tells
            await asyncio.sleep(0.05)


async def device_of(world: World, name: str) -> DmDevice | None:
    return next((d for d in await world.kernel.dm.devices() if d.name == name), None)


async def held(io: "asyncio.Future[None]") -> bool:
    done, _ = await asyncio.wait([io], timeout=HELD_S)
    return not done


async def test_an_extent_is_its_range_of_the_disk(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    name, uuid = names.extent_dm_name(EXTENT), names.extent_dm_uuid(EXTENT)
    target = (LinearTarget(disk, 2 * MIB, MIB),)
    device = await dm.ensure_linear(name, uuid, target, public=False)
    await world.write(device, 4096, BLOCK)
    assert await world.read(disk, 2 * MIB + 4096, 4096) == BLOCK
    assert await dm.ensure_linear(name, uuid, target, public=False) == device
    shown = await device_of(world, name)
    assert shown is not None
    assert (shown.device, shown.uuid, shown.size_bytes) == (device, uuid, MIB)
    assert shown.slaves == (disk.removeprefix("/dev/"),)
    assert not shown.suspended
    await dm.remove(name)
    assert await device_of(world, name) is None
    await dm.remove(name)


async def test_what_is_written_is_counted(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    device = await dm.ensure_leg(LEG, (disk,), SIZE)
    before = await dm.written_bytes(device)
    await world.read(device, 0, 4096)
    assert await dm.written_bytes(device) == before
    await world.write(device, MIB, BLOCK)
    assert await dm.written_bytes(device) >= before + len(BLOCK)
    await dm.remove(LEG.dm_name())
    with pytest.raises(NotFoundError):
        await dm.written_bytes(device)


async def test_a_table_that_differs_is_reloaded(world: World) -> None:
    first, second = await world.make_legs(2, SIZE)
    dm = world.kernel.dm
    name, uuid = names.volume_dm_name("v"), VolumeDeviceName(VOLUME, 1).dm_uuid()
    await dm.ensure_linear(name, uuid, (LinearTarget(first, 0, MIB),), public=True)
    longer = (LinearTarget(first, 0, MIB), LinearTarget(second, MIB, MIB))
    device = await dm.ensure_linear(name, uuid, longer, public=True)
    await world.write(device, MIB, BLOCK)
    assert await world.read(second, MIB, 4096) == BLOCK
    shown = await device_of(world, name)
    assert shown is not None
    assert shown.size_bytes == 2 * MIB


async def test_a_name_taken_by_another_epoch_is_a_conflict(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    await world.kernel.dm.ensure_leg(LEG, (disk,), SIZE)
    later = LegName(VOLUME, 0, EXTENT, 2)
    with pytest.raises(ConflictError):
        await world.kernel.dm.ensure_leg(later, (disk,), SIZE)
    with pytest.raises(ConflictError):
        await world.kernel.dm.leg_status(later)


async def test_a_leg_without_a_device_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.kernel.dm.leg_status(LEG)
    with pytest.raises(NotFoundError):
        await world.kernel.dm.release_leg(LEG)
    with pytest.raises(NotFoundError):
        await world.kernel.dm.ensure_leg(LEG, ("/dev/nbd7777",), SIZE)


async def test_a_leg_shows_its_paths(world: World) -> None:
    first, second = await world.make_legs(2, SIZE)
    dm = world.kernel.dm
    await dm.ensure_leg(LEG, (first, second), SIZE)
    status = await dm.leg_status(LEG)
    kernel_names = tuple(d.removeprefix("/dev/") for d in (first, second))
    assert status.paths == tuple((name, PathCondition.ACTIVE) for name in kernel_names)
    assert status.holds
    shown = await device_of(world, LEG.dm_name())
    assert shown is not None
    assert sorted(shown.slaves) == sorted(kernel_names)
    assert LegName.parse(shown.uuid) == LEG


async def test_a_leg_holds_and_another_path_completes_what_was_held(world: World) -> None:
    bad, good = await world.make_legs(2, SIZE)
    dm = world.kernel.dm
    leg = await dm.ensure_leg(LEG, (bad,), SIZE)
    await world.fail_path(bad)
    write = asyncio.ensure_future(world.write(leg, MIB, BLOCK))
    assert await held(write)
    status = await dm.leg_status(LEG)
    assert status.paths == ((bad.removeprefix("/dev/"), PathCondition.FAILED),)
    assert status.holds
    assert await dm.ensure_leg(LEG, (good,), SIZE) == leg
    await asyncio.wait_for(write, 10)
    assert await world.read(good, MIB, 4096) == BLOCK
    assert (await dm.leg_status(LEG)).paths[0][1] is PathCondition.ACTIVE


async def test_the_same_paths_do_not_end_a_hold(world: World) -> None:
    (bad,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    leg = await dm.ensure_leg(LEG, (bad,), SIZE)
    await world.fail_path(bad)
    write = asyncio.ensure_future(world.write(leg, 0, BLOCK))
    assert await held(write)
    await world.mend_path(bad)
    await dm.ensure_leg(LEG, (bad,), SIZE)
    assert await held(write)
    assert (await dm.leg_status(LEG)).paths[0][1] is PathCondition.FAILED
    await dm.release_leg(LEG)
    with pytest.raises(OSError):
        await asyncio.wait_for(write, 10)


async def test_a_released_leg_fails_until_it_is_armed_again(world: World) -> None:
    (path,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    leg = await dm.ensure_leg(LEG, (path,), SIZE)
    await world.fail_path(path)
    write = asyncio.ensure_future(world.write(leg, 0, BLOCK))
    assert await held(write)
    await dm.release_leg(LEG)
    with pytest.raises(OSError):
        await asyncio.wait_for(write, 10)
    assert not (await dm.leg_status(LEG)).holds
    with pytest.raises(OSError):
        await asyncio.wait_for(world.write(leg, 0, BLOCK), 10)
    await dm.release_leg(LEG)
    await world.mend_path(path)
    assert await dm.ensure_leg(LEG, (path,), SIZE) == leg
    status = await dm.leg_status(LEG)
    assert status.holds
    assert status.paths[0][1] is PathCondition.ACTIVE
    await world.write(leg, 0, BLOCK)
    assert await world.read(path, 0, 4096) == BLOCK


async def test_failed_paths_are_tried_again(world: World) -> None:
    (path,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    device = await dm.ensure_leg(LEG, (path,), SIZE)
    await world.fail_path(path)
    write = asyncio.ensure_future(world.write(device, 0, BLOCK))
    assert await held(write)
    await dm.retry_leg(LEG)  # in vain
    assert await held(write)
    await world.mend_path(path)
    await dm.retry_leg(LEG)
    await asyncio.wait_for(write, 10)
    assert await world.read(device, 0, len(BLOCK)) == BLOCK
    await dm.remove(LEG.dm_name())
    with pytest.raises(NotFoundError):
        await dm.retry_leg(LEG)


async def test_one_of_two_paths_is_enough(world: World) -> None:
    # Both are the same data, as two networks' connections to one extent are.
    (disk,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    paths = []
    for extent in (ExtentId("00000000000000a1"), ExtentId("00000000000000a2")):
        name, uuid = names.extent_dm_name(extent), names.extent_dm_uuid(extent)
        target = (LinearTarget(disk, 0, SIZE),)
        paths.append(await dm.ensure_linear(name, uuid, target, public=False))
    leg = await dm.ensure_leg(LEG, tuple(paths), SIZE)
    await dm.replace_with_error(names.extent_dm_name(ExtentId("00000000000000a1")))
    for at in range(4):
        await asyncio.wait_for(world.write(leg, at * MIB, BLOCK), 10)
    assert await world.read(disk, 3 * MIB, 4096) == BLOCK
    conditions = [condition for _name, condition in (await dm.leg_status(LEG)).paths]
    assert conditions == [PathCondition.FAILED, PathCondition.ACTIVE]


async def test_the_last_resort_fails_what_is_held(world: World) -> None:
    (bad,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    leg = await dm.ensure_leg(LEG, (bad,), SIZE)
    await world.fail_path(bad)
    write = asyncio.ensure_future(world.write(leg, 0, BLOCK))
    assert await held(write)
    await dm.replace_with_error(LEG.dm_name())
    with pytest.raises(OSError):
        await asyncio.wait_for(write, 10)
    shown = await device_of(world, LEG.dm_name())
    assert shown is not None
    assert shown.slaves == ()
    assert (await dm.leg_status(LEG)).paths == ()
    await dm.remove(LEG.dm_name())


async def test_a_device_in_use_is_busy_and_says_by_whom(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    name, uuid = names.volume_dm_name("used"), VolumeDeviceName(VOLUME, 1).dm_uuid()
    device = await dm.ensure_linear(name, uuid, (LinearTarget(disk, 0, MIB),), public=True)
    assert await dm.holders(name) == ()
    async with world.opened(device):
        shown = await device_of(world, name)
        assert shown is not None
        assert shown.open_count == 1
        (holder,) = await dm.holders(name)
        assert holder.startswith("opened by ")
        with pytest.raises(BusyError, match="opened by"):
            await dm.remove(name)
    await dm.remove(name)
    assert await dm.holders(name) == ()


async def test_who_writes_to_a_device_is_ended(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    name, uuid = names.volume_dm_name("fenced"), VolumeDeviceName(VOLUME, 1).dm_uuid()
    device = await dm.ensure_linear(name, uuid, (LinearTarget(disk, 0, MIB),), public=True)
    async with world.opened(device) as reader, world.opened(device, to_write=True) as writer:
        (killed,) = await dm.end_writers(name)
        assert killed.startswith("python3")
        await eventually(lambda: not writer.lives())
        assert reader.lives()
        assert await dm.end_writers(name) == ()
    await dm.remove(name)
    with pytest.raises(NotFoundError):
        await dm.end_writers(name)


async def test_an_abandoned_device_leaves_its_name_to_the_next(world: World) -> None:
    first, second = await world.make_legs(2, SIZE)
    dm = world.kernel.dm
    name, uuid = names.volume_dm_name("fenced"), VolumeDeviceName(VOLUME, 1).dm_uuid()
    device = await dm.ensure_linear(name, uuid, (LinearTarget(first, 0, SIZE),), public=True)
    async with world.opened(device):
        await world.mount(device)
        await dm.abandon(name)
        assert await device_of(world, name) is None
        wreck = await device_of(world, names.wreck_dm_name(VOLUME, 1))
        assert wreck is not None
        assert wreck.slaves == ()
        (holder,) = await dm.holders(wreck.name)
        assert holder.startswith("opened by ")
        with pytest.raises(OSError):
            await world.write(wreck.device, 0, BLOCK)
        again = VolumeDeviceName(VOLUME, 2).dm_uuid()
        new = await dm.ensure_linear(name, again, (LinearTarget(second, 0, SIZE),), public=True)
        await world.write(new, 0, BLOCK)
        await dm.remove(name)
    await dm.remove(wreck.name)
    assert await device_of(world, wreck.name) is None


async def test_a_device_under_another_is_held_by_it(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    dm = world.kernel.dm
    leg = await dm.ensure_leg(LEG, (disk,), SIZE)
    name, uuid = names.volume_dm_name("top"), VolumeDeviceName(VOLUME, 1).dm_uuid()
    await dm.ensure_linear(name, uuid, (LinearTarget(leg, 0, SIZE),), public=True)
    (holder,) = await dm.holders(LEG.dm_name())
    assert holder.startswith("held by dm-")
    assert "vastsky-volume-top" in holder


async def test_a_failed_path_is_a_change(world: World) -> None:
    (bad,) = await world.make_legs(1, SIZE)
    leg = await world.kernel.dm.ensure_leg(LEG, (bad,), SIZE)
    while await told(world, 1.0):
        pass  # what setting it up told of
    await world.fail_path(bad)
    while await told(world, 1.0):
        pass
    write = asyncio.ensure_future(world.write(leg, 0, BLOCK))
    assert await told(world, 10.0)
    await world.kernel.dm.release_leg(LEG)
    with pytest.raises(OSError):
        await asyncio.wait_for(write, 10)


async def told(world: World, timeout_s: float) -> bool:
    """Whether wait_change returned well before its bound."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    await world.kernel.wait_change(timeout_s)
    return loop.time() - start_s < timeout_s * 0.9
