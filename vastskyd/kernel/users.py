"""Who uses a block device, in words for people."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from vastskyd.core.errors import NotFoundError
from vastskyd.kernel import sysfs
from vastskyd.kernel.mounts import mount_points

_PROC = Path("/proc")

# A busy host has hundreds of thousands of descriptors; naming an opener is a courtesy.
SCAN_TIMEOUT_S = 2.0
OPENERS_MAX = 8

# Who has a device open for a moment, to see what it is: after each close of a program that wrote.
_LOOKERS = ("opened by (udev-worker)", "opened by systemd-udevd")


def of_device(kernel_name: str) -> tuple[str, ...]:
    """Mounts, devices on top, swap, and processes that have it open. Reads /proc and /sys only;
    takes SCAN_TIMEOUT_S at most, give or take one process."""
    return (*of_itself(kernel_name), *_openers(kernel_name))


def but_lookers(found: Iterable[str]) -> tuple[str, ...]:
    """Without udev, which has a device open for a moment."""
    return tuple(user for user in found if not user.startswith(_LOOKERS))


def of_itself(kernel_name: str) -> tuple[str, ...]:
    """As of_device, without the search for processes."""
    return (*_mounts(kernel_name), *_holders(kernel_name), *_swaps(kernel_name))


def of_whole(kernel_name: str) -> tuple[str, ...]:
    """As of_device, for a disk together with its partitions; without the search for processes."""
    found: list[str] = []
    for name in (kernel_name, *partitions(kernel_name)):
        found += of_itself(name)
    return tuple(dict.fromkeys(found))


def partitions(kernel_name: str) -> tuple[str, ...]:
    """Kernel names of a whole disk's partitions."""
    directory = sysfs.BLOCK / kernel_name
    return tuple(
        name
        for name in sysfs.names(directory)
        if name.startswith(kernel_name) and (directory / name / "partition").exists()
    )


def mounted_at(kernel_name: str) -> tuple[str, ...]:
    """Where file systems on the device are mounted on the host: of it the sandbox that vastskyd
    runs in hides some places."""
    number = sysfs.attribute(Path("/sys/class/block") / kernel_name / "dev") or ""
    return mount_points(sysfs.attribute(_PROC / "1" / "mountinfo") or "", number)


def _mounts(kernel_name: str) -> Iterator[str]:
    for point in mounted_at(kernel_name):
        yield f"mounted on {point}"


def _holders(kernel_name: str) -> Iterator[str]:
    for holder in sysfs.names(Path("/sys/class/block") / kernel_name / "holders"):
        name = sysfs.attribute(sysfs.BLOCK / holder / "dm" / "name")
        yield f"held by {holder}" + (f" ({name})" if name else "")


def _swaps(kernel_name: str) -> Iterator[str]:
    for line in (sysfs.attribute(_PROC / "swaps") or "").splitlines()[1:]:
        device = line.split()[0]
        try:
            if sysfs.kernel_name(device) == kernel_name:
                yield "used as swap"
        except NotFoundError:
            continue  # a swap file whose path this process cannot see


def _openers(kernel_name: str) -> Iterator[str]:
    deadline_s = time.monotonic() + SCAN_TIMEOUT_S
    number = sysfs.attribute(Path("/sys/class/block") / kernel_name / "dev")
    if number is None:
        return
    found = 0
    for pid in filter(str.isdigit, sysfs.names(_PROC)):
        if found == OPENERS_MAX or time.monotonic() > deadline_s:
            return
        if int(pid) != os.getpid() and _has_open(_PROC / pid / "fd", number):
            found += 1
            yield f"opened by {sysfs.attribute(_PROC / pid / 'comm') or 'a program'} (pid {pid})"


def _has_open(descriptors: Path, number: str) -> bool:
    """Only what lies in /dev is looked at: stat of a file on a dead network mount would hang."""
    for name in sysfs.names(descriptors):
        try:
            if not os.readlink(descriptors / name).startswith("/dev/"):
                continue
            status = os.stat(descriptors / name)
        except OSError:
            continue  # closed just now
        if f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}" == number:
            return True
    return False
