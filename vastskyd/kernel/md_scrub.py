"""What a scrub needs of md: a check, writes held for a moment, and its legs' data behind its back.

These calls may sleep in the kernel: make them by way of `calls.py`.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vastskyd.core.errors import BusyError, DeviceError, NotFoundError
from vastskyd.core.units import SECTOR_BYTES
from vastskyd.kernel import direct, md_sysfs, sysfs
from vastskyd.ports import CheckStatus


def start_check(array: str) -> None:
    """`array` is a kernel name, as everywhere here. sync_max is set to the array's end: md puts it
    back to "max" only when it gets there, which tells an end from an interruption."""
    directory = md_sysfs.directory(array)
    action = sysfs.attribute(directory / "sync_action")
    whole = sysfs.size_bytes(sysfs.BLOCK / array) // SECTOR_BYTES
    if action == "check":
        begun = sysfs.attribute(directory / "sync_min"), sysfs.attribute(directory / "sync_max")
        if begun == ("0", str(whole)):
            return
        # Somebody else's, and perhaps of a part only.
        sysfs.write_attribute(directory / "sync_action", "idle")
        action = sysfs.attribute(directory / "sync_action")
    if action is None:
        raise DeviceError(f"the array {array} is gone")
    if action != "idle":
        raise BusyError(f"md is at a {action} of {array}")
    sysfs.write_attribute(directory / "sync_min", "0")
    sysfs.write_attribute(directory / "sync_max", str(whole))
    sysfs.write_attribute(directory / "sync_action", "check")


def stop_check(array: str) -> None:
    directory = md_sysfs.directory(array)
    if sysfs.attribute(directory / "sync_action") == "check":
        sysfs.write_attribute(directory / "sync_action", "idle")


def check_status(array: str) -> CheckStatus:
    status = md_sysfs.check_status(array)
    if status is None:
        raise DeviceError(f"the array {array} is gone")
    return status


def hold_writes(array: str, offset_bytes: int, length_bytes: int) -> None:
    """At either write md waits for what is under way. Nothing is held while low is not below
    high."""
    directory = md_sysfs.directory(array)
    low, high = offset_bytes // SECTOR_BYTES, (offset_bytes + length_bytes) // SECTOR_BYTES
    _set(directory / "suspend_lo", low)
    _set(directory / "suspend_hi", high)


def release_writes(array: str) -> None:
    """BusyError while a program, perhaps one that was killed, still writes to a leg: its lock goes
    when the kernel is done with its write, and not before."""
    for member in md_sysfs.members(array):
        try:
            with locked(f"/dev/{member}"):
                pass
        except NotFoundError:
            continue  # it is gone, and so is what was on its way to it
    directory = md_sysfs.directory(array)
    _set(directory / "suspend_hi", 0)
    _set(directory / "suspend_lo", 0)


def read_leg(leg: str, offset_bytes: int, length_bytes: int) -> bytes:
    content = direct.read(leg, _data_offset_bytes(leg) + offset_bytes, length_bytes)
    if len(content) != length_bytes:
        raise DeviceError(f"{leg} ends before byte {offset_bytes + length_bytes} of its data")
    return content


def write_leg(leg: str, offset_bytes: int, content: bytes) -> None:
    with locked(leg):
        direct.write(leg, _data_offset_bytes(leg) + offset_bytes, content)


def _data_offset_bytes(leg: str) -> int:
    member = sysfs.kernel_name(leg)
    array = md_sysfs.array_of(member)
    offset = None if array is None else md_sysfs.data_offset_bytes(array, member)
    if offset is None:
        raise DeviceError(f"{leg} is not a leg of an array")
    return offset


@contextmanager
def locked(leg: str) -> Iterator[None]:
    """The leg's device is locked against others who would: udev does so only with disks, never
    with device-mapper's."""
    with direct.opened(leg, os.O_RDONLY) as fd:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            raise BusyError(f"a write to {leg} is on its way") from error
        yield


def _set(attribute: Path, sectors: int) -> None:
    sysfs.write_attribute(attribute, str(sectors))
