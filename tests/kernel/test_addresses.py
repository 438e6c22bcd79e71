"""The addresses of a host: of the fake, of this one's kernel, and as the kernel writes them."""

import ipaddress
import socket
import struct

import pytest

from tests.fakes.addresses import FakeAddresses
from vastskyd.kernel import addresses
from vastskyd.kernel.addresses import HostAddresses
from vastskyd.ports import Addresses

# For documentation: no host has them.
NOBODYS = ("198.51.100.77", "2001:db8::77")


@pytest.fixture(params=[HostAddresses(), FakeAddresses("10.0.0.1", "fd00::1", routed="10.0.0.1")])
def here(request: pytest.FixtureRequest) -> Addresses:
    found: Addresses = request.param
    return found


def test_a_host_has_what_it_has(here: Addresses) -> None:
    assert "127.0.0.1" in here.all()
    for address in here.all():
        if not ipaddress.ip_address(address).is_link_local:
            assert here.has(address)
    assert here.has("127.0.0.9"), "the whole network is its own"
    assert not any(map(here.has, NOBODYS))


def test_that_of_the_default_route_is_one_of_them(here: Addresses) -> None:
    found = here.of_default_route()
    assert len(found) <= 1
    for address in found:
        assert address in here.all()
        assert not ipaddress.ip_address(address).is_loopback


def test_without_a_default_route_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "_ELSEWHERE", ())
    assert HostAddresses().of_default_route() == ()


def test_neither_a_broadcast_address_nor_one_of_no_interface_is_a_hosts() -> None:
    """A socket can be bound to the first."""
    here = HostAddresses()
    assert not here.has("127.255.255.255")
    assert not here.has("fe80::1%nosuch")
    assert here.has("::ffff:127.0.0.1")


def attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content


def told(family: int, flags: int, *attributes: bytes) -> tuple[str, ...]:
    header = struct.pack("=BBBBI", family, 24, flags & 0xFF, 0, 2)
    return tuple(addresses._usable(header + b"".join(attributes)))


def test_what_the_kernel_tells() -> None:
    v4, v6 = (
        socket.inet_pton(family, text)
        for family, text in ((socket.AF_INET, "10.0.0.1"), (socket.AF_INET6, "fd00::1"))
    )
    other_end = socket.inet_pton(socket.AF_INET, "10.0.0.2")
    assert told(socket.AF_INET, 0x80, attribute(1, other_end), attribute(2, v4)) == ("10.0.0.1",)
    assert told(socket.AF_INET, 0x81, attribute(2, v4)) == ("10.0.0.1",), "secondary"
    assert told(socket.AF_INET6, 0x80, attribute(1, v6)) == ("fd00::1",)
    for flags in (0x01, 0x08, 0x20, 0x40):
        assert told(socket.AF_INET6, flags, attribute(1, v6)) == ()
    managed_temporary = attribute(8, struct.pack("=I", 0x101))
    assert told(socket.AF_INET6, 0, attribute(1, v6), managed_temporary) == ()
    assert told(socket.AF_UNIX, 0, attribute(1, v6)) == ()
    assert told(socket.AF_INET, 0) == ()
