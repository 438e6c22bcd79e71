"""Which host reaches which: per data network, and on the way that the daemons talk."""

from typing import TYPE_CHECKING

from tests.sim.loop import Signal

if TYPE_CHECKING:
    from tests.sim.fake_kernel import FakeHost


class FakeNetwork:
    """Cuts go both ways. `changed` fires at every cut, heal, power change and server's end."""

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHost] = {}
        self.changed = Signal()
        # Hosts that hang: they neither send nor answer.
        self.frozen: dict[str, None] = {}
        self._data: dict[tuple[str, str, int], None] = {}
        self._control: dict[tuple[str, str], None] = {}

    def host_at(self, address: str) -> "FakeHost | None":
        return next((h for h in self.hosts.values() if address in h.addresses), None)

    def data_ok(self, a: str, b: str, network: int) -> bool:
        return (*_pair(a, b), network) not in self._data and not self._hang(a, b)

    def control_ok(self, a: str, b: str) -> bool:
        return _pair(a, b) not in self._control and not self._hang(a, b)

    def _hang(self, a: str, b: str) -> bool:
        return bool(self.frozen) and (a in self.frozen or b in self.frozen)

    def cut_data(self, a: str, b: str, network: int) -> None:
        self._data[(*_pair(a, b), network)] = None
        self.changed.fire()

    def heal_data(self, a: str, b: str, network: int) -> None:
        self._data.pop((*_pair(a, b), network), None)
        self.changed.fire()

    def cut_control(self, a: str, b: str) -> None:
        self._control[_pair(a, b)] = None
        self.changed.fire()

    def heal_control(self, a: str, b: str) -> None:
        self._control.pop(_pair(a, b), None)
        self.changed.fire()

    def partition(self, group: tuple[str, ...]) -> None:
        """`group` hears and is heard by nobody else, on any network."""
        for inside in group:
            for outside, host in self.hosts.items():
                if outside not in group:
                    self._control[_pair(inside, outside)] = None
                    for network in range(len(host.addresses)):
                        self._data[(*_pair(inside, outside), network)] = None
        self.changed.fire()

    def heal(self) -> None:
        """Everything reaches everything."""
        self._data.clear()
        self._control.clear()
        self.changed.fire()


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)
