"""The NBD driver's messages."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.ids import ExtentId
from vastskyd.core.names import PathName
from vastskyd.kernel import nbd, nbd_netlink
from vastskyd.kernel.nbd_handshake import Negotiated, ServerFlag
from vastskyd.kernel.nbd_netlink import Attribute, Command


def _multicast(index: int) -> bytes:
    content = bytes((Command.LINK_DEAD, 1, 0, 0))
    content += nbd_netlink.attribute(Attribute.INDEX, struct.pack("=I", index))
    return struct.pack("=IHHII", 16 + len(content), 30, 0, 0, 0) + content


def test_dead_links() -> None:
    assert nbd_netlink.dead_links(_multicast(3) + _multicast(70000)) == (3, 70000)


@given(st.binary(max_size=200))
def test_anything_may_come(datagram: bytes) -> None:
    nbd_netlink.dead_links(datagram)
    nbd_netlink.dead_links(_multicast(1)[:-4] + datagram)


def test_connect_names_the_socket_and_the_backend() -> None:
    content = nbd_netlink.encode_connect(
        nbd_netlink.Connection(7, 1 << 20, 512, 0x15, 3, 1, "vastsky:00:1:0")
    )
    fields = nbd_netlink.attributes(content)
    assert fields[Attribute.BACKEND_IDENTIFIER] == b"vastsky:00:1:0\0"
    assert struct.unpack("=Q", fields[Attribute.SIZE_BYTES]) == (1 << 20,)
    item = nbd_netlink.attributes(fields[Attribute.SOCKETS])[1]
    assert nbd_netlink.attributes(item)[1] == struct.pack("=I", 7)
    assert Attribute.INDEX not in fields


def test_attributes_are_aligned() -> None:
    content = nbd_netlink.attribute(1, b"abc") + nbd_netlink.attribute(2, b"")
    assert len(content) == 12
    assert nbd_netlink.attributes(content) == {1: b"abc", 2: b""}


def test_connect_passes_on_what_the_server_offers() -> None:
    """Without its flags the kernel sends no flush, and takes what it wrote for durable."""
    content = nbd_netlink.encode_connect(nbd_netlink.Connection(7, 1 << 20, 512, 0x15, 3, 1, "x"))
    fields = nbd_netlink.attributes(content)
    assert struct.unpack("=Q", fields[Attribute.SERVER_FLAGS]) == (0x15,)


def test_a_connection_is_handed_over_with_all_that_was_negotiated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed: list[nbd_netlink.Connection] = []

    def connect(_family: nbd_netlink.Family, connection: nbd_netlink.Connection) -> int:
        handed.append(connection)
        return 5

    monkeypatch.setattr(nbd_netlink, "connect", connect)
    path = PathName(ExtentId("1" * 16), 3, 0)
    flags = ServerFlag.SEND_FLUSH | ServerFlag.SEND_FUA | 1
    with socket.socket() as ours:
        family = nbd_netlink.Family(30, {})
        assert nbd._hand_over(family, ours, Negotiated(1 << 20, int(flags), 512), path) == 5
    (connection,) = handed
    assert connection.server_flags == flags
    assert connection.size_bytes == 1 << 20
