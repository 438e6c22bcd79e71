"""Addresses of this host, as ports.Addresses: rtnetlink(7), and a socket that sends nothing."""

import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Iterator

from vastskyd.core.errors import DeviceError
from vastskyd.core.reaching import Address
from vastskyd.kernel.nbd_netlink import attributes, messages

# For documentation (RFC 5737, RFC 3849): no host has them, and the default route leads there.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT = 9
_IPV6_ADDR_PREFERENCES = 72
_PREFER_PUBLIC = 0x0002  # not one that changes every day

_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, two prefix lengths, ..., type, flags
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_NUMBER = struct.Struct("=i")
_REQUEST = 0x001
_DUMP = 0x300
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_GET_ROUTE = 26
_ERROR = 2
_DONE = 3
_OF_INTERFACE = 1  # of a point-to-point link the other end's
_OF_THIS_END = 2
_FLAGS = 8
_TO = 1
_BY_INTERFACE = 4
_TO_THIS_HOST = 2
# Temporary (of IPv4 the same bit says secondary, which is no harm), not yet or not to be used.
_TEMPORARY = 0x01
_UNUSABLE = 0x08 | 0x20 | 0x40
_RECEIVE_BYTES = 64 * 1024
_TIMEOUT_S = 5.0


class HostAddresses:
    def all(self) -> tuple[str, ...]:
        try:
            return tuple(_dumped())
        except OSError as error:
            raise DeviceError(f"the kernel does not tell its addresses: {error}") from error

    def has(self, address: str) -> bool:
        """Not by binding to it: that may be allowed of others' addresses, and is of broadcast."""
        try:
            return _type_of_route(ipaddress.ip_address(address)) == _TO_THIS_HOST
        except TimeoutError as error:
            raise DeviceError("the kernel does not tell in time whose an address is") from error
        except OSError:  # no route, or no such interface
            return False

    def of_default_route(self) -> tuple[str, ...]:
        for family, elsewhere in _ELSEWHERE:
            try:
                with socket.socket(family, socket.SOCK_DGRAM) as probe:
                    if family == socket.AF_INET6:
                        probe.setsockopt(
                            socket.IPPROTO_IPV6, _IPV6_ADDR_PREFERENCES, _PREFER_PUBLIC
                        )
                    probe.connect((elsewhere, _DISCARD_PORT))
                    address = str(probe.getsockname()[0])
            except OSError:
                continue
            return (address,)
        return ()


def _dumped() -> Iterator[str]:
    everything = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for kind, content in _answers(_GET_ADDRESS, _DUMP, everything):
        if kind == _NEW_ADDRESS:
            yield from _usable(content)


def _usable(content: bytes) -> Iterator[str]:
    family, _, short_flags, _, _ = _ADDRESS.unpack_from(content)
    found = attributes(content[_ADDRESS.size :])
    packed = found.get(_OF_THIS_END, found.get(_OF_INTERFACE, b""))
    flags = int.from_bytes(found[_FLAGS], sys.byteorder) if _FLAGS in found else short_flags
    temporary = family == socket.AF_INET6 and flags & _TEMPORARY
    known = family in (socket.AF_INET, socket.AF_INET6)
    if known and packed and not temporary and not flags & _UNUSABLE:
        yield socket.inet_ntop(family, packed)


def _type_of_route(address: Address) -> int:
    """Where the kernel would send what goes there."""
    plain = getattr(address, "ipv4_mapped", None) or address
    family = socket.AF_INET if plain.version == 4 else socket.AF_INET6
    asked = _ROUTE.pack(family, plain.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    asked += _attribute(_TO, plain.packed)
    if interface := getattr(plain, "scope_id", None):
        asked += _attribute(_BY_INTERFACE, _NUMBER.pack(socket.if_nametoindex(interface)))
    _, content = next(_answers(_GET_ROUTE, 0, asked))
    return int(_ROUTE.unpack_from(content)[7])


def _attribute(kind: int, content: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content


def _answers(kind: int, flags: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    """OSError as the kernel says. Whoever asks for one answer takes one."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(_TIMEOUT_S)
        length = _MESSAGE.size + len(content)
        netlink.send(_MESSAGE.pack(length, kind, _REQUEST | flags, 1, 0) + content)
        while True:
            for answer, body in messages(netlink.recv(_RECEIVE_BYTES)):
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    (number,) = _NUMBER.unpack_from(body)
                    raise OSError(-number, os.strerror(-number))
                yield answer, body
