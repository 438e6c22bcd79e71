"""Where the exports' contract is tried: an Exports, devices to serve, and a head that connects.

Whoever writes another Exports adds a world of his own here and names it in WORLDS. In a guest of
the lab (VASTSKY_CONTRACT_WORLD=lab) it is the shipped unit under the real systemd.
"""

import asyncio
import glob
import importlib
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

from tests.exports.authority import Authority
from tests.exports.nbd_client import NbdClient, RefusedError
from tests.exports.systemd import UNIT, ChildSystemd
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Encryption
from vastskyd.exports.qsd import QemuExports
from vastskyd.kernel.process import run
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
        self.exports = QemuExports(self._run / "vastsky", self._run / "credentials", self.systemd)
        return self.exports

    async def crash(self, head: NodeId) -> None:
        await self.systemd.stop(f"vastsky-export@{head}.service", kill=True)

    async def down(self) -> None:
        for client in self._clients:
            client.close()
        await self.systemd.stop_all()


class SystemdWorld(QemuWorld):
    """The shipped unit, started by the systemd of a lab's guest, over device-mapper devices."""

    def __init__(self, devices: tuple[str, ...]) -> None:
        super().__init__(Path("/run"), devices, ())
        shutil.rmtree("/run/vastsky/tls", ignore_errors=True)
        self.authority = Authority(Path("/run/vastsky/tls"))
        self.authority.issue("store1", "server")

    def restarted(self) -> Exports:
        self.exports = QemuExports(Path("/run/vastsky"), Path("/run/credentials"), run)
        return self.exports

    async def crash(self, head: NodeId) -> None:
        await run(("systemctl", "kill", "--signal=KILL", f"vastsky-export@{head}.service"), 10)
        state = ("systemctl", "is-active", f"vastsky-export@{head}.service")
        for _ in range(100):
            if (await run(state, 10, ok=(0, 3))).output.strip() == "failed":
                return
            await asyncio.sleep(0.1)
        raise AssertionError("systemd did not notice")

    async def down(self) -> None:
        await super().down()
        for head in await self.exports.servers():
            await self.exports.stop_server(head)


@asynccontextmanager
async def systemd_world() -> AsyncIterator[SystemdWorld]:
    """Needs a guest with a spare NVMe disk; installs the unit for this boot."""
    await run(("cp", str(UNIT), "/run/systemd/system/"), 10)
    await run(("systemctl", "daemon-reload"), 30)
    disk = sorted(glob.glob("/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_*-d?"))[0]
    names = [f"vastsky-contract-{number}" for number in range(2)]
    for number, name in enumerate(names):
        table = f"0 {DEVICE_BYTES // 512} linear {disk} {number * DEVICE_BYTES // 512}"
        uuid = f"VASTSKY-EXTENT-{number:016x}"
        await run(("dmsetup", "create", name, "--uuid", uuid, "--table", table), 10)
    world = SystemdWorld(tuple(f"/dev/mapper/{name}" for name in names))
    try:
        yield world
    finally:
        await world.down()
        for name in names:
            await run(("dmsetup", "remove", "--retry", name), 30)


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


def fake_world() -> AbstractAsyncContextManager[ExportsWorld]:
    """The simulation's."""
    # By name: a guest has no tests.sim.
    simulated = importlib.import_module("tests.sim.contract_world")
    made: AbstractAsyncContextManager[ExportsWorld] = simulated.make_exports_world()
    return made


IN_LAB = os.environ.get("VASTSKY_CONTRACT_WORLD") == "lab"
WORLDS: dict[str, Callable[[], AbstractAsyncContextManager[ExportsWorld]]] = (
    {"systemd": systemd_world} if IN_LAB else {"qemu": qemu_world, "fake": fake_world}
)
