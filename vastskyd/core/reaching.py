"""Where hosts reach each other: addresses that can be a host's own, and the ports of exports."""

import ipaddress
from collections.abc import Iterable

from vastskyd.core.errors import InvalidError
from vastskyd.core.model import Node

# Each head has a port of its own, the same on every storage host, so that a firewall can know it.
EXPORT_PORT_FIRST = 10810
PORT_MAX = 65535
ADDRESSES_MAX = 4  # data networks

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def own_address(text: str) -> Address:
    """InvalidError: no host can be reached there. Loopback does for one that is alone."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidError(f"{text!r} is not an IP address") from error
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain.is_unspecified or plain.is_multicast or str(plain) == "255.255.255.255":
        raise InvalidError(
            f"{text} is no host's own address",
            hint="give the address of this host at which the others reach it",
        )
    if address.is_link_local and getattr(address, "scope_id", "") is None:
        raise InvalidError(
            f"{text} is link-local: it is an address only together with an interface",
            hint="give the address of this host at which the others reach it",
        )
    return address


def is_loopback(text: str) -> bool:
    """Each host has it, and reaches itself there."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def free_export_port(nodes: Iterable[Node], taken: Iterable[int]) -> int:
    """For a new head: no other's, and none of those at which the hosts speak to each other."""
    used = {port for node in nodes for port in (node.port, node.export_port)}.union(taken)
    return next(port for port in range(EXPORT_PORT_FIRST, PORT_MAX + 1) if port not in used)
