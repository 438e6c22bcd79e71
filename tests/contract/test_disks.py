"""Disks' contract."""

import pytest

from tests.contract.world import World
from vastskyd.core import names
from vastskyd.core.errors import ConflictError, DeviceError, NotFoundError
from vastskyd.core.ids import ExtentId
from vastskyd.core.ondisk_layout import (
    AREA_START_BYTES,
    SLOT_BYTES,
    SLOT_MAGIC,
    SLOT_OFFSETS_BYTES,
)
from vastskyd.ports import BlockDevice, LinearTarget

MIB = 1024 * 1024
SIZE = 72 * MIB
EXTENT = ExtentId("00000000000000e1")
BLOCK = bytes(range(256)) * 16


async def listed(world: World, path: str) -> BlockDevice:
    (found,) = [one for one in await world.disks.list() if one.path == path]
    return found


async def test_an_empty_disk(world: World) -> None:
    disk = await world.make_disk(SIZE)
    found = await listed(world, disk)
    assert found.size_bytes == SIZE
    assert found.found == ""
    assert not found.member


async def test_what_stands_on_it_is_found_and_erased(world: World) -> None:
    disk = await world.make_disk(SIZE)
    await world.put_filesystem(disk)
    assert (await listed(world, disk)).found == "ext4 filesystem"
    await world.disks.erase_signatures(disk)
    found = await listed(world, disk)
    assert (found.found, found.member) == ("", False)


async def test_a_new_disk_has_no_remnants(world: World) -> None:
    disk = await world.make_disk(SIZE)
    assert await world.disks.remnants(disk) == ""
    await world.write(disk, AREA_START_BYTES, BLOCK)  # nothing of anybody's begins there
    assert await world.disks.remnants(disk) == ""


@pytest.mark.parametrize("at", [0, 3 * MIB, SIZE - MIB, SIZE - 4096])
async def test_what_no_signature_tells_of_is_a_remnant(world: World, at: int) -> None:
    disk = await world.make_disk(SIZE)
    await world.write(disk, at, BLOCK)
    assert (await listed(world, disk)).found == ""
    assert "do not read as zeros" in await world.disks.remnants(disk)


async def test_a_description_is_a_remnant(world: World) -> None:
    disk = await world.make_disk(SIZE)
    await world.disks.write_slot(disk, 1, SLOT_MAGIC)
    assert "do not read as zeros" in await world.disks.remnants(disk)


async def test_a_disk_that_somebody_has_open_is_not_new(world: World) -> None:
    disk = await world.make_disk(SIZE)
    async with world.opened(disk):
        assert "opened by python3" in await world.disks.remnants(disk)
    assert await world.disks.remnants(disk) == ""


async def test_activity_counts_requests(world: World) -> None:
    disk = await world.make_disk(SIZE)
    name = (await listed(world, disk)).kernel_name
    before = (await world.disks.activity())[name]
    await world.write(disk, 0, BLOCK)
    await world.write(disk, MIB, BLOCK)
    after = (await world.disks.activity())[name]
    assert after.done >= before.done + 2
    assert after.took_s >= before.took_s
    assert after.waiting == 0


async def test_slots(world: World) -> None:
    disk = await world.make_disk(SIZE)
    empty = await world.disks.read_slots(disk)
    assert empty.slots == (bytes(SLOT_BYTES), bytes(SLOT_BYTES))
    content = SLOT_MAGIC + bytes(range(256)) * 20
    await world.disks.write_slot(disk, 1, content)
    first, second = (await world.disks.read_slots(disk)).slots
    assert first == bytes(SLOT_BYTES)
    assert second == content.ljust(SLOT_BYTES, b"\0")
    assert await world.read(disk, SLOT_OFFSETS_BYTES[1], 4096) == content[:4096]
    await world.disks.write_slot(disk, 0, bytes(SLOT_BYTES - 1) + b"x")
    first, second = (await world.disks.read_slots(disk)).slots
    assert first[-1:] == b"x"
    assert second.startswith(content)
    with pytest.raises(DeviceError):
        await world.disks.write_slot(disk, 0, bytes(SLOT_BYTES + 1))


async def test_a_member_is_known_and_can_be_forgotten(world: World) -> None:
    disk = await world.make_disk(SIZE)
    await world.disks.write_slot(disk, 1, SLOT_MAGIC)
    found = await listed(world, disk)
    assert (found.found, found.member) == ("vastsky member", True)
    await world.disks.erase_signatures(disk)
    assert not (await listed(world, disk)).member


async def test_a_disk_with_extents_in_use_is_not_erased(world: World) -> None:
    disk = await world.make_disk(SIZE)
    name, uuid = names.extent_dm_name(EXTENT), names.extent_dm_uuid(EXTENT)
    target = (LinearTarget(disk, AREA_START_BYTES, MIB),)
    await world.kernel.dm.ensure_linear(name, uuid, target, public=False)
    assert (await listed(world, disk)).member
    with pytest.raises(ConflictError, match=name):
        await world.disks.erase_signatures(disk)
    # Its description can be written, and free ranges wiped, all the same.
    await world.disks.write_slot(disk, 0, BLOCK)
    await world.disks.wipe(disk, AREA_START_BYTES + MIB, MIB)


async def test_no_such_disk(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.disks.read_slots("/dev/disk/by-id/nvme-nobody")
    with pytest.raises(NotFoundError):
        await world.disks.wipe("/dev/disk/by-id/nvme-nobody", 0, MIB)
    with pytest.raises(NotFoundError):
        await world.disks.erase_signatures("/dev/disk/by-id/nvme-nobody")
    with pytest.raises(NotFoundError):
        await world.disks.remnants("/dev/disk/by-id/nvme-nobody")


async def test_a_range_is_wiped_and_no_more(world: World) -> None:
    disk = await world.make_disk(SIZE)
    start = AREA_START_BYTES
    for at in (start - 4096, start, start + 2 * MIB - 4096, start + 2 * MIB):
        await world.write(disk, at, BLOCK)
    await world.disks.wipe(disk, start, 2 * MIB)
    assert await world.read(disk, start, 2 * MIB) == bytes(2 * MIB)
    assert await world.read(disk, start - 4096, 4096) == BLOCK
    assert await world.read(disk, start + 2 * MIB, 4096) == BLOCK


async def test_a_disk_that_answers_with_errors(world: World) -> None:
    (bad,) = await world.make_legs(1, SIZE)
    await world.fail_path(bad)
    with pytest.raises(DeviceError):
        await world.disks.read_slots(bad)
    with pytest.raises(DeviceError):
        await world.disks.write_slot(bad, 0, BLOCK)
    with pytest.raises(DeviceError):
        await world.disks.wipe(bad, 0, MIB)
