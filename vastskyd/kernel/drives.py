"""What a partition, or a file that a loop device makes a disk of, lies on."""

import os
from dataclasses import dataclass
from pathlib import Path

from vastskyd.kernel import sysfs

_CLASS = Path("/sys/class/block")
_DEPTH_MAX = 8


@dataclass(frozen=True)
class Below:
    """`drive`: the kernel's name of the whole disk; empty: it is one itself, or nobody can say (a
    file on a network's file system). `file`: the loop device's, or empty."""

    drive: str = ""
    file: str = ""


def below(kernel_name: str) -> Below:
    """Reads sysfs, and looks at a file's inode: at no device."""
    file = _backing_file(kernel_name)
    drive = _drive(kernel_name, _DEPTH_MAX)
    return Below("" if drive == kernel_name else drive, file)


def _backing_file(kernel_name: str) -> str:
    return sysfs.attribute(_CLASS / kernel_name / "loop" / "backing_file") or ""


def _drive(kernel_name: str, depth: int) -> str:
    """Of several below one (LVM, md) the first by name stands for all."""
    directory = _CLASS / kernel_name
    if not depth or not directory.exists():
        return ""
    if (directory / "partition").exists():
        return _drive(directory.resolve().parent.name, depth - 1)
    file = _backing_file(kernel_name)
    if file:
        return _under_file(file, depth)
    slaves = sysfs.names(directory / "slaves")
    return _drive(slaves[0], depth - 1) if slaves else kernel_name


def _under_file(file: str, depth: int) -> str:
    try:
        number = os.stat(file).st_dev
    except OSError:
        return ""
    name = sysfs.number_name(f"{os.major(number)}:{os.minor(number)}")
    return _drive(name, depth - 1)
