"""A head's flush reaches the storage host's disk, and a write that was not flushed costs none."""

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


async def test_a_heads_flush_is_the_disks(world: QemuWorld) -> None:
    server, disk = world.server(HEAD), world.devices()[0]
    await world.exports.ensure_server(server)
    await world.exports.add(EXPORT, disk)
    client = NbdClient(server.port, EXPORT.name)
    assert client.flags & HAS_FLUSH, "the kernel sends none to a server that does not say so"
    await asyncio.to_thread(client.write, 1 << 20, b"x" * 4096)
    before = flushes(disk)
    for number in range(3):
        await asyncio.to_thread(client.write, number * 4096, b"y" * 4096)
        await asyncio.to_thread(client.flush)
        assert flushes(disk) > before
        before = flushes(disk)
    client.close()
    await world.exports.remove(HEAD, EXPORT.extent)
