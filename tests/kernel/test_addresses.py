"""The addresses of a host: of the fake, of this one's kernel, and as the kernel writes them."""

import ipaddress
import socket

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


class Told(dict[str, object]):
    """A message of rtnetlink's, as pyroute2 gives it."""

    def get_attr(self, name: str) -> object:
        return self.get(name)


def usable(family: int, flags: int, **attributes: object) -> tuple[str, ...]:
    told = Told(family=family, flags=flags & 0xFF, **attributes)
    return tuple(addresses._usable([told]))


def test_which_of_those_that_the_kernel_tells_can_be_used() -> None:
    v4, v6 = socket.AF_INET, socket.AF_INET6
    assert usable(v4, 0x80, IFA_ADDRESS="10.0.0.2", IFA_LOCAL="10.0.0.1") == ("10.0.0.1",)
    assert usable(v4, 0x81, IFA_ADDRESS="10.0.0.1") == ("10.0.0.1",), "secondary"
    assert usable(v6, 0x80, IFA_ADDRESS="fd00::1") == ("fd00::1",)
    for flags in (0x01, 0x08, 0x20, 0x40):
        assert usable(v6, flags, IFA_ADDRESS="fd00::1") == ()
    assert usable(v6, 0, IFA_ADDRESS="fd00::1", IFA_FLAGS=0x101) == ()
    assert usable(v4, 0) == ()
