"""ports.Addresses: those that a test gives a host."""

from vastskyd.core.reaching import is_loopback

LOOPBACK = ("127.0.0.1", "::1")


class FakeAddresses:
    def __init__(self, *own: str, routed: str = "") -> None:
        self.own = own
        self._routed = routed

    def all(self) -> tuple[str, ...]:
        return LOOPBACK + self.own

    def has(self, address: str) -> bool:
        return is_loopback(address) or address in self.own

    def of_default_route(self) -> tuple[str, ...]:
        return (self._routed,) if self._routed else ()
