"""Names of disks that last across reboots, and their serial numbers: udev's work, read back."""

import os
from pathlib import Path

import pyudev

from vastskyd.kernel import sysfs

_DIRECTORIES = ("/dev/disk/by-id", "/dev/disk/by-path")

# Of several links of one directory the most telling: model and serial before bare numbers.
_WORST = ("wwn-", "nvme-eui.", "nvme-nvme.", "nvme-uuid.", "lvm-pv-uuid-")


def preferred() -> dict[str, str]:
    """Kernel name → the link to use for it. by-id goes before by-path."""
    chosen: dict[str, str] = {}
    for directory in _DIRECTORIES:
        links: dict[str, list[str]] = {}
        for name in sysfs.names(Path(directory)):
            path = f"{directory}/{name}"
            links.setdefault(os.path.basename(os.path.realpath(path)), []).append(path)
        for device, paths in links.items():
            chosen.setdefault(device, best(paths))
    return chosen


def best(links: list[str]) -> str:
    """
    >>> best(["/dev/disk/by-id/wwn-0x5000", "/dev/disk/by-id/ata-DISK_123"])
    '/dev/disk/by-id/ata-DISK_123'
    """
    return min(links, key=lambda link: (os.path.basename(link).startswith(_WORST), link))


def serial(kernel_name: str) -> str:
    """As udev found it; empty if the device has none."""
    try:
        device = pyudev.Devices.from_name(pyudev.Context(), "block", kernel_name)
    except pyudev.DeviceNotFoundError:
        return ""
    properties = device.properties
    return str(properties.get("ID_SERIAL_SHORT") or properties.get("ID_SERIAL") or "")
