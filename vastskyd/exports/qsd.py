"""ports.Exports by qemu-storage-daemon: one process, one systemd unit, per head.

vastskyd remembers nothing of them: what runs is seen by its socket, what is served is asked by QMP.
The processes outlive vastskyd.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Protocol

from vastskyd.core.errors import (
    ConflictError,
    DamagedError,
    DeviceError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from vastskyd.core.ids import ExtentId, NodeId, node_id
from vastskyd.core.names import export_unit
from vastskyd.exports import commands
from vastskyd.exports.deaths import Deaths
from vastskyd.exports.qmp import Qmp, QmpError, connect, listening, listens
from vastskyd.ports import Export, ExportServer

QMP_TIMEOUT_S = 5.0
START_TIMEOUT_S = 10.0

# systemd kills what does not stop in the unit's TimeoutStopSec.
STOP_TIMEOUT_S = 45.0

# How long requests that a cut export had accepted may take to leave the disk.
DRAIN_TIMEOUT_S = 10.0

# udev has as long to make a volume's link.
OPEN_TIMEOUT_S = 10.0
_POLL_S = 0.02


class Runner(Protocol):
    """Runs a command to its end; DeviceError if it fails or takes longer."""

    def __call__(self, argv: tuple[str, ...], timeout_s: float, /) -> Awaitable[object]: ...


class QemuExports:
    """The export servers of this host.

    `runtime_dir` is /run/vastsky, where each server has a directory, which is there while its unit
    runs. `credentials_dir` is /run/credentials, where systemd gives each its unit's copy of this
    host's ca-cert.pem, server-cert.pem, server-key.pem and dh-params.pem.
    """

    def __init__(self, runtime_dir: Path, credentials_dir: Path, run: Runner) -> None:
        self._directories = runtime_dir / "export"
        self._credentials_dir = credentials_dir
        self._run = run
        self._heads: defaultdict[NodeId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._adding = asyncio.Lock()
        self._deaths = Deaths()

    # --- seeing ---------------------------------------------------------------------------

    async def servers(self) -> tuple[NodeId, ...]:
        """Heads that a server process is there for, even one that no longer answers."""
        return tuple(self._running())

    async def running(self) -> tuple[ExportServer, ...]:
        settings = [await self._settings(head) for head in await self.servers()]
        return tuple(each for each in settings if each is not None)

    async def exports(self) -> tuple[Export, ...]:
        """Of all running servers. UnreachableError: one of them does not answer in time."""
        found: list[Export] = []
        for head in self._running():
            with contextlib.suppress(NotFoundError):  # its process has ended since
                found += await self._exports_of(head)
        return tuple(found)

    def _running(self) -> list[NodeId]:
        """By the kernel's list: a socket's file can be removed, and its server serves on."""
        ours = {path for path in listening() if path.match(str(self._directories / "*" / "qmp"))}
        return sorted(_head_of(path) for path in ours)

    async def _exports_of(self, head: NodeId) -> tuple[Export, ...]:
        async with self._server(head) as qmp:
            answer = await qmp.execute("query-block-exports", QMP_TIMEOUT_S)
        return commands.read_exports(head, answer)

    # --- servers --------------------------------------------------------------------------

    async def ensure_server(self, server: ExportServer) -> None:
        """A server with these settings. Another port or encryption: it is replaced, and what it
        served has to be added again. Other addresses: they are admitted at once.

        QEMU checks the certificate, systemd's packet filter the address."""
        running = await self._settings(server.head)
        if running == server:
            return
        if running is not None and _same_listener(running, server):
            await self._admit(server)
            async with self._server(server.head) as qmp:
                await qmp.execute("object-del", QMP_TIMEOUT_S, id=commands.SETTINGS_ID)
                await _say(qmp, commands.write_settings(server))
            return
        await self.stop_server(server.head)
        await self._admit(server)
        await self._start(server)

    async def stop_server(self, head: NodeId) -> None:
        """Gone, with all its exports: when it returns the process has ended."""
        self._deaths.forget(head)
        await self._run(("systemctl", "stop", export_unit(head)), STOP_TIMEOUT_S)
        if listens(self._socket(head)):
            raise DeviceError(
                f"the export server for {head} is still there after {export_unit(head)} stopped",
                hint=f"find who holds {self._socket(head)} with `ss -xlp`, and end it",
            )

    async def _settings(self, head: NodeId) -> ExportServer | None:
        """None: no server runs, or one to be replaced: stuck, or not set up to its end."""
        try:
            async with self._server(head) as qmp:
                text = await qmp.execute(
                    "qom-get",
                    QMP_TIMEOUT_S,
                    path=f"/objects/{commands.SETTINGS_ID}",
                    property="identity",
                )
            return commands.read_settings(head, text)
        except (NotFoundError, UnreachableError, QmpError, DamagedError):
            return None

    async def _admit(self, server: ExportServer) -> None:
        """Packets of the head alone reach the unit's sockets. The empty setting first, or systemd
        would add to what was admitted before."""
        await self._run(
            (
                "systemctl",
                "set-property",
                "--runtime",
                export_unit(server.head),
                "IPAddressDeny=any",
                "IPAddressAllow=",
                *(f"IPAddressAllow={address}" for address in server.addresses),
            ),
            START_TIMEOUT_S,
        )

    async def _start(self, server: ExportServer) -> None:
        unit = export_unit(server.head)
        await self._run(("systemctl", "start", unit), START_TIMEOUT_S)
        for _ in range(int(START_TIMEOUT_S / _POLL_S)):
            if listens(self._socket(server.head)):
                break
            await asyncio.sleep(_POLL_S)
        else:
            raise DeviceError(
                f"{unit} does not come up within {START_TIMEOUT_S:g} s",
                hint=f"see `journalctl -u {unit}`",
            )
        async with self._server(server.head) as qmp:
            for command in commands.start_server(server, self._credentials_dir / unit):
                await _say(qmp, command)

    # --- exports --------------------------------------------------------------------------

    async def add(self, export: Export, device: str) -> None:
        """ports.Exports.add. DeviceError: no server runs for the head."""
        async with self._adding:
            # All servers are asked: the extent must be served nowhere else on this host.
            for other in await self.exports():
                if other == export:
                    return
                if other.extent == export.extent:
                    raise ConflictError(
                        f"extent {export.extent} is served to {other.head} at epoch {other.epoch}",
                        hint="remove that export first",
                    )
            try:
                async with self._server(export.head) as qmp:
                    await _delete_node(qmp, export.extent)  # what an interrupted add left
                    await _open(qmp, commands.add_node(export, device))
                    await _say(qmp, commands.add_export(export))
            except NotFoundError as error:
                raise DeviceError(f"no export server runs for {export.head}") from error

    async def remove(self, head: NodeId, extent: ExtentId) -> None:
        """ports.Exports.remove. A server that no longer answers is ended with all that it serves:
        fencing does not depend on its good will.

        DeviceError: the head is cut off, but requests it made before still wait on the disk; ask
        again.
        """
        try:
            async with self._server(head) as qmp:
                await _cut(qmp, head, extent)
                await _delete_node(qmp, extent)
        except NotFoundError:
            return
        except UnreachableError:
            await self.stop_server(head)

    async def ended(self) -> NodeId:
        """ports.Exports.ended."""
        return await self._deaths.next()

    def _socket(self, head: NodeId) -> Path:
        return self._directories / head / "qmp"

    @contextlib.asynccontextmanager
    async def _server(self, head: NodeId) -> AsyncIterator[Qmp]:
        """A connection to the head's server, ours alone. NotFoundError: none runs."""
        async with self._heads[head], contextlib.AsyncExitStack() as connection:
            try:
                qmp = await connection.enter_async_context(
                    connect(self._socket(head), QMP_TIMEOUT_S)
                )
            except NotFoundError as error:
                if listens(self._socket(head)):
                    raise UnreachableError(f"{error.message}, but its server runs") from error
                raise
            self._deaths.watch(head, qmp.pid)
            yield qmp


async def _say(qmp: Qmp, command: commands.Command) -> None:
    name, arguments = command
    await qmp.execute(name, QMP_TIMEOUT_S, **arguments)


async def _open(qmp: Qmp, command: commands.Command) -> None:
    """The server's user may open an extent's device as soon as udev has seen to the node."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + OPEN_TIMEOUT_S
    while True:
        try:
            await _say(qmp, command)
        except QmpError as error:
            if not error.is_denied:
                raise
            if loop.time() > deadline_s:
                raise DeviceError(
                    f"{error} after {OPEN_TIMEOUT_S:g} s",
                    hint="udev is to give extents to the group vastsky-export: see"
                    " `journalctl -u systemd-udevd`, then `udevadm trigger --subsystem-match=block"
                    " --property-match='DM_NAME=vastsky-extent-*'`",
                ) from error
        else:
            return
        await asyncio.sleep(_POLL_S)


async def _cut(qmp: Qmp, head: NodeId, extent: ExtentId) -> None:
    """The extent's exports are gone and their last request is off the disk."""
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while True:
                answer = await qmp.execute("query-block-exports", QMP_TIMEOUT_S)
                ours = [e for e in commands.read_exports(head, answer) if e.extent == extent]
                if not ours:
                    return
                for export in ours:
                    if not commands.is_shutting_down(answer, export):
                        await qmp.execute(
                            "block-export-del",
                            QMP_TIMEOUT_S,
                            id=commands.export_id(export),
                            mode="hard",
                        )
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise DeviceError(
            f"extent {extent} is cut off from {head}, but requests still wait on the disk after"
            f" {DRAIN_TIMEOUT_S:g} s",
            hint="if the disk does not answer any more, pull it or restart this host",
        ) from error


async def _delete_node(qmp: Qmp, extent: ExtentId) -> None:
    """The server lets go of the device. It is well if it does not have it."""
    node = commands.node_name(extent)
    try:
        await qmp.execute("blockdev-del", QMP_TIMEOUT_S, node_name=node)
    except QmpError:
        # QEMU has one error class for "no such node" and for "in use": look which it was.
        answer = await qmp.execute("query-named-block-nodes", QMP_TIMEOUT_S, flat=True)
        if any(isinstance(item, dict) and item.get("node-name") == node for item in answer):
            raise


def _same_listener(running: ExportServer, wanted: ExportServer) -> bool:
    return (
        running.port == wanted.port
        and running.encryption is wanted.encryption
        and commands.listen_host(running.addresses) == commands.listen_host(wanted.addresses)
    )


def _head_of(path: Path) -> NodeId:
    try:
        return node_id(path.parent.name)
    except InvalidError as error:
        raise DeviceError(
            f"{path} is no export server's socket", hint=f"remove it: `rm {path}`"
        ) from error
