"""What udev knows of disks, read back: names that last across reboots, serial numbers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyudev

from vastskyd.kernel import sysfs

_DIRECTORIES = ("/dev/disk/by-id", "/dev/disk/by-path")

# Of several links of one directory the most telling: model and serial before bare numbers.
_WORST = ("wwn-", "nvme-eui.", "nvme-nvme.", "nvme-uuid.", "lvm-pv-uuid-")


def by_preference() -> dict[str, tuple[str, ...]]:
    """Kernel name → the links to it, the one to use for it first. by-id goes before by-path."""
    found: dict[str, tuple[str, ...]] = {}
    for directory in _DIRECTORIES:
        links: dict[str, list[str]] = {}
        for name in sysfs.names(Path(directory)):
            path = f"{directory}/{name}"
            links.setdefault(os.path.basename(os.path.realpath(path)), []).append(path)
        for device, paths in links.items():
            found[device] = (*found.get(device, ()), *best_first(paths))
    return found


def best_first(links: list[str]) -> tuple[str, ...]:
    """
    >>> best_first(["/dev/disk/by-id/wwn-0x5000", "/dev/disk/by-id/ata-DISK_123"])
    ('/dev/disk/by-id/ata-DISK_123', '/dev/disk/by-id/wwn-0x5000')
    """
    by_worth = sorted(links, key=lambda link: (os.path.basename(link).startswith(_WORST), link))
    return tuple(by_worth)


@dataclass(frozen=True)
class Known:
    """What udev knows of a disk. `serial` is empty if it has none; `multipath`: it is one way of
    several to a disk, and multipathd's."""

    serial: str = ""
    multipath: bool = False


def known(kernel_name: str) -> Known:
    try:
        device = pyudev.Devices.from_name(pyudev.Context(), "block", kernel_name)
    except pyudev.DeviceNotFoundError:
        return Known()
    return known_by(device.properties)


def known_by(properties: Mapping[str, str]) -> Known:
    """
    >>> known_by({"ID_SERIAL": "S1", "DM_MULTIPATH_DEVICE_PATH": "1"})
    Known(serial='S1', multipath=True)
    """
    return Known(
        serial=str(properties.get("ID_SERIAL_SHORT") or properties.get("ID_SERIAL") or ""),
        multipath=properties.get("DM_MULTIPATH_DEVICE_PATH") == "1"
        or properties.get("ID_FS_TYPE") == "mpath_member",
    )
