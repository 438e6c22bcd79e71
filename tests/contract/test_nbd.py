"""Nbd's contract."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.world import Served, World
from vastskyd.core.errors import DeniedError, NotFoundError, UnreachableError
from vastskyd.core.ids import ExtentId, NodeId, VolumeId
from vastskyd.core.model import Encryption
from vastskyd.core.names import LegName, PathName
from vastskyd.ports import NbdDevice, PathCondition

MIB = 1024 * 1024
SIZE = 8 * MIB
EXTENT = ExtentId("00000000000000e1")
PATH = PathName(EXTENT, 3, 0)
LEG = LegName(VolumeId("0123456789abcdef01234567"), 0, EXTENT, 3)
BLOCK = bytes(range(256)) * 16
BOTH = pytest.mark.parametrize("encryption", [Encryption.NONE, Encryption.TLS])

# A dead link is known after 3 s of a waiting request, or 2 s of silence; then a second more.
DEAD_S = 15.0


async def connect(world: World, served: Served, path: PathName = PATH) -> str:
    return await world.kernel.nbd.connect(
        path,
        served.endpoint,
        served.export_name,
        served.encryption,
        served.server,
        served.source_address,
    )


async def until_dead(world: World, device: str) -> None:
    async with asyncio.timeout(DEAD_S):
        while await alive(world, device):
            await world.kernel.wait_change(1.0)


async def alive(world: World, device: str) -> bool:
    (found,) = [d for d in await world.kernel.nbd.devices() if d.device == device]
    return found.alive


@BOTH
async def test_connected_and_disconnected(world: World, encryption: Encryption) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    served = await world.serve(disk, encryption)
    device = await connect(world, served)
    assert await world.kernel.nbd.devices() == (NbdDevice(device, PATH, alive=True),)
    await world.write(device, MIB, BLOCK)
    assert await world.read(disk, MIB, 4096) == BLOCK
    assert await world.read(device, MIB, 4096) == BLOCK
    with pytest.raises(OSError):
        await world.write(device, SIZE, BLOCK)
    assert await connect(world, served) == device, "there already"
    await world.kernel.nbd.disconnect(device)
    assert await world.kernel.nbd.devices() == ()
    await world.kernel.nbd.disconnect(device)


async def test_two_connections_are_two_devices(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    served = await world.serve(disk)
    other = replace(PATH, network=1)
    first, second = await connect(world, served), await connect(world, served, other)
    assert first != second
    paths = {device.device: device.path for device in await world.kernel.nbd.devices()}
    assert paths == {first: PATH, second: other}
    await world.kernel.nbd.disconnect(first)
    await world.write(second, 0, BLOCK)


async def test_nobody_there(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    served = await world.serve(disk)
    await world.kill_server(served)
    with pytest.raises(UnreachableError):
        await connect(world, served)
    assert await world.kernel.nbd.devices() == ()


@BOTH
async def test_no_such_export(world: World, encryption: Encryption) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    served = await world.serve(disk, encryption)
    with pytest.raises(NotFoundError):
        await connect(world, replace(served, export_name="another"))
    assert await world.kernel.nbd.devices() == ()


async def test_protection_that_differs_is_denied(world: World) -> None:
    first, second = await world.make_legs(2, SIZE)
    plain = await world.serve(first)
    with pytest.raises(DeniedError):
        await connect(world, replace(plain, encryption=Encryption.TLS))
    protected = await world.serve(second, Encryption.TLS)
    with pytest.raises(DeniedError):
        await connect(world, replace(protected, encryption=Encryption.NONE))


async def test_another_server_than_expected_is_denied(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    served = await world.serve(disk, Encryption.TLS)
    with pytest.raises(DeniedError, match="store9"):
        await connect(world, replace(served, server=NodeId("store9")))


@BOTH
async def test_a_dead_server_is_noticed_and_held(world: World, encryption: Encryption) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    served = await world.serve(disk, encryption)
    device = await connect(world, served)
    leg = await world.kernel.dm.ensure_leg(LEG, (device,), SIZE)
    await world.write(leg, 0, BLOCK)
    await world.kill_server(served)
    await until_dead(world, device)
    write = asyncio.ensure_future(world.write(leg, MIB, BLOCK))
    done, _ = await asyncio.wait([write], timeout=3)
    assert not done
    status = await world.kernel.dm.leg_status(LEG)
    assert status.paths == ((device.removeprefix("/dev/"), PathCondition.FAILED),)
    # The server returns: a new connection, another device, the leg's new path.
    served = await world.serve(disk, encryption)
    fresh = await connect(world, served)
    assert fresh != device
    assert await world.kernel.dm.ensure_leg(LEG, (fresh,), SIZE) == leg
    await asyncio.wait_for(write, 10)
    assert await world.read(disk, MIB, 4096) == BLOCK
    await world.kernel.nbd.disconnect(device)
    assert await world.kernel.nbd.devices() == (NbdDevice(fresh, PATH, alive=True),)


async def test_disconnected_under_a_leg_is_held(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    device = await connect(world, await world.serve(disk))
    leg = await world.kernel.dm.ensure_leg(LEG, (device,), SIZE)
    await world.kernel.nbd.disconnect(device)
    assert [d for d in await world.kernel.nbd.devices() if d.alive] == []
    write = asyncio.ensure_future(world.write(leg, MIB, BLOCK))
    done, _ = await asyncio.wait([write], timeout=2)
    assert not done
    await world.kernel.dm.release_leg(LEG)
    with pytest.raises(OSError):
        await asyncio.wait_for(write, 10)
    await world.kernel.dm.remove(LEG.dm_name())
    await world.kernel.nbd.disconnect(device)
    assert await world.kernel.nbd.devices() == ()


async def test_an_error_of_a_live_server_fails_the_path_only(world: World) -> None:
    (disk,) = await world.make_legs(1, SIZE)
    device = await connect(world, await world.serve(disk))
    leg = await world.kernel.dm.ensure_leg(LEG, (device,), SIZE)
    await world.fail_path(disk)
    write = asyncio.ensure_future(world.write(leg, MIB, BLOCK))
    done, _ = await asyncio.wait([write], timeout=2)
    assert not done
    assert await alive(world, device)
    (path,) = (await world.kernel.dm.leg_status(LEG)).paths
    assert path[1] is PathCondition.FAILED
    await world.kernel.dm.release_leg(LEG)
    with pytest.raises(OSError):
        await asyncio.wait_for(write, 10)
