"""Reading the kernel's own pages: /sys and /proc. Nothing here waits for a device's I/O."""

import os
from pathlib import Path

from vastskyd.core.errors import DeviceError, NotFoundError
from vastskyd.core.units import SECTOR_BYTES

BLOCK = Path("/sys/block")


def attribute(path: Path) -> str | None:
    """The attribute's text, stripped. None: there is no such attribute, or its device has gone
    or refuses to tell."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return None


def write_attribute(path: Path, value: str) -> None:
    """May sleep: by way of `calls.py`. OSError as the kernel says."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def names(directory: Path) -> tuple[str, ...]:
    """Sorted entries; none if there is no such directory."""
    try:
        return tuple(sorted(os.listdir(directory)))
    except OSError:
        return ()


def size_bytes(device_directory: Path) -> int:
    return int(attribute(device_directory / "size") or 0) * SECTOR_BYTES


def kernel_name(device: str) -> str:
    """ "nbd0" of any path to the block device. NotFoundError: no such device."""
    return number_name(device_number(device))


def exists(device: str) -> bool:
    """Whether the device's node is there, without opening it."""
    return os.path.exists(device)


def device_number(device: str) -> str:
    """ "43:0" of a path to a block device, without opening it. NotFoundError: no such device."""
    try:
        status = os.stat(device)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no device {device}") from error
    except OSError as error:
        raise DeviceError(f"{device} cannot be looked at: {error.strerror}") from error
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def number_name(number: str) -> str:
    """The kernel's name of device "43:0"; the number itself once the device has gone."""
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{number}"))
    except OSError:
        return number
