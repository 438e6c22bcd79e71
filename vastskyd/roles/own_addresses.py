"""Which addresses a host is known by: those that somebody gave, if it has them, or its only one."""

import ipaddress

from vastskyd.core.errors import InvalidError, NotFoundError
from vastskyd.core.reaching import is_loopback, own_address
from vastskyd.ports import Addresses

_GIVE = (
    "give --address once per data network, the same order on every host, or write"
    " addresses = [...] in /etc/vastsky/vastskyd.toml"
)
_ALONE = "127.0.0.1 does for a host that no other will ever join"


def of_itself(here: Addresses) -> tuple[str, ...]:
    """That of the default route; without one the only one on a network, if it is the only one."""
    routed = here.of_default_route()
    if routed:
        return routed
    found = _on_networks(here)
    return found if len(found) == 1 else ()


def checked(addresses: tuple[str, ...], here: Addresses) -> tuple[str, ...]:
    """NotFoundError: the host has not got one of them, or not yet."""
    if not addresses:
        raise InvalidError(
            "no data address is known for this host", hint=f"{_said(here)}; {_GIVE}; {_ALONE}"
        )
    if len({own_address(address) for address in addresses}) < len(addresses):
        raise InvalidError(
            f"an address is there twice: {', '.join(addresses)}",
            hint="give one for each data network",
        )
    absent = [address for address in addresses if not here.has(address)]
    if absent:
        looped = all(map(is_loopback, absent))
        raise NotFoundError(
            f"this host has no address {' and no '.join(absent)}",
            hint=f"{_said(here, loopback=looped)}; {_GIVE}",
        )
    return addresses


def reachable(addresses: tuple[str, ...], here: Addresses) -> tuple[str, ...]:
    """The same for a host that others are to reach."""
    looped = [address for address in addresses if is_loopback(address)]
    if looped:
        raise InvalidError(
            f"{' and '.join(looped)} leads other hosts to themselves",
            hint=f"{_said(here)}; {_GIVE}",
        )
    return checked(addresses, here)


def _said(here: Addresses, *, loopback: bool = False) -> str:
    found = here.all() if loopback else _on_networks(here)
    if not found:
        return "it has none in any network: bring that up first"
    return f"it has {', '.join(found)}"


def _on_networks(here: Addresses) -> tuple[str, ...]:
    return tuple(
        address
        for address in here.all()
        if not is_loopback(address) and not ipaddress.ip_address(address).is_link_local
    )
