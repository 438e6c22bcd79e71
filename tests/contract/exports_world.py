"""Where the exports' contract is tried: an Exports, devices to serve, and a head that connects.

Whoever writes another Exports adds a world of his own here and names it in WORLDS.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.exports.nbd_client import NbdClient, RefusedError
from tests.exports.systemd import ChildSystemd
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Encryption
from vastskyd.exports.qsd import QemuExports
from vastskyd.ports import Exports, ExportServer

DEVICE_BYTES = 8 << 20


class Connection(Protocol):
    """A head's open connection to an export."""

    async def alive(self) -> bool:
        """Does a request still get an answer?"""


class ExportsWorld(Protocol):
    exports: Exports

    def devices(self) -> tuple[str, ...]:
        """Two block devices of this host, at least."""

    def server(self, head: NodeId) -> ExportServer:
        """A server that this host can run for the head."""

    async def connect(self, server: ExportServer, name: str) -> Connection | None:
        """None: the server does not let the head have an export of that name."""

    def restarted(self) -> Exports:
        """The exports as a vastskyd that was just started has them; `exports` from now on."""

    async def crash(self, head: NodeId) -> None:
        """The head's server is killed."""


class _Client:
    def __init__(self, client: NbdClient) -> None:
        self._client = client

    async def alive(self) -> bool:
        try:
            await asyncio.to_thread(self._client.read, 0, 4096)
        except (RefusedError, OSError):
            self._client.close()
            return False
        return True

    def close(self) -> None:
        self._client.close()


class QemuWorld:
    """The real qemu-storage-daemon, run as the shipped unit says, over loop devices."""

    def __init__(self, run: Path, devices: tuple[str, ...], binary: tuple[str, ...]) -> None:
        self._run = run
        self._devices = devices
        self._ports: dict[NodeId, int] = {}
        self._clients: list[_Client] = []
        self.systemd = ChildSystemd(run, binary)
        self.exports: Exports = self.restarted()

    def devices(self) -> tuple[str, ...]:
        return self._devices

    def server(self, head: NodeId) -> ExportServer:
        port = self._ports.setdefault(head, free_port())
        return ExportServer(head, port, ("127.0.0.1",), Encryption.NONE)

    async def connect(self, server: ExportServer, name: str) -> Connection | None:
        try:
            client = _Client(await asyncio.to_thread(NbdClient, server.port, name))
        except (RefusedError, OSError):
            return None
        self._clients.append(client)
        return client

    def restarted(self) -> Exports:
        self.exports = QemuExports(self._run / "vastsky", self._run / "tls", self.systemd)
        return self.exports

    async def crash(self, head: NodeId) -> None:
        await self.systemd.stop(f"vastsky-export@{head}.service", kill=True)

    async def down(self) -> None:
        for client in self._clients:
            client.close()
        await self.systemd.stop_all()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _loop_device(directory: Path, number: int) -> str:
    image = directory / f"disk{number}"
    image.write_bytes(b"")
    os.truncate(image, DEVICE_BYTES)
    return subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()


def _detach(loops: list[str]) -> None:
    for loop in loops:
        subprocess.run(["losetup", "--detach", loop], check=True)


@asynccontextmanager
async def qemu_world() -> AsyncIterator[QemuWorld]:
    # VASTSKY_QSD: another qemu-storage-daemon's command line, to try several versions.
    binary = tuple(os.environ.get("VASTSKY_QSD", "qemu-storage-daemon").split())
    if shutil.which(binary[0]) is None:
        pytest.skip("needs qemu-storage-daemon (qemu-utils or qemu-system-common)")
    if os.geteuid() != 0 or not os.access("/dev/loop-control", os.W_OK):
        pytest.skip("needs root and loop devices")
    loops: list[str] = []
    # pytest's own directories are longer than a socket's name may be.
    with tempfile.TemporaryDirectory(prefix="vastsky") as name:
        try:
            loops += [_loop_device(Path(name), number) for number in range(2)]
            world = QemuWorld(Path(name), tuple(loops), binary)
            try:
                yield world
            finally:
                await world.down()
        finally:
            _detach(loops)


WORLDS: dict[str, Callable[[], AbstractAsyncContextManager[ExportsWorld]]] = {"qemu": qemu_world}
