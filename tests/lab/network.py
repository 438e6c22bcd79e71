"""The two networks of a lab: a network namespace with two bridges and two taps a guest."""

from __future__ import annotations

from pathlib import Path

from .emulator import Nic
from .host import LabError, run_host

NETWORKS = ("A", "B")
SUBNETS = {"A": "10.77.0", "B": "10.78.0"}


def network_index(network: str) -> int:
    """The number of a network and of the guest's interface on it."""
    if network not in NETWORKS:
        raise LabError(f"network {network}: there are {' and '.join(NETWORKS)}")
    return NETWORKS.index(network)


def address(network: str, number: int) -> str:
    """The address of the guest with this number."""
    return f"{SUBNETS[network]}.{10 + number}"


def mac(network: str, number: int) -> str:
    """The hardware address of the guest with this number."""
    return f"52:54:00:{77 + network_index(network):02x}:00:{10 + number:02x}"


class Segments:
    """The namespace, its bridges and taps."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def prefix(self) -> list[str]:
        """Put before a command that is to run in the namespace."""
        return ["ip", "netns", "exec", self.name]

    def _batch(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        run_host(["ip", "-n", self.name, "-batch", "-"], stdin=text.encode())

    def up(self, guests: int) -> None:
        """Make the namespace with taps for so many guests."""
        run_host(["ip", "netns", "add", self.name])
        lines = ["link set lo up"]
        for network in NETWORKS:
            bridge = f"br{network}"
            lines.append(f"link add {bridge} type bridge forward_delay 0 mcast_snooping 0")
            lines.append(f"link set {bridge} up")
            for number in range(guests):
                tap = f"{network}{number}"
                lines.append(f"tuntap add dev {tap} mode tap")
                lines.append(f"link set {tap} master {bridge} up")
        self._batch(lines)

    def nics(self, number: int) -> tuple[Nic, ...]:
        """The network cards of the guest with this number."""
        return tuple(Nic(f"{network}{number}", mac(network, number)) for network in NETWORKS)

    def detach(self, network: str, number: int) -> None:
        """Take a guest's tap off its bridge: packets vanish, the carrier stays."""
        self._batch([f"link set {network}{number} nomaster"])

    def attach(self, network: str, number: int) -> None:
        """Put a guest's tap on its bridge again."""
        self._batch([f"link set {network}{number} master br{network}"])

    def down(self) -> None:
        """Remove the namespace; its bridges and taps go with it."""
        if Path("/run/netns", self.name).exists():
            run_host(["ip", "netns", "del", self.name])


def namespace_name(lab: str) -> str:
    """The namespace of a lab."""
    return f"vastsky-lab-{lab}"
