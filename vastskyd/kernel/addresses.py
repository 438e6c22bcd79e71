"""Addresses of this host."""

import socket

# For documentation (RFC 5737, RFC 3849): no host has them, and the default route leads there.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT = 9


def of_default_route() -> tuple[str, ...]:
    """The one that the kernel would send from to hosts elsewhere; none without a default route.
    Nothing is sent."""
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, _DISCARD_PORT))
                address = str(probe.getsockname()[0])
        except OSError:
            continue
        return (address,)
    return ()
