"""The NBD driver's generic netlink: encode, decode, one exchange, and its multicast.

After include/uapi/linux/nbd-netlink.h and genetlink.h. Written on a plain socket: pyroute2 knows no
NBD family, and its core differs between the versions that distributions ship.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from vastskyd.core.errors import DeviceError

FAMILY = "nbd"
GROUP = "nbd_mc_group"

_NETLINK_GENERIC = 16
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_GENERIC = struct.Struct("=BBH")  # command, version, reserved
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")
_TYPE_ERROR = 2
_REQUEST = 0x01
_ACK = 0x04
_NESTED = 0x8000
_KIND_MASK = 0x3FFF

_CONTROL_FAMILY = 0x10
_CONTROL_GET_FAMILY = 3
_CONTROL_FAMILY_ID = 1
_CONTROL_FAMILY_NAME = 2
_CONTROL_GROUPS = 7
_GROUP_NAME = 1
_GROUP_ID = 2

_SOCKET_ITEM = 1
_SOCKET_FD = 1

_RECEIVE_BYTES = 64 * 1024
TIMEOUT_S = 10.0


class Command(IntEnum):
    CONNECT = 1
    DISCONNECT = 2
    LINK_DEAD = 4


class Attribute(IntEnum):
    INDEX = 1
    SIZE_BYTES = 2
    BLOCK_SIZE_BYTES = 3
    TIMEOUT = 4
    SERVER_FLAGS = 5
    CLIENT_FLAGS = 6
    SOCKETS = 7
    DEAD_CONN_TIMEOUT = 8
    BACKEND_IDENTIFIER = 10


@dataclass(frozen=True)
class Family:
    number: int
    groups: dict[str, int]


@dataclass(frozen=True)
class Connection:
    """What CONNECT needs; the index is the kernel's choice."""

    socket_fd: int
    size_bytes: int
    block_bytes: int
    server_flags: int
    timeout_s: int
    dead_timeout_s: int
    backend_identifier: str


def attribute(kind: int, content: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(content)
    return _ATTRIBUTE.pack(length, kind) + content + bytes(-length % 4)


def attributes(content: bytes) -> dict[int, bytes]:
    """By kind; of equal kinds the last. What is cut off is left out."""
    return dict(_attributes(content))


def _attributes(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, position)
        if length < _ATTRIBUTE.size or position + length > len(content):
            return
        yield kind & _KIND_MASK, content[position + _ATTRIBUTE.size : position + length]
        position += length + (-length % 4)


def encode_request(family: int, command: int, sequence: int, content: bytes) -> bytes:
    length = _MESSAGE.size + _GENERIC.size + len(content)
    header = _MESSAGE.pack(length, family, _REQUEST | _ACK, sequence, 0)
    return header + _GENERIC.pack(command, 1, 0) + content


def encode_connect(connection: Connection) -> bytes:
    one_socket = attribute(
        _SOCKET_ITEM | _NESTED, attribute(_SOCKET_FD, struct.pack("=I", connection.socket_fd))
    )
    return b"".join(
        (
            attribute(Attribute.SIZE_BYTES, struct.pack("=Q", connection.size_bytes)),
            attribute(Attribute.BLOCK_SIZE_BYTES, struct.pack("=Q", connection.block_bytes)),
            attribute(Attribute.TIMEOUT, struct.pack("=Q", connection.timeout_s)),
            attribute(Attribute.DEAD_CONN_TIMEOUT, struct.pack("=Q", connection.dead_timeout_s)),
            attribute(Attribute.SERVER_FLAGS, struct.pack("=Q", connection.server_flags)),
            attribute(Attribute.CLIENT_FLAGS, struct.pack("=Q", 0)),
            attribute(Attribute.SOCKETS | _NESTED, one_socket),
            attribute(Attribute.BACKEND_IDENTIFIER, connection.backend_identifier.encode() + b"\0"),
        )
    )


def messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, what follows the message's header) of each message in it."""
    position = 0
    while position + _MESSAGE.size <= len(datagram):
        length, kind, _flags, _sequence, _port = _MESSAGE.unpack_from(datagram, position)
        if length < _MESSAGE.size:
            return
        yield kind, datagram[position + _MESSAGE.size : position + length]
        position += length + (-length % 4)


def dead_links(datagram: bytes) -> tuple[int, ...]:
    """Indexes of the devices whose link the multicast declares dead."""
    found = []
    for _kind, content in messages(datagram):
        if len(content) < _GENERIC.size or content[0] != Command.LINK_DEAD:
            continue
        index = attributes(content[_GENERIC.size :]).get(Attribute.INDEX)
        if index is not None and len(index) == 4:
            found.append(int(struct.unpack("=I", index)[0]))
    return tuple(found)


def exchange(family: int, command: int, content: bytes) -> dict[int, bytes]:
    """One request and its answer's attributes. OSError as the kernel says. May sleep: by way
    of `calls.py`. Of one socket's life, so that a late answer is nobody's."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as netlink:
        netlink.settimeout(TIMEOUT_S)
        netlink.bind((0, 0))
        netlink.send(encode_request(family, command, 1, content))
        answer: dict[int, bytes] = {}
        while True:
            for kind, body in messages(netlink.recv(_RECEIVE_BYTES)):
                if kind != _TYPE_ERROR:
                    answer |= attributes(body[_GENERIC.size :])
                    continue
                (number,) = _ERROR.unpack_from(body)
                if number:
                    raise OSError(-number, os.strerror(-number))
                return answer


def family() -> Family | None:
    """None: there is no such driver. The kernel loads its module to answer this."""
    name = attribute(_CONTROL_FAMILY_NAME, FAMILY.encode() + b"\0")
    try:
        answer = exchange(_CONTROL_FAMILY, _CONTROL_GET_FAMILY, name)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    (number,) = struct.unpack("=H", answer[_CONTROL_FAMILY_ID])
    groups = {}
    for _position, group in _attributes(answer.get(_CONTROL_GROUPS, b"")):
        fields = attributes(group)
        title = fields[_GROUP_NAME].rstrip(b"\0").decode()
        (groups[title],) = struct.unpack("=I", fields[_GROUP_ID])
    return Family(number, groups)


def connect(nbd: Family, connection: Connection) -> int:
    """The index of the device that the kernel chose. The socket is the kernel's from here on."""
    answer = exchange(nbd.number, Command.CONNECT, encode_connect(connection))
    if Attribute.INDEX not in answer:
        raise DeviceError("the NBD driver did not say which device it connected")
    return int(struct.unpack("=I", answer[Attribute.INDEX])[0])


def disconnect(nbd: Family, index: int) -> None:
    exchange(nbd.number, Command.DISCONNECT, attribute(Attribute.INDEX, struct.pack("=I", index)))


def listen(nbd: Family) -> socket.socket:
    """A non-blocking socket that receives the driver's multicast."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)
    netlink.setblocking(False)
    netlink.bind((0, 0))
    netlink.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, nbd.groups[GROUP])
    return netlink
