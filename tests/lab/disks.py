"""The disks of a guest: pulled and plugged, failing and well again."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .emulator import PORTS, Plugged, bad_block_options, block_options, nvme_options
from .host import LabError
from .lines import Monitor

MIB = 1 << 20


@dataclass(frozen=True)
class Disk:
    """A data disk of a guest: its short name, its size, its serial (HOST-NAME if empty)."""

    name: str
    size: int = 256 * MIB
    serial: str = ""


class DiskBay(ABC):
    """The part of a guest that has to do with disks."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._disks: dict[str, Disk] = {}
        self._plugged: dict[str, int] = {}
        self._bad: set[str] = set()
        self._slow: set[str] = set()

    @property
    @abstractmethod
    def monitor(self) -> Monitor:
        """QEMU's monitor."""

    @abstractmethod
    def wait_paths(self, paths: Sequence[str], timeout_s: float = 30) -> None:
        """Wait until paths are there in the guest."""

    def _forget_bad(self) -> None:
        """After a power cycle all sectors are well."""
        self._bad.clear()
        self._slow.clear()

    @property
    def disks(self) -> list[str]:
        """The disks that are plugged in."""
        return list(self._plugged)

    @property
    def slow_disks(self) -> list[str]:
        """Those that `slow_disk` holds back."""
        return sorted(self._slow)

    @property
    def known_disks(self) -> list[str]:
        """All disks the guest ever had, plugged in or not."""
        return list(self._disks)

    def _plug_of(self, name: str) -> Plugged:
        return Plugged(name, self.disk_file(name), self.serial(name), self._plugged[name])

    def disk_file(self, name: str) -> Path:
        """The file behind a disk, on this machine."""
        return self.folder / f"disk-{name}.raw"

    def serial(self, name: str) -> str:
        return self._disks[name].serial or f"{self.name}-{name}"

    def add_disk(self, disk: Disk) -> None:
        """Make a disk known to the guest and choose its port; it is not plugged yet."""
        free = sorted(set(range(PORTS)) - set(self._plugged.values()))
        if not free:
            raise LabError(f"{self.name}: all {PORTS} ports are in use")
        self._disks[disk.name] = disk
        path = self.disk_file(disk.name)
        if not path.exists():
            with path.open("wb") as handle:
                os.truncate(handle.fileno(), disk.size)
        self._plugged[disk.name] = free[0]

    def insert_disk(self, name: str) -> None:
        """Put a known disk into its port."""
        plugged = self._plug_of(name)
        self.monitor.execute_with("blockdev-add", block_options(plugged))
        self.monitor.execute_with("device_add", nvme_options(plugged))

    def plug_disk(self, disk: Disk | str) -> None:
        """Plug a disk in: a new one, or by its name one that was unplugged."""
        known = self._disks[disk] if isinstance(disk, str) else disk
        if known.name in self._plugged:
            raise LabError(f"{self.name}: disk {known.name} is plugged in")
        self.add_disk(known)
        self.insert_disk(known.name)
        self.wait_paths([self.disk_link(known.name)])

    def unplug_disk(self, name: str, timeout_s: float = 20) -> None:
        """Pull a disk out, whatever uses it."""
        if name in self._slow:
            self.slow_disk(name, 0)  # QEMU first does all that waits, at that rate
        seen = self.monitor.count("DEVICE_DELETED", device=f"disk-{name}")
        self.monitor.execute("device_del", id=f"disk-{name}")
        self.monitor.wait_event("DEVICE_DELETED", seen, timeout_s, device=f"disk-{name}")
        if name in self._bad:
            self._bad.discard(name)
            self.monitor.execute("blockdev-del", node_name=f"bad-{name}")
        self.monitor.execute("blockdev-del", node_name=f"file-{name}")
        del self._plugged[name]

    def remove_disk(self, name: str) -> None:
        """Pulled, if need be, and never plugged in again."""
        if name in self._plugged:
            self.unplug_disk(name)
        del self._disks[name]
        self.disk_file(name).unlink()

    def smart_fail(self, name: str, failing: bool = True) -> None:
        """Let a disk's SMART health say that it fails, or that it is well again."""
        self.monitor.execute(
            "qom-set",
            path=f"/machine/peripheral/disk-{name}",
            property="smart_critical_warning",
            value=12 if failing else 0,
        )

    def fail_sectors(
        self, name: str, sectors: Sequence[int] = (), reads: bool = True, writes: bool = False
    ) -> None:
        """Let a disk fail some sectors (of 512 bytes), all of them when none is named.

        The guest's kernel sees a medium error for a read and an I/O error for a write.
        """
        self.heal_sectors(name)
        kinds = ["read"] * reads + ["write", "write-zeroes"] * writes
        self.monitor.execute_with(
            "blockdev-add", bad_block_options(self._plug_of(name), sectors, kinds)
        )
        self._bad.add(name)
        self._set_backend(name, f"bad-{name}")

    def heal_sectors(self, name: str) -> None:
        """Let a disk serve all its sectors again."""
        if name in self._bad:
            self._set_backend(name, f"file-{name}")
            self.monitor.execute("blockdev-del", node_name=f"bad-{name}")
            self._bad.discard(name)

    def slow_disk(self, name: str, bytes_per_s: int) -> None:
        """Let a disk do so much and no more; 0: as much as it can."""
        others = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
        self.monitor.execute_with(
            "block_set_io_throttle", {"id": f"disk-{name}", "bps": bytes_per_s, **others}
        )
        self._slow.discard(name)
        if bytes_per_s:
            self._slow.add(name)

    def take_disk(self, other: DiskBay, name: str, new_name: str) -> None:
        """Pull a disk out of another guest and plug it into this one: the same disk, with its
        serial."""
        disk, serial = other._disks[name], other.serial(name)
        if name in other._plugged:
            other.unplug_disk(name)
        other.disk_file(name).rename(self.disk_file(new_name))
        del other._disks[name]
        self.plug_disk(Disk(new_name, disk.size, serial))

    def _set_backend(self, name: str, node: str) -> None:
        device = f"/machine/peripheral/disk-{name}"
        self.monitor.execute("qom-set", path=device, property="drive", value=node)

    def disk_link(self, name: str) -> str:
        """A disk's link under /dev/disk/by-id in the guest."""
        return f"/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_{self.serial(name)}"

    def wait_disks(self, timeout_s: float = 30) -> None:
        """Wait until udev has made the links of all disks that are plugged in."""
        self.wait_paths([self.disk_link(name) for name in self.disks], timeout_s)
