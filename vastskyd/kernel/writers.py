"""Ending the programs that write to a device, so that none of them hears of a write any more.

A killed process in an uninterruptible wait does not die before its I/O ends, but it never returns
from the kernel: whatever that I/O ends with, nobody is told. Files are found by the mount that
they were opened through (fdinfo's mnt_id), so nothing is asked of a file system that may hang.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from vastskyd.core.errors import DeviceError
from vastskyd.kernel import sysfs
from vastskyd.kernel.mounts import read_mounts

_PROC = Path("/proc")
_ROUNDS_MAX = 20
_NAMED_MAX = 16


def end_writers(kernel_name: str) -> tuple[str, ...]:
    """SIGKILL to each process that has the device, a device on top of it or a file on either open
    for writing, or mapped so; "fio (pid 812)" of those, some of them if there are many. Looks
    again until there is no new one: a killed process has no time to fork, its parent has.

    DeviceError if new ones keep coming: then nothing is promised.
    """
    numbers = frozenset(_numbers(kernel_name))
    killed: set[int] = set()
    named: list[str] = []
    for _ in range(_ROUNDS_MAX):
        mounts = Mounts(numbers)
        found = [pid for pid in _processes() if pid not in killed and writes(pid, mounts, numbers)]
        if not found:
            return tuple(named)
        for pid in found:
            comm = sysfs.attribute(_PROC / str(pid) / "comm") or "a program"
            if _kill(pid) and len(named) < _NAMED_MAX:
                named.append(f"{comm} (pid {pid})")
            killed.add(pid)
    raise DeviceError(f"programs that write to {kernel_name} keep coming: {', '.join(named)}")


def _numbers(kernel_name: str) -> Iterator[str]:
    """As "253:4": of the device, and of all that stands on it."""
    number = sysfs.attribute(Path("/sys/class/block") / kernel_name / "dev")
    if number is not None:
        yield number
    for holder in sysfs.names(Path("/sys/class/block") / kernel_name / "holders"):
        yield from _numbers(holder)


def _processes() -> Iterator[int]:
    """All but the first, this one, and vastskyd itself, who has this made here."""
    spared = (1, os.getpid(), os.getppid())
    for name in sysfs.names(_PROC):
        if name.isdigit() and int(name) not in spared:
            yield int(name)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


class Mounts:
    """The ids of the devices' mounts, by process: most share a mount namespace."""

    def __init__(self, numbers: frozenset[str]) -> None:
        self._numbers = numbers
        self._ids: dict[str, frozenset[int]] = {}

    def ids(self, process: Path) -> frozenset[int]:
        try:
            namespace = os.readlink(process / "ns/mnt")
        except OSError:
            return frozenset()  # it has ended
        if namespace not in self._ids:
            mounts = read_mounts(sysfs.attribute(process / "mountinfo") or "")
            found = frozenset(mount.id for mount in mounts if mount.number in self._numbers)
            self._ids[namespace] = found
        return self._ids[namespace]


def writes(pid: int, mounts: Mounts, numbers: frozenset[str]) -> bool:
    """Whether the process could write to one of the devices ("major:minor")."""
    process = _PROC / str(pid)
    return _has_file(process, mounts.ids(process), numbers) or _has_mapping(process, numbers)


def _has_file(process: Path, mount_ids: frozenset[int], numbers: frozenset[str]) -> bool:
    for name in sysfs.names(process / "fd"):
        try:
            target = os.readlink(process / "fd" / name)
        except OSError:
            continue  # closed just now
        # Files have a path; sockets, pipes and the like have "socket:[812]".
        suspect = target.startswith("/dev/") or (bool(mount_ids) and target.startswith("/"))
        if suspect and _is_writable(process, name, mount_ids, numbers):
            return True
    return False


def _is_writable(
    process: Path, name: str, mount_ids: frozenset[int], numbers: frozenset[str]
) -> bool:
    fields = _fields(sysfs.attribute(process / "fdinfo" / name) or "")
    try:
        if int(fields["flags"], 8) & os.O_ACCMODE == os.O_RDONLY:
            return False
        if int(fields["mnt_id"]) in mount_ids:
            return True
    except (KeyError, ValueError):
        return False  # closed just now
    return _is_device(process / "fd" / name, numbers)


def _fields(text: str) -> dict[str, str]:
    """
    >>> _fields("pos:\\t0\\nflags:\\t0100002\\nmnt_id:\\t29")["flags"]
    '0100002'
    """
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _is_device(path: Path, numbers: frozenset[str]) -> bool:
    """Of a link in /proc, or what such a one names. Only what lies in /dev is looked at: stat of a
    file on a dead network mount would hang."""
    try:
        name = os.readlink(path) if path.is_relative_to(_PROC) else str(path)
        if not name.startswith("/dev/"):
            return False
        status = os.stat(path)
    except OSError:
        return False
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" in numbers


def _has_mapping(directory: Path, numbers: frozenset[str]) -> bool:
    """Of /proc/PID/maps: "7f..-7f.. rw-s 00000000 fd:04 12 /srv/data/file"; where the device itself
    is mapped the number is of the file system that has its name."""
    text = sysfs.attribute(directory / "maps") or ""
    if "w-s " not in text and "wxs " not in text:
        return False
    for line in text.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 5 or fields[1][1] != "w" or fields[1][3] != "s":
            continue
        major, _, minor = fields[3].partition(":")
        if f"{int(major, 16)}:{int(minor, 16)}" in numbers:
            return True
        if len(fields) > 5 and _is_device(Path(fields[5]), numbers):
            return True
    return False
