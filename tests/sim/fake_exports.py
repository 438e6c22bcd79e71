"""Export servers: processes of a storage host. They outlive vastskyd and not the power.

Implements ports.Exports.
"""

import asyncio
from typing import TYPE_CHECKING

from tests.sim.blocks import Bio, Block, Op
from tests.sim.faults import Door
from vastskyd.core.errors import ConflictError, DeviceError, NotFoundError, UnreachableError
from vastskyd.core.ids import ExtentId, NodeId
from vastskyd.core.model import Encryption
from vastskyd.ports import Export, ExportServer

if TYPE_CHECKING:
    from tests.sim.fake_kernel import FakeHost

ENDED_LOOK_S = 60.0
DRAIN_TIMEOUT_S = 10.0


class Served:
    """One export as it runs. Once `closed`, nothing reaches `block` through it, for ever."""

    def __init__(self, host: "FakeHost", export: Export, block: Block) -> None:
        self.host = host
        self.export = export
        self.block = block
        self.closed = False
        self._label = f"opened by qemu-storage-daemon for {export.head}"
        block.open(self._label)

    async def submit(self, bio: Bio) -> object:
        """One step that nothing divides: see DiskBlock. What is written is durable when it is
        answered, as the real servers are told."""
        result = await self.block.submit(bio)
        if bio.op is Op.WRITE:
            await self.block.submit(Bio(Op.FLUSH, 0))
        return result

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.block.close(self._label)


class ServerProcess:
    def __init__(self, spec: ExportServer) -> None:
        self.head = spec.head
        self.port = spec.port
        self.addresses: tuple[str, ...] = spec.addresses
        self.encryption: Encryption = spec.encryption
        self.exports: dict[ExtentId, Served] = {}

    def die(self) -> None:
        for served in self.exports.values():
            served.close()
        self.exports.clear()


class FakeExports:
    """ports.Exports of one host."""

    def __init__(self, host: "FakeHost", door: Door) -> None:
        self._host = host
        self._kernel = host.kernel
        self._door = door

    async def exports(self) -> tuple[Export, ...]:
        async with self._door.step("exports.exports"):
            return tuple(
                served.export
                for server in self._host.servers.values()
                for served in server.exports.values()
            )

    async def servers(self) -> tuple[NodeId, ...]:
        async with self._door.step("exports.servers"):
            return tuple(self._host.servers)

    async def running(self) -> tuple[ExportServer, ...]:
        async with self._door.step("exports.running"):
            return tuple(
                ExportServer(server.head, server.port, server.addresses, server.encryption)
                for server in self._host.servers.values()
            )

    async def ensure_server(self, server: ExportServer) -> None:
        """Another port or encryption means a new process; new addresses do not."""
        async with self._door.step("exports.ensure_server"):
            await self._kernel.latency()
            old = self._host.servers.get(server.head)
            if old is not None and (old.port, old.encryption) == (server.port, server.encryption):
                old.addresses = server.addresses
                return
            if any(
                process.port == server.port and process.head != server.head
                for process in self._host.servers.values()
            ):
                raise DeviceError(f"port {server.port} is in use")
            self._host.kill_export_server(server.head, asked=True)
            self._host.servers[server.head] = ServerProcess(server)

    async def stop_server(self, head: NodeId) -> None:
        async with self._door.step("exports.stop_server"):
            await self._kernel.latency()
            self._host.kill_export_server(head, asked=True)

    async def add(self, export: Export, device: str) -> None:
        async with self._door.step("exports.add"):
            await self._kernel.latency()
            for running in (
                served.export
                for process in self._host.servers.values()
                for served in process.exports.values()
                if served.export.extent == export.extent
            ):
                if running == export:
                    return
                raise ConflictError(
                    f"{export.extent} is served to {running.head} at epoch {running.epoch}"
                )
            server = self._host.servers.get(export.head)
            if server is None:
                raise DeviceError(f"no export server runs for {export.head}")
            try:
                block = self._kernel.find(device)
            except NotFoundError as error:  # QEMU has one class of errors
                raise DeviceError(f"could not open {device}") from error
            server.exports[export.extent] = Served(self._host, export, block)

    async def remove(self, head: NodeId, extent: ExtentId) -> None:
        async with self._door.step("exports.remove"):
            await self._kernel.latency()
            server = self._host.servers.get(head)
            served = None if server is None else server.exports.get(extent)
            if server is None or served is None:
                return
            served.close()
            self._host.network.changed.fire()
            await self._drained(served)
            server.exports.pop(extent, None)

    async def _drained(self, served: Served) -> None:
        """QEMU lets go of a device once what the disk has taken is answered."""
        if left := served.block.in_flight():
            _, left = await asyncio.wait(left, timeout=DRAIN_TIMEOUT_S)
        if left:
            why = f"the server for {served.export.head} does not answer"
            raise UnreachableError(why)

    async def ended(self) -> NodeId:
        while not self._host.servers_ended:
            await self._host.network.changed.wait_for(ENDED_LOOK_S)
            self._door.check()
        head = next(iter(self._host.servers_ended))
        del self._host.servers_ended[head]
        return head
