"""What only a real host has: udev's view of a stack, and a daemon that begins anew over one."""

import asyncio
import os
import struct
import subprocess

import pytest

from tests.contract.lab_world import TLS, aside
from tests.contract.test_md import LEG_SIZE, SIZE, UUID, Stack
from tests.contract.test_nbd import connect, until_dead
from tests.contract.world import World
from vastskyd.core import names
from vastskyd.core.guards import GUARD_BYTES
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.names import LegName, VolumeDeviceName
from vastskyd.core.ondisk_layout import SLOT_MAGIC
from vastskyd.kernel.apart import start
from vastskyd.kernel.calls import CallsApart
from vastskyd.kernel.host import HostKernel
from vastskyd.ports import LinearTarget

MIB = 1024 * 1024
VOLUME = VolumeId("0123456789abcdef01234567")
EXTENT = ExtentId("00000000000000e1")

# A DOS partition table: type 0x83 from sector 2048 on, 16384 sectors.
_ENTRY = struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 16384)
ONE_PARTITION = (bytes(446) + _ENTRY + bytes(48) + b"\x55\xaa").ljust(4096, b"\0")


def real(link: str) -> str:
    return os.path.realpath(link)


async def properties(device: str) -> dict[str, str]:
    text = await aside(f"udevadm settle && udevadm info --query=property --name={device}")
    return dict(line.split("=", 1) for line in text.splitlines())


async def assert_left_alone(device: str) -> None:
    told = await properties(device)
    assert told["SYSTEMD_READY"] == "0"
    assert told["VASTSKY_INTERNAL"] == "1"
    assert told["DM_UDEV_DISABLE_OTHER_RULES_FLAG"] == "1"
    assert not {"ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_PART_TABLE_TYPE"} & told.keys()
    assert "/disk/" not in told.get("DEVLINKS", "")


async def test_a_stack_as_udev_sees_it(world: World) -> None:
    """NBD, leg, array and volume: with a file system, which only the volume may show."""
    kernel = world.kernel
    (disk,) = await world.make_legs(1, LEG_SIZE)
    nbd = await connect(world, await world.serve(disk))
    name = LegName(VOLUME, 5, EXTENT, 3)
    leg = await kernel.dm.ensure_leg(name, (nbd,), LEG_SIZE)
    array = await kernel.md.create(UUID, "v-5", (leg,), 1, SIZE)
    await kernel.md.make_writable(array)
    volume = await kernel.dm.ensure_linear(
        names.volume_dm_name("data.1"),
        VolumeDeviceName(VOLUME, 3).dm_uuid(),
        (LinearTarget(array, 0, SIZE),),
        public=True,
    )
    await aside("udevadm settle")
    link = names.volume_device("data.1")
    by_id = (f"/dev/vastsky/by-id/{VOLUME}", f"/dev/disk/by-id/vastsky-{VOLUME}")
    assert [real(each) for each in (link, *by_id)] == [volume] * 3
    await world.put_filesystem(link)
    await aside("udevadm settle")
    told = await properties(volume)
    assert told["ID_FS_TYPE"] == "ext4"
    assert told.get("SYSTEMD_READY") != "0"
    assert ":systemd:" in told["TAGS"]
    await aside("systemctl is-active dev-vastsky-data.1.device")
    # Coldplug, as at boot or by an administrator's trigger: nobody looks inside either.
    await aside("udevadm trigger --settle --action=add --subsystem-match=block")
    await aside("udevadm trigger --settle --action=change --subsystem-match=block")
    await assert_left_alone(nbd)
    await assert_left_alone(leg)
    await assert_left_alone(array)
    assert "DEVLINKS" not in await properties(array)
    assert real(link) == volume
    by_uuid = (await properties(volume))["ID_FS_UUID"]
    assert real(f"/dev/disk/by-uuid/{by_uuid}") == volume
    assert len(await kernel.md.arrays()) == 1, "mdadm --incremental assembled something"
    await kernel.dm.remove(names.volume_dm_name("data.1"))
    await aside("udevadm settle")
    for each in (link, *by_id):
        assert real(each) == each


async def test_a_described_disk_as_udev_sees_it(world: World) -> None:
    """Marked when its description has been written, and no longer once that is erased: udev looks
    when whoever wrote to the disk closes it."""
    disk = await world.make_disk(LEG_SIZE)
    assert "VASTSKY_MEMBER" not in await properties(disk)
    await world.disks.write_slot(disk, 1, SLOT_MAGIC)
    told = await properties(disk)
    assert (told["VASTSKY_MEMBER"], told["ID_FS_TYPE"]) == ("1", "vastsky_member")
    # Nothing knows how to mount it, and lsblk says whose it is.
    assert "vastsky_member" in await aside(f"lsblk --noheadings --output FSTYPE {disk}")
    await world.disks.erase_signatures(disk)
    assert "VASTSKY_MEMBER" not in await properties(disk)


async def test_partitions_of_a_volume_are_not_found_below_it(world: World) -> None:
    """The kernel itself looks for them on the NBD device and on the array: what the volume carries
    begins behind a guard there."""
    kernel = world.kernel
    first, second = await world.make_legs(2, LEG_SIZE)
    nbd = await connect(world, await world.serve(first))
    array_leg = await kernel.dm.ensure_leg(LegName(VOLUME, 5, EXTENT, 3), (second,), LEG_SIZE)
    array = await kernel.md.create(UUID, "v-5", (array_leg,), 1, SIZE)
    await kernel.md.make_writable(array)
    for device in (nbd, array):
        await world.write(device, GUARD_BYTES, ONE_PARTITION)
        await aside(f"blockdev --rereadpt {device} && udevadm settle && test ! -e {device}p1")


async def test_legs_of_a_stopped_array_are_not_assembled_by_udev(world: World) -> None:
    stack = Stack(world)
    await stack.create(2, 2)
    await world.kernel.md.stop(stack.array)
    for index in range(2):
        await world.kernel.dm.remove(stack.name(index).dm_name())
        await stack.map_leg(index)
    await aside("udevadm trigger --settle --action=change --subsystem-match=block")
    await aside("udevadm trigger --settle --action=add --subsystem-match=block")
    assert await world.kernel.md.arrays() == ()
    assert not [name for name in os.listdir("/sys/block") if name.startswith("md")]


async def test_an_extent_of_a_dead_export_is_not_assembled_by_udev(world: World) -> None:
    """On the storage host: the extent carries md's superblock of the leg that it was."""
    kernel = world.kernel
    stack = Stack(world)
    await stack.create(2, 2)
    await kernel.md.stop(stack.array)
    await kernel.dm.remove(stack.name(0).dm_name())
    extent = await kernel.dm.ensure_linear(
        names.extent_dm_name(EXTENT),
        names.extent_dm_uuid(EXTENT),
        (LinearTarget(stack.paths[0], 0, LEG_SIZE),),
        public=False,
    )
    await aside("udevadm trigger --settle --action=change --subsystem-match=block")
    await assert_left_alone(extent)
    assert await kernel.md.superblock(extent) is not None
    # Only ours is looked at: udev may start what it likes on the bare device below, which has
    # a device-mapper name of the test's own.
    assert await kernel.md.arrays() == ()


async def test_a_held_leg_stops_no_worker_of_udev(world: World) -> None:
    (bad,) = await world.make_legs(1, LEG_SIZE)
    name = LegName(VOLUME, 5, EXTENT, 3)
    leg = await world.kernel.dm.ensure_leg(name, (bad,), LEG_SIZE)
    await world.fail_path(bad)
    write = asyncio.ensure_future(world.write(leg, MIB, bytes(4096)))
    await asyncio.sleep(1)
    await aside(f"udevadm trigger --action=change {leg}; timeout 20 udevadm settle --timeout=15")
    await world.kernel.dm.release_leg(name)
    with pytest.raises(OSError):
        await asyncio.wait_for(write, 10)


async def test_a_new_daemon_knows_dead_links(world: World) -> None:
    first, second = await world.make_legs(2, LEG_SIZE)
    one, two = await world.serve(first), await world.serve(second)
    dead = await connect(world, one)
    well = await connect(world, two, names.PathName(EXTENT, 3, 1))
    leg = LegName(VOLUME, 5, EXTENT, 3)
    await world.kernel.dm.ensure_leg(leg, (dead,), LEG_SIZE)
    await world.kill_server(one)
    await until_dead(world, dead)
    async with CallsApart(start()) as calls, asyncio.timeout(10):
        again = HostKernel(calls, TLS / "client")
        known = {device.device: device.alive for device in await again.nbd.devices()}
    assert known == {dead: False, well: True}
    again.close()


async def test_the_daemon_may_die(world: World) -> None:
    """Handshake and stack made by another process, which is gone: I/O goes on."""
    (disk,) = await world.make_legs(1, LEG_SIZE)
    served = await world.serve(disk)
    code = f"""
import asyncio
from pathlib import Path
from vastskyd.core.documents import Endpoint
from vastskyd.core.model import Encryption
from vastskyd.core.names import LegName, PathName
from vastskyd.kernel.apart import start
from vastskyd.kernel.calls import CallsApart
from vastskyd.kernel.host import HostKernel
process = start()
async def main():
    async with CallsApart(process) as calls:
        await make(HostKernel(calls, Path("/nowhere")))
async def make(kernel):
    end = Endpoint(network=0, address="127.0.0.1", port={served.endpoint.port})
    nbd = await kernel.nbd.connect(
        PathName("{EXTENT}", 3, 0), end, "the-export", Encryption.NONE, "store1", "127.0.0.1")
    print(await kernel.dm.ensure_leg(LegName("{VOLUME}", 5, "{EXTENT}", 3), (nbd,), {LEG_SIZE}))
asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, ["python3", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    leg = done.stdout.strip()
    await world.write(leg, 0, bytes(range(256)) * 16)
    (device,) = await world.kernel.nbd.devices()
    assert device.alive
