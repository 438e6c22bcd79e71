"""Kernel NBD: connections to the exports of other hosts. Implements ports.Nbd.

A link is seen dead at once when the server's host says so, and after LINK_DEAD_S when nothing is
heard; I/O on it fails DEAD_CONNECTION_S later. A link never comes back.
"""

import asyncio
from typing import TYPE_CHECKING

from tests.sim.blocks import Bio, Block, IoError
from tests.sim.faults import Door
from tests.sim.loop import Signal
from vastskyd.core.documents import Endpoint
from vastskyd.core.errors import DeniedError, NotFoundError, UnreachableError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Encryption
from vastskyd.core.names import PathName
from vastskyd.ports import NbdDevice

if TYPE_CHECKING:
    from tests.sim.fake_exports import Served
    from tests.sim.fake_kernel import FakeHost

CONNECT_TIMEOUT_S = 3.0
LINK_DEAD_S = 1.6
DEAD_CONNECTION_S = 1.0


class NbdBlock(Block):
    """`alive` until the link was seen dead; `failed` once its I/O fails; `connected` until
    disconnected: then it is only shown, as long as somebody has it open."""

    def __init__(
        self, host: "FakeHost", name: str, path_name: PathName, served: "Served", network: int
    ) -> None:
        super().__init__(host.kernel, name, served.block.size_bytes)
        self.path_name = path_name
        self.connected = True
        self.alive = True
        self.failed = False
        self._served = served
        self._host = host
        self._network = network
        self._changed = Signal()
        self._shown = NbdDevice(self.path, path_name, True)
        self._watcher = self.kernel.spawn(self._watch())

    def shown(self) -> NbdDevice:
        """Made anew only after a change."""
        if self._shown.alive is not self.alive:
            self._shown = NbdDevice(self.path, self.path_name, self.alive)
        return self._shown

    def _reachable(self) -> bool:
        server = self._served.host
        net = self._host.network
        return server.powered and net.data_ok(self._host.name, server.name, self._network)

    async def submit(self, bio: Bio) -> object:
        if not self.connected or self.failed:
            raise IoError(f"{self.name}: not connected")
        await self.kernel.latency()
        await self._until_through()
        if self._served.closed:
            raise IoError(f"{self.name}: the export is gone")
        result = await self._served.submit(bio)
        await self.kernel.latency()
        await self._until_through()
        return result

    async def _until_through(self) -> None:
        """The network passes, or IoError. What is on its way when a link dies is lost."""
        while True:
            if not self.connected or self.failed:
                raise IoError(f"{self.name}: connection lost")
            if self.alive and self._reachable() and not self._served.closed:
                return
            await self._changed.wait()

    async def _watch(self) -> None:
        net = self._host.network
        while self.alive:
            if self._reachable():
                if self._served.closed:
                    break
                await net.changed.wait()
                self._changed.fire()
            elif not await self._back_within(LINK_DEAD_S):
                break
        self.alive = False
        self._changed.fire()
        self.kernel.notify()
        await asyncio.sleep(DEAD_CONNECTION_S)
        self.failed = True
        self._changed.fire()

    async def _back_within(self, limit_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + limit_s
        while loop.time() < deadline_s:
            await self._host.network.changed.wait_for(deadline_s - loop.time())
            if self._reachable():
                self._changed.fire()
                return True
        return False

    def disconnect(self) -> None:
        self.connected = False
        self.alive = False
        self.size_bytes = 0
        self._watcher.cancel()
        self._changed.fire()
        self.kernel.notify()
        self.forget_if_unused()

    def close(self, by: str) -> None:
        super().close(by)
        self.forget_if_unused()

    def forget_if_unused(self) -> None:
        if not self.connected and not self.users:
            self.kernel.blocks.pop(self.name, None)


class FakeNbd:
    """ports.Nbd."""

    def __init__(self, host: "FakeHost", door: Door) -> None:
        self._host = host
        self._kernel = host.kernel
        self._door = door

    async def devices(self) -> tuple[NbdDevice, ...]:
        async with self._door.step("nbd.devices"):
            blocks = self._kernel.blocks.values()
            return tuple([block.shown() for block in blocks if isinstance(block, NbdBlock)])

    async def connect(
        self,
        path: PathName,
        endpoint: Endpoint,
        export_name: str,
        encryption: Encryption,
        server: NodeId,
        source_address: str,
    ) -> str:
        """The same path connected and alive already: that device."""
        async with self._door.step("nbd.connect"):
            for block in self._kernel.blocks.values():
                if isinstance(block, NbdBlock) and block.path_name == path and block.alive:
                    return block.path
            await self._kernel.latency()
            served = await self._find(endpoint, export_name, encryption, server, source_address)
            name = self._kernel.free_name("nbd")
            device = NbdBlock(self._host, name, path, served, endpoint.network)
            self._kernel.blocks[name] = device
            self._kernel.notify()
            return device.path

    async def _find(
        self,
        endpoint: Endpoint,
        export_name: str,
        encryption: Encryption,
        server: NodeId,
        source_address: str,
    ) -> "Served":
        net = self._host.network
        where = f"{endpoint.address}:{endpoint.port}"
        if source_address not in self._host.addresses:
            raise UnreachableError(f"{source_address} is not an address of this host")
        target = net.host_at(endpoint.address)
        network = endpoint.network
        if (
            target is None
            or not target.powered
            or target.addresses.index(endpoint.address) != network
            or not net.data_ok(self._host.name, target.name, network)
        ):
            await asyncio.sleep(CONNECT_TIMEOUT_S)
            raise UnreachableError(f"{where} does not answer")
        process = next((s for s in target.servers.values() if s.port == endpoint.port), None)
        if process is None:
            raise UnreachableError(f"{where} refuses the connection")
        if source_address not in process.addresses or encryption is not process.encryption:
            raise DeniedError(f"{where} does not admit {source_address}")
        if encryption is Encryption.TLS:
            if target.name != server:
                raise DeniedError(f"{where} is {target.name}, not {server}")
            if process.head != self._host.name:
                raise DeniedError(f"{where} serves {process.head}, not {self._host.name}")
        for served in process.exports.values():
            if served.export.name == export_name:
                return served
        raise NotFoundError(f"{where} has no export {export_name}")

    async def disconnect(self, device: str) -> None:
        async with self._door.step("nbd.disconnect"):
            block = self._kernel.blocks.get(device.removeprefix("/dev/"))
            if isinstance(block, NbdBlock) and block.connected:
                block.disconnect()
