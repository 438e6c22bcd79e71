"""A program's flush reaches the disks, through all that stands between."""

from tests.contract.test_md import LEG_SIZE, SIZE, Stack
from tests.contract.world import World
from vastskyd.core import names
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.names import LegName, PathName, VolumeDeviceName
from vastskyd.ports import LinearTarget

VOLUME = VolumeId("0123456789abcdef01234567")
EXTENT = ExtentId("00000000000000e1")
BLOCK = bytes(range(256)) * 16


async def test_through_a_connection_and_a_leg(world: World) -> None:
    """The kernel sends a flush to a server that offers to take one, and to no other."""
    (disk,) = await world.make_legs(1, LEG_SIZE)
    served = await world.serve(disk)
    nbd = await world.kernel.nbd.connect(
        PathName(EXTENT, 1, 0),
        served.endpoint,
        served.export_name,
        served.encryption,
        served.server,
        served.source_address,
    )
    leg = await world.kernel.dm.ensure_leg(LegName(VOLUME, 0, EXTENT, 1), (nbd,), LEG_SIZE)
    for device in (nbd, leg):
        await world.write(device, 0, BLOCK)
        before = await world.flushes(disk)
        await world.flush(device)
        assert await world.flushes(disk) > before, device


async def test_through_an_array_to_every_leg(world: World) -> None:
    stack = Stack(world)
    await stack.create(2, 2)
    await world.kernel.md.make_writable(stack.array)
    name = names.volume_dm_name("flushed")
    uuid = VolumeDeviceName(VOLUME, 1).dm_uuid()
    target = LinearTarget(stack.array, 0, SIZE)
    volume = await world.kernel.dm.ensure_linear(name, uuid, (target,), public=False)
    await world.write(volume, 0, BLOCK)
    before = [await world.flushes(path) for path in stack.paths]
    await world.flush(volume)
    after = [await world.flushes(path) for path in stack.paths]
    assert all(more > less for less, more in zip(before, after, strict=True)), (before, after)


async def test_what_describes_a_disk_is_flushed_and_so_is_a_wipe(world: World) -> None:
    (disk,) = await world.make_legs(1, LEG_SIZE)
    before = await world.flushes(disk)
    await world.disks.write_slot(disk, 0, BLOCK)
    between = await world.flushes(disk)
    assert between > before
    await world.disks.wipe(disk, 8 << 20, 1 << 20)
    assert await world.flushes(disk) > between
