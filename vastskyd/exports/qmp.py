"""QMP, as far as an export server needs it: one connection, one command at a time.

https://www.qemu.org/docs/master/interop/qmp-spec.html. A server talks to one client at a time; who
comes later waits for its greeting, so connections are short.
"""

import asyncio
import errno
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from vastskyd.core.errors import DeviceError, NotFoundError, UnreachableError

# An answer names every block node of a server: some hundred bytes for each of thousands.
LINE_MAX_BYTES = 16 * 1024 * 1024

# Events that may come before an answer: far more than one command causes.
_EVENTS_MAX = 10_000

_REDIAL_S = 0.01
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid
# proc_net_unix(5): Num RefCount Protocol Flags Type St Inode Path; of the flags, __SO_ACCEPTCON.
_UNIX_SOCKETS = Path("/proc/net/unix")
_FIELDS = 8
_ACCEPTING = 1 << 16


class QmpError(DeviceError):
    """The server understood the command and refused it. `kind` is QEMU's error class."""

    def __init__(self, command: str, kind: str, description: str) -> None:
        super().__init__(f"the export server refused {command}: {description}")
        self.kind = kind
        self._description = description

    @property
    def is_denied(self) -> bool:
        """A file's owner and mode refused it (EACCES). QEMU has no class of its own for that, and
        prints the error in English: it sets no locale."""
        return os.strerror(errno.EACCES) in self._description


class QmpProtocolError(DeviceError):
    """What answers there does not speak QMP."""


class Qmp:
    """An open connection. After UnreachableError or QmpProtocolError it is of no more use."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def execute(self, command: str, timeout_s: float, **arguments: Any) -> Any:
        """The command's result. Underscores in the arguments' names stand for hyphens.

        QmpError: it was refused. UnreachableError: no answer in time, or the connection broke;
        whether the command was carried out is not known.
        """
        self._number += 1
        request: dict[str, Any] = {"execute": command, "id": self._number}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): arguments[key] for key in arguments}
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(json.dumps(request).encode() + b"\n")
                await self._writer.drain()
                answer = await self._answer(self._number)
        except TimeoutError as error:
            raise UnreachableError(
                f"the export server did not answer {command} within {timeout_s:g} s"
            ) from error
        except OSError as error:
            raise UnreachableError(
                f"the export server broke off at {command}: {error.strerror}"
            ) from error
        if "error" in answer:
            raise _refusal(command, answer["error"])
        return answer["return"]

    @property
    def pid(self) -> int:
        """The process that listens there (unix(7), SO_PEERCRED)."""
        peer = self._writer.get_extra_info("socket")
        pid, _, _ = _CREDENTIALS.unpack(
            peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return int(pid)

    async def greet(self) -> None:
        """Waits for the greeting."""
        greeting = await self._message()
        if "QMP" not in greeting:
            raise QmpProtocolError("the greeting is not QMP's")

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return  # the server closed first: closed is what was wanted

    async def _answer(self, number: int) -> dict[str, Any]:
        for _ in range(_EVENTS_MAX):
            message = await self._message()
            # Who connects right after another hung up may be sent that one's greeting, too.
            if "event" in message or "QMP" in message:
                continue
            if message.get("id") != number or ("return" in message) == ("error" in message):
                raise QmpProtocolError(f"an answer that nobody asked for: {str(message)[:200]}")
            return message
        raise QmpProtocolError(f"{_EVENTS_MAX} events and no answer")

    async def _message(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise QmpProtocolError(f"a line of more than {LINE_MAX_BYTES} bytes") from error
        if not line.endswith(b"\n"):
            raise UnreachableError("the export server closed the connection")
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise QmpProtocolError(f"not JSON: {line[:200]!r}") from error
        if not isinstance(message, dict):
            raise QmpProtocolError(f"not a QMP message: {line[:200]!r}")
        return message


def _refusal(command: str, error: object) -> DeviceError:
    if not isinstance(error, dict):
        return QmpProtocolError(f"an error without description: {str(error)[:200]}")
    return QmpError(command, str(error.get("class")), str(error.get("desc")))


@asynccontextmanager
async def connect(path: Path, timeout_s: float) -> AsyncIterator[Qmp]:
    """A connection that is ready for commands.

    NotFoundError: nobody listens there. UnreachableError: somebody does and does not greet in time.
    """
    qmp: Qmp | None = None
    try:
        try:
            async with asyncio.timeout(timeout_s):
                connection = await _dial(path)
                reader, writer = await asyncio.open_unix_connection(
                    sock=connection, limit=LINE_MAX_BYTES
                )
                qmp = Qmp(reader, writer)
                await qmp.greet()
        except TimeoutError as error:
            raise UnreachableError(
                f"the export server at {path} did not answer within {timeout_s:g} s"
            ) from error
        except OSError as error:
            raise UnreachableError(f"{path}: {error.strerror}") from error
        await qmp.execute("qmp_capabilities", timeout_s)
        yield qmp
    finally:
        if qmp is not None:
            await qmp.close()


def listening() -> Iterator[Path]:
    """The sockets that a process listens on, even if it is too stuck to greet, or their files are
    gone.

    The kernel is asked, not the process: QEMU's monitor has one client at a time, and closes the
    connection of one who comes right after another hung up, or greets him twice.
    """
    for line in _UNIX_SOCKETS.read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == _FIELDS and int(fields[3], 16) & _ACCEPTING:
            yield Path(fields[7])


def listens(path: Path) -> bool:
    """Does a process listen on the socket?"""
    return path in listening()


async def _dial(path: Path) -> socket.socket:
    while (connection := _try_dial(path)) is None:  # noqa: ASYNC110  # nobody tells of room
        await asyncio.sleep(_REDIAL_S)
    return connection


def _try_dial(path: Path) -> socket.socket | None:
    """None: somebody listens, and others stand in the queue.

    asyncio's own connect takes a full queue (EAGAIN) for a connection under way, as with TCP, and
    answers with a socket that is not connected; QEMU's queue holds one or two.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        if isinstance(error, BlockingIOError):
            return None
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            raise NotFoundError(f"no export server listens on {path}") from error
        raise DeviceError(f"{path}: {error.strerror or error}") from error
    return connection
