"""Addresses of this host, as ports.Addresses: rtnetlink(7), and a socket that sends nothing."""

import errno
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

from vastskyd.core.errors import DeviceError
from vastskyd.core.reaching import Address

# For documentation (RFC 5737, RFC 3849): no host has them, and the default route leads there.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT = 9
_IPV6_ADDR_PREFERENCES = 72
_PREFER_PUBLIC = 0x0002  # not one that changes every day

# linux/if_addr.h. Of IPv4 the bit of a temporary address says secondary, which is no harm.
_TEMPORARY = 0x01
_UNUSABLE = 0x08 | 0x20 | 0x40  # a duplicate, deprecated, tentative
_TO_THIS_HOST = 2  # linux/rtnetlink.h, RTN_LOCAL
_NO_ROUTE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENODEV)


class HostAddresses:
    def all(self) -> tuple[str, ...]:
        pyroute2 = _pyroute2()
        try:
            with pyroute2.IPRoute() as rtnetlink:
                return tuple(_usable(rtnetlink.get_addr()))
        except (pyroute2.NetlinkError, OSError) as error:
            raise DeviceError(f"the kernel does not tell its addresses: {error}") from error

    def has(self, address: str) -> bool:
        """Not by binding to it: that may be allowed of others' addresses, and is of broadcast."""
        pyroute2 = _pyroute2()
        try:
            with pyroute2.IPRoute() as rtnetlink:
                (route, *_) = rtnetlink.route("get", **_to(ipaddress.ip_address(address)))
        except pyroute2.NetlinkError as error:
            if error.code in _NO_ROUTE:
                return False
            raise DeviceError(f"the kernel does not tell whose {address} is: {error}") from error
        except OSError:  # no such interface
            return False
        return bool(route["type"] == _TO_THIS_HOST)

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


def _pyroute2() -> Any:
    """When somebody makes or joins a cluster: reading it takes longer than most of what vastskyd
    reads at each start."""
    import pyroute2  # noqa: PLC0415

    return pyroute2


def _usable(told: Any) -> Iterator[str]:
    for each in told:
        # Of a point-to-point link the first is the other end's.
        address = each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")
        flags = each.get_attr("IFA_FLAGS") or each["flags"]
        temporary = each["family"] == socket.AF_INET6 and flags & _TEMPORARY
        if address and not temporary and not flags & _UNUSABLE:
            yield str(address)


def _to(address: Address) -> dict[str, str | int]:
    plain = getattr(address, "ipv4_mapped", None) or address
    if interface := getattr(plain, "scope_id", None):
        return {"dst": str(plain).partition("%")[0], "oif": socket.if_nametoindex(interface)}
    return {"dst": str(plain)}
