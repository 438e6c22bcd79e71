"""The NBD handshake against a scripted server."""

import socket
import struct
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vastskyd.core.errors import (
    DeniedError,
    DeviceError,
    NotFoundError,
    UnreachableError,
    VastskyError,
)
from vastskyd.kernel.nbd_handshake import Negotiated, Option, Reply, negotiate

GREETING = b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 3)


def reply(kind: int, content: bytes = b"", option: int = Option.GO) -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, option, kind, len(content)) + content


EXPORT = reply(Reply.INFO, struct.pack(">HQH", 0, 1 << 20, 0x105))
BLOCK = reply(Reply.INFO, struct.pack(">HIII", 3, 512, 4096, 1 << 25))
ACK = reply(Reply.ACK)


def against(content: bytes, *, hold: bool = False) -> tuple[Negotiated, bytes, bytes]:
    """(what was negotiated, what the server heard, what is left in the client's socket)"""
    client, server = socket.socketpair()
    client.settimeout(0.2 if hold else 5)
    heard = bytearray()

    def serve() -> None:
        server.sendall(content)
        if not hold:
            server.shutdown(socket.SHUT_WR)
        while chunk := server.recv(4096):
            heard.extend(chunk)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        _socket, negotiated = negotiate(client, "extent-key", None)
        rest = client.recv(100)
        return negotiated, bytes(heard), rest
    finally:
        client.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        client.close()
        server.close()


def test_an_export() -> None:
    negotiated, _, rest = against(GREETING + EXPORT + BLOCK + ACK + b"next")
    assert negotiated == Negotiated(1 << 20, 0x105, 512)
    assert rest == b"next", "what follows the handshake is the kernel's to read"


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Reply.ERR_UNKNOWN, NotFoundError),
        (Reply.ERR_POLICY, DeniedError),
        (Reply.ERR_TLS_REQUIRED, DeniedError),
        (Reply.ERR_SHUTDOWN, UnreachableError),
        (Reply.ERR_INVALID, DeviceError),
        (99, DeviceError),
    ],
)
def test_refusals(kind: int, error: type[VastskyError]) -> None:
    with pytest.raises(error):
        against(GREETING + reply(kind, b"because"))


@pytest.mark.parametrize(
    "content",
    [
        b"SSH-2.0-OpenSSH_9.2 Debian",
        b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 0),
        GREETING + ACK,
        GREETING + reply(Reply.ACK, option=1),
        GREETING + struct.pack(">QIII", 0x3E889045565A9, Option.GO, Reply.INFO, 1 << 30),
        GREETING + EXPORT * 50,
    ],
)
def test_what_is_no_server_of_ours(content: bytes) -> None:
    with pytest.raises(DeviceError):
        against(content)


def test_hanging_up() -> None:
    with pytest.raises(UnreachableError, match="hung up"):
        against(GREETING + EXPORT)


def test_silence() -> None:
    with pytest.raises(UnreachableError, match="in time"):
        against(GREETING, hold=True)


def test_hanging_up_after_tls_means_refused() -> None:
    client, server = socket.socketpair()
    client.settimeout(5)
    server.sendall(GREETING + reply(Reply.ACK, option=Option.STARTTLS))
    server.shutdown(socket.SHUT_WR)
    start_tls: Callable[[socket.socket], socket.socket] = lambda plain: plain  # noqa: E731
    with client, server, pytest.raises(DeniedError, match="certificate"):
        negotiate(client, "x", start_tls)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_an_error_by_meaning(garbage: bytes) -> None:
    with pytest.raises(VastskyError):
        against(GREETING + garbage)
