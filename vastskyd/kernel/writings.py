"""Whether a disk may have been written to since it was last looked at: by the kernel's and udev's
word, without a look at the disk, which may sleep."""

import os
from dataclasses import dataclass
from pathlib import Path

from vastskyd.kernel import sysfs

_CLASS = Path("/sys/class/block")
_UDEV = Path("/run/udev/data")
# Fields of Documentation/block/stat.rst.
_READS, _WRITES, _DISCARDED = 0, 4, 13


@dataclass(frozen=True)
class Writings:
    """Two that are equal: nobody of this host has written there in between. `sequence`: the
    kernel's number of the disk itself, which no other ever has. `told`: when udev last worked on
    an event of it, as it does after each close of a program that could write, and when an
    administrator says so: writes of other hosts, to a disk that is shared, are not counted here.
    `file`: when what a loop device stands on was last written."""

    sequence: str
    size_bytes: int
    writes: str
    discarded: str
    told_ns: int
    file_ns: int


def writings(kernel_name: str, file: str) -> Writings | None:
    """None: nobody can say. `file`: a loop device's. Touches no disk."""
    directory = _CLASS / kernel_name
    whole = directory.resolve().parent if (directory / "partition").exists() else directory
    sequence = sysfs.attribute(whole / "diskseq")
    counted = (sysfs.attribute(whole / "stat") or "").split()
    if sequence is None or len(counted) <= _DISCARDED or counted[_READS] == "0":
        return None  # it was read before, and that was not counted
    number = sysfs.attribute(directory / "dev") or ""
    return Writings(
        sequence=sequence,
        size_bytes=sysfs.size_bytes(directory),
        writes=counted[_WRITES],
        discarded=counted[_DISCARDED],
        told_ns=_changed_ns(_UDEV / f"b{number}"),
        file_ns=_changed_ns(Path(file)) if file else 0,
    )


def _changed_ns(path: Path) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
