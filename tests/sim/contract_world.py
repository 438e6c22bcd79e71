"""The simulation's worlds for the contract suites of tests/contract.

A grain of the fakes holds one number, and the suites read and write bytes: here a number stands
for all the bytes of a grain.
"""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from tests.contract.world import Served
from tests.sim.blocks import Bio, Block, IoError, Op, Patch, pieces
from tests.sim.fake_array import FakeArray
from tests.sim.fake_disks import DiskBlock, FakeMedia
from tests.sim.fake_dm import DmBlock
from tests.sim.fake_kernel import UDEV_S, FakeHost
from tests.sim.world import World
from tests.sim.write_cache import WriteCache
from vastskyd.core.documents import Endpoint
from vastskyd.core.errors import NotFoundError, UnreachableError
from vastskyd.core.ids import ExtentId, NodeId, VolumeId
from vastskyd.core.model import Encryption, Role
from vastskyd.core.names import LegName, PathName
from vastskyd.core.ondisk_layout import SLOT_OFFSETS_BYTES
from vastskyd.core.units import MIB
from vastskyd.ports import Disks, Export, Exports, ExportServer, Kernel, Smart

SEED = 1
HEAD = NodeId("head1")
PORT = 10900
DISK_BYTES = 16 * MIB
EXPORT = Export(HEAD, ExtentId("00000000000000ff"), 1, "the-export")


class SimWorld:
    """A head with disks of its own for legs; each server on a host of its own, to which the disk
    that it serves is attached as well."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pids = 4711
        self._host = self._world.add_host(HEAD, Role.HEAD)
        ports = self._world.ports(HEAD)
        self.kernel: Kernel = ports.kernel
        self.disks: Disks = ports.disks
        self.smart: Smart = ports.smart
        self._contents = world.contents
        self._servers: dict[str, FakeHost] = {}
        self._disks_made = 0

    # --- devices ---------------------------------------------------------------------------

    async def make_legs(self, count: int, size_bytes: int) -> tuple[str, ...]:
        return tuple(self._new_disk(size_bytes).path for _ in range(count))

    async def make_disk(self, size_bytes: int) -> str:
        disk = self._new_disk(size_bytes)
        await asyncio.sleep(2 * UDEV_S)
        return disk.stable_path

    async def make_smart_disk(self) -> str:
        return await self.make_disk(DISK_BYTES)

    async def no_disk(self, leg: str) -> str:
        name = LegName(VolumeId("0" * 24), 0, ExtentId("00000000000000fe"), 1)
        return await self.kernel.dm.ensure_leg(name, (leg,), DISK_BYTES // 2)

    def _new_disk(self, size_bytes: int) -> DiskBlock:
        self._disks_made += 1
        media = FakeMedia(f"disk-{self._disks_made}", size_bytes, cache=WriteCache())
        self._host.insert(media)
        return _block_of(self._host, media)

    async def fail_path(self, device: str) -> None:
        self._media(device).failed = True

    async def mend_path(self, device: str) -> None:
        self._media(device).failed = False

    async def put_filesystem(self, path: str) -> None:
        self._media(path).found = "ext4 filesystem"

    def _media(self, device: str) -> FakeMedia:
        block = self._host.kernel.find(device)
        if not isinstance(block, DiskBlock):
            raise TypeError(f"{device} is no disk")
        return block.media

    # --- servers ---------------------------------------------------------------------------

    async def serve(self, device: str, encryption: Encryption = Encryption.NONE) -> Served:
        media = self._media(device)
        store = self._servers.get(device) or self._new_server(device, media)
        exports = self._world.ports(store.name).exports
        addresses = self._host.addresses
        await exports.ensure_server(ExportServer(HEAD, PORT, addresses, encryption))
        await exports.add(EXPORT, _block_of(store, media).path)
        endpoint = Endpoint(network=0, address=store.addresses[0], port=PORT)
        return Served(endpoint, EXPORT.name, encryption, store.node, addresses[0], media.size_bytes)

    def _new_server(self, device: str, media: FakeMedia) -> FakeHost:
        store = self._world.add_host(f"store{len(self._servers) + 1}", Role.STORAGE)
        store.insert(media)
        self._servers[device] = store
        return store

    async def kill_server(self, served: Served) -> None:
        self._world.hosts[served.server].kill_export_server(HEAD)

    # --- programs --------------------------------------------------------------------------

    async def write(self, device: str, offset_bytes: int, content: bytes) -> None:
        done = 0
        for grain, at, length in pieces(offset_bytes, len(content)):
            piece = content[done : done + length]
            patch = Patch(partial(self._contents.patched, at, piece))
            await self._io(device, Bio(Op.WRITE, grain, patch))
            done += length

    async def read(self, device: str, offset_bytes: int, length_bytes: int) -> bytes:
        found = bytearray()
        for grain, at, length in pieces(offset_bytes, length_bytes):
            number = await self._io(device, Bio(Op.READ, grain))
            if not isinstance(number, int):
                raise TypeError(f"grain {grain} reads as {number!r}")
            found += self._contents.of(number)[at : at + length]
        block = self._host.kernel.find(device)
        if isinstance(block, DiskBlock):
            _show_slots(block.media, offset_bytes, found)
        return bytes(found)

    async def flush(self, device: str) -> None:
        await self._io(device, Bio(Op.FLUSH, 0))

    async def flushes(self, device: str) -> int:
        cache = self._media(device).cache
        return 0 if cache is None else cache.flushes

    async def _io(self, device: str, bio: Bio) -> object:
        """As an application has it: an error number."""
        try:
            return await self._host.user_io(self._host.kernel.find(device), bio)
        except IoError as error:
            raise OSError(errno.EIO, str(error)) from error
        except NotFoundError as error:
            raise OSError(errno.ENOENT, str(error)) from error

    @asynccontextmanager
    async def opened(self, device: str, *, to_write: bool = False) -> AsyncIterator["FakeProgram"]:
        block = self._host.kernel.find(device)
        self._pids += 1
        program = FakeProgram(block, self._pids)
        if to_write and isinstance(block, DmBlock):
            block.programs[f"python3 (pid {self._pids})"] = program.end
        try:
            yield program
        finally:
            program.end()

    async def leave_frozen(self, array: str) -> None:
        found = self._host.kernel.find(array)
        assert isinstance(found, FakeArray)
        await found.freeze()

    async def leave_unmade(self) -> str:
        kernel = self._host.kernel
        array = FakeArray(kernel, "md400", "0" * 32, 0, 2)
        array.running = False
        kernel.blocks[array.name] = array
        return array.path

    async def is_array(self, device: str) -> bool:
        return self._host.kernel.has(device)

    async def mount(self, device: str) -> None:
        self._host.kernel.find(device).open(f"mounted on /run/{device}")


class FakeProgram:
    def __init__(self, block: Block, pid: int) -> None:
        self._block = block
        self._label = f"opened by python3 (pid {pid})"
        block.open(self._label)

    def lives(self) -> bool:
        return self._label in self._block.users

    def end(self) -> None:
        if self.lives():
            self._block.close(self._label)


def _block_of(host: FakeHost, media: FakeMedia) -> DiskBlock:
    blocks = (block for block in host.kernel.blocks.values() if isinstance(block, DiskBlock))
    return next(block for block in blocks if block.media is media)


def _show_slots(media: FakeMedia, offset_bytes: int, content: bytearray) -> None:
    """The fakes keep a disk's slots apart from its grains."""
    for start, slot in zip(SLOT_OFFSETS_BYTES, media.slots, strict=True):
        low = max(start, offset_bytes)
        high = min(start + len(slot), offset_bytes + len(content))
        if low < high:
            content[low - offset_bytes : high - offset_bytes] = slot[low - start : high - start]


class Connection:
    """A head's NBD device."""

    def __init__(self, host: FakeHost, device: str) -> None:
        self._host = host
        self._device = device

    async def alive(self) -> bool:
        try:
            await self._host.user_io(self._host.kernel.find(self._device), Bio(Op.READ, 0))
        except (IoError, NotFoundError):
            return False
        return True


class SimExportsWorld:
    """A storage host, and the heads as hosts that connect to it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store = world.add_host("store1", Role.STORAGE, disks=2)
        self._connections = 0
        self.exports: Exports = self.restarted()

    def devices(self) -> tuple[str, ...]:
        return tuple(_block_of(self._store, media).path for media in self._store.media)

    def server(self, head: NodeId) -> ExportServer:
        if head not in self._world.hosts:
            self._world.add_host(head, Role.HEAD)
        host = self._world.hosts[head]
        port = PORT + list(self._world.hosts).index(head)
        return ExportServer(head, port, host.addresses, Encryption.NONE)

    async def connect(self, server: ExportServer, name: str) -> Connection | None:
        self._connections += 1
        nbd = self._world.ports(server.head).kernel.nbd
        endpoint = Endpoint(network=0, address=self._store.addresses[0], port=server.port)
        # An identifier of its own: each time a new connection is asked for.
        path = PathName(EXPORT.extent, self._connections, 0)
        try:
            device = await nbd.connect(
                path, endpoint, name, server.encryption, self._store.node, server.addresses[0]
            )
        except (UnreachableError, NotFoundError):
            return None
        return Connection(self._world.hosts[server.head], device)

    def restarted(self) -> Exports:
        self.exports = self._world.ports(self._store.name).exports
        return self.exports

    async def crash(self, head: NodeId) -> None:
        self._store.kill_export_server(head)


@asynccontextmanager
async def powered() -> AsyncIterator[World]:
    """Ends with the power of all hosts, and nothing of them goes on."""
    before = asyncio.all_tasks()
    world = World(SEED)
    try:
        yield world
    finally:
        for host in world.hosts.values():
            host.power_cut()
        if left := asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.wait(left)


@asynccontextmanager
async def make_world() -> AsyncIterator[SimWorld]:
    async with powered() as world:
        yield SimWorld(world)


@asynccontextmanager
async def make_exports_world() -> AsyncIterator[SimExportsWorld]:
    async with powered() as world:
        yield SimExportsWorld(world)
