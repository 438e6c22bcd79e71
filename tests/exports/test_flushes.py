"""What an export server has answered is on the disk, not in the disk's cache."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.contract.exports_world import QemuWorld, qemu_world
from tests.exports.nbd_client import NbdClient
from tests.kernel.loops import flushes
from vastskyd.core.ids import ExtentId, NodeId
from vastskyd.ports import Export

HEAD = NodeId("head1")
EXPORT = Export(HEAD, ExtentId("1" * 16), 3, "1" * 16 + "-" + "a" * 32)
HAS_FLUSH = 1 << 2


@pytest.fixture
async def world() -> AsyncIterator[QemuWorld]:
    async with qemu_world() as found:
        yield found


async def test_what_was_answered_is_durable(world: QemuWorld) -> None:
    """Asked for or not: else a host that lost its power and is back before anybody has missed it
    lacks writes that md takes for written there, and that a flush is then answered for."""
    server, disk = world.server(HEAD), world.devices()[0]
    await world.exports.ensure_server(server)
    await world.exports.add(EXPORT, disk)
    client = NbdClient(server.port, EXPORT.name)
    for number in range(3):
        before = flushes(disk)
        await asyncio.to_thread(client.write, number * 4096, b"y" * 4096)
        assert flushes(disk) > before
    client.close()
    await world.exports.remove(HEAD, EXPORT.extent)


async def test_a_head_may_flush(world: QemuWorld) -> None:
    server, disk = world.server(HEAD), world.devices()[0]
    await world.exports.ensure_server(server)
    await world.exports.add(EXPORT, disk)
    client = NbdClient(server.port, EXPORT.name)
    assert client.flags & HAS_FLUSH, "the kernel sends none to a server that does not say so"
    await asyncio.to_thread(client.flush)
    client.close()
    await world.exports.remove(HEAD, EXPORT.extent)
