"""NBD's handshake, client side: fixed newstyle, TLS, one export (the NBD protocol document,
doc/proto.md of the nbd project). Blocking, with the socket's time limit: by way of `calls.py`.
"""

import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from vastskyd.core.errors import DeniedError, DeviceError, NotFoundError, UnreachableError

_GREETING = struct.Struct(">QQH")
_OPTION = struct.Struct(">QII")
_REPLY = struct.Struct(">QIII")
_MAGIC = 0x4E42444D41474943
_OPTION_MAGIC = 0x49484156454F5054
_REPLY_MAGIC = 0x0003E889045565A9
_FIXED_NEWSTYLE = 1 << 0
_NO_ZEROES = 1 << 1

# Replies are small; an error's text may be 4 KiB.
_REPLY_MAX_BYTES = 16 * 1024
_REPLIES_MAX = 32
_NAME_MAX_BYTES = 4096


class Option(IntEnum):
    STARTTLS = 5
    GO = 7


class Reply(IntEnum):
    ACK = 1
    INFO = 3
    ERR_UNSUPPORTED = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_TLS_REQUIRED = (1 << 31) + 5
    ERR_UNKNOWN = (1 << 31) + 6
    ERR_SHUTDOWN = (1 << 31) + 7


class Info(IntEnum):
    EXPORT = 0
    BLOCK_SIZE = 3


class ServerFlag(IntFlag):
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3


@dataclass(frozen=True)
class Negotiated:
    """What the server said of the export."""

    size_bytes: int
    flags: int
    minimum_block_bytes: int


def negotiate(
    connection: socket.socket,
    export_name: str,
    start_tls: Callable[[socket.socket], ssl.SSLSocket] | None,
) -> tuple[socket.socket, Negotiated]:
    """From the greeting to the export's transmission phase. Answers the socket to go on with,
    which `start_tls` made of `connection` if it is given; without it TLS is not spoken.

    NotFoundError: no such export. DeniedError: the server does not admit this host, or asks for
    the other kind of protection. UnreachableError: it hung up or did not answer in time.
    """
    _greet(connection)
    if start_tls is not None:
        _send_option(connection, Option.STARTTLS, b"")
        kind, text = _receive_reply(connection, Option.STARTTLS)
        if kind != Reply.ACK:
            raise _refusal(kind, text, export_name)
        connection = start_tls(connection)
    try:
        return connection, _go(connection, export_name)
    except _HungUpError as error:
        if start_tls is None:
            raise
        # With TLS 1.3 the client is done before the server has looked at its certificate: a
        # server that does not admit it hangs up (or alerts) where its first reply should be.
        raise DeniedError(
            "the export server hung up after TLS: it does not admit this host's certificate"
        ) from error


class _HungUpError(UnreachableError):
    """The connection ended where a reply should be."""


def _greet(connection: socket.socket) -> None:
    magic, option_magic, flags = _GREETING.unpack(_receive(connection, _GREETING.size))
    if magic != _MAGIC or option_magic != _OPTION_MAGIC or not flags & _FIXED_NEWSTYLE:
        raise DeviceError("what answers is no NBD server of the fixed newstyle")
    if not flags & _NO_ZEROES:
        raise DeviceError("the NBD server is too old: it does not know NBD_FLAG_NO_ZEROES")
    _send(connection, struct.pack(">I", _FIXED_NEWSTYLE | _NO_ZEROES))


def _go(connection: socket.socket, export_name: str) -> Negotiated:
    name = export_name.encode()
    if len(name) > _NAME_MAX_BYTES:
        raise DeviceError("the export's name is too long for NBD")
    wanted = struct.pack(">HH", 1, Info.BLOCK_SIZE)
    _send_option(connection, Option.GO, struct.pack(">I", len(name)) + name + wanted)
    size = flags = None
    minimum = 1
    for _ in range(_REPLIES_MAX):
        kind, content = _receive_reply(connection, Option.GO)
        if kind == Reply.ACK:
            if size is None or flags is None:
                raise DeviceError("the NBD server did not tell the export's size")
            return Negotiated(size, flags, minimum)
        if kind != Reply.INFO:
            raise _refusal(kind, content, export_name)
        what = struct.unpack_from(">H", content)[0] if len(content) >= 2 else None
        if what == Info.EXPORT and len(content) >= 12:
            size, flags = struct.unpack_from(">QH", content, 2)
        elif what == Info.BLOCK_SIZE and len(content) >= 14:
            (minimum,) = struct.unpack_from(">I", content, 2)
    raise DeviceError("the NBD server does not come to an end with its answers")


def _refusal(kind: int, content: bytes, export_name: str) -> Exception:
    said = content.decode(errors="replace")[:200] or "no reason given"
    if kind == Reply.ERR_UNKNOWN:
        return NotFoundError(f"the export server does not have export {export_name}")
    if kind in (Reply.ERR_POLICY, Reply.ERR_TLS_REQUIRED):
        return DeniedError(f"the export server refuses this host: {said}")
    if kind == Reply.ERR_UNSUPPORTED:
        return DeniedError(f"the export server does not protect the data path as asked: {said}")
    if kind == Reply.ERR_SHUTDOWN:
        return UnreachableError("the export server is shutting down")
    return DeviceError(f"the export server refused with code {kind & 0x7FFFFFFF}: {said}")


def _send_option(connection: socket.socket, option: Option, content: bytes) -> None:
    _send(connection, _OPTION.pack(_OPTION_MAGIC, option, len(content)) + content)


def _receive_reply(connection: socket.socket, option: Option) -> tuple[int, bytes]:
    magic, answered, kind, length = _REPLY.unpack(_receive(connection, _REPLY.size))
    if magic != _REPLY_MAGIC or answered != option:
        raise DeviceError("the NBD server's reply is not to what was asked")
    if length > _REPLY_MAX_BYTES:
        raise DeviceError(f"the NBD server's reply of {length} bytes is too long")
    return kind, _receive(connection, length)


def _send(connection: socket.socket, content: bytes) -> None:
    try:
        connection.sendall(content)
    except TimeoutError as error:
        raise UnreachableError("the export server did not answer in time") from error
    except OSError as error:
        raise _HungUpError(f"the export server hung up: {error}") from error


def _receive(connection: socket.socket, length: int) -> bytes:
    """Never more than `length`: what follows the last reply is the kernel's to read."""
    content = bytearray()
    while len(content) < length:
        try:
            chunk = connection.recv(length - len(content))
        except TimeoutError as error:
            raise UnreachableError("the export server did not answer in time") from error
        except OSError as error:  # ssl.SSLError, a TLS alert, is one
            raise _HungUpError(f"the export server hung up: {error}") from error
        if not chunk:
            raise _HungUpError("the export server hung up")
        content += chunk
    return bytes(content)
