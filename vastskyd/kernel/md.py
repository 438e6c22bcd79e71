"""md: the segments' arrays. Implements ports.Md.

mdadm creates, assembles and adds, always with explicit devices and an empty configuration; the
rest goes through sysfs. md sleeps while a leg of the array is held and it wants to write a
superblock there, so every call has a bound.
"""

import asyncio
import errno
import fcntl
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from vastskyd.core.errors import BusyError, ConflictError, DeviceError
from vastskyd.core.units import KIB, MD_DATA_OFFSET_BYTES
from vastskyd.kernel import (
    direct,
    md_scrub,
    md_superblock,
    md_sysfs,
    process,
    sysfs,
    users,
)
from vastskyd.kernel.calls import Calls
from vastskyd.ports import CheckStatus, MdArray, MemberState, Superblock

T = TypeVar("T")

MDADM_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 5.0
BUSY_TIMEOUT_S = 3.0
BUSY_RETRY_S = 0.05
_RESYNC_TRIES = 100

# For how long after its last write an array stays marked active. Of itself md takes 0.2 s, and each
# write that comes later waits for a superblock on every leg, and is followed by another. What was
# written to is in the bitmap, which keeps it for as long anyway.
SAFE_MODE_DELAY_S = 5

# An empty configuration: no ARRAY line and no AUTO policy of the host has a say.
_CONFIG = "--config=none"
_BITMAP_CHUNK = "1M"

# Number 0x32 of md (major 9) in include/uapi/linux/raid/md_u.h.
_STOP_ARRAY = 0x932

# Ours are numbered downward from the last minor that any kernel makes on demand; people and
# mdadm itself begin at 0 and at 127.
_NUMBER_MAX = 511
_NUMBER_OF_MDADM = 127


class LinuxMd:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        # Between finding a free number and making the array of that number.
        self._numbering = asyncio.Lock()

    async def arrays(self) -> tuple[MdArray, ...]:
        return await self._calls.call(md_sysfs.arrays, CALL_TIMEOUT_S, "list md arrays")

    async def create(
        self, uuid: str, name: str, legs: tuple[str, ...], copies: int, size_bytes: int
    ) -> str:
        if (have := await self._with_uuid(uuid)) is not None:
            return have.device
        missing = ["missing"] * (copies - len(legs))
        # One copy is "an unusual number" to mdadm; a second may be added later.
        unusual = ["--force"] if copies == 1 else []
        return await self._make(
            [
                "--create",
                "--metadata=1.2",
                "--level=1",
                f"--raid-devices={copies}",
                f"--uuid={mdadm_uuid(uuid)}",
                f"--name={name}",
                "--homehost=any",
                f"--size={size_bytes // KIB}K",
                f"--data-offset={MD_DATA_OFFSET_BYTES // KIB}K",
                "--bitmap=internal",
                f"--bitmap-chunk={_BITMAP_CHUNK}",
                "--assume-clean",
                "--readonly",
                "--run",
                "--quiet",
                *unusual,
            ],
            [*legs, *missing],
        )

    async def assemble(self, uuid: str, name: str, legs: tuple[str, ...]) -> str:
        if (have := await self._with_uuid(uuid)) is not None:
            return have.device
        return await self._make(
            ["--assemble", f"--uuid={mdadm_uuid(uuid)}", "--readonly", "--run", "--quiet"],
            list(legs),
        )

    async def superblock(self, leg: str) -> Superblock | None:
        what = f"read the md superblock of {leg}"
        act = partial(direct.read, leg, md_superblock.OFFSET_BYTES, md_superblock.READ_BYTES)
        block = await self._calls.call(act, READ_TIMEOUT_S, what, lane=f"superblock:{leg}")
        return md_superblock.parse(block)

    async def make_writable(self, device: str) -> None:
        directory = md_sysfs.directory(sysfs.kernel_name(device))
        if sysfs.attribute(directory / "array_state") not in md_sysfs.READ_ONLY:
            return
        delay = str(SAFE_MODE_DELAY_S)
        await self._write(device, directory / "safe_mode_delay", delay, "set the idle time of")
        await self._write(device, directory / "array_state", "active", "make writable")
        # md's own thread starts the resync that an unclean end left pending; nobody is to write
        # before it has, so that no reader sees legs that differ longer than need be.
        for _ in range(_RESYNC_TRIES):
            if not md_sysfs.resync_pending(directory):
                return
            await asyncio.sleep(BUSY_RETRY_S)
        raise DeviceError(f"md does not begin the pending resync of {device}")

    async def add(self, device: str, leg: str, *, fresh: bool) -> None:
        array, member = sysfs.kernel_name(device), sysfs.kernel_name(leg)
        state = await self._member(array, member)
        if state is MemberState.FAULTY:
            await self.remove(device, leg)
        elif state is not None:
            return
        if fresh:
            # mdadm --add re-adds by the bitmap what carries a matching superblock.
            await self._erase_superblock(leg)
        else:
            again = ["mdadm", "--manage", device, "--re-add", leg]
            outcome = await process.run(again, MDADM_TIMEOUT_S, ok=range(256))
            if outcome.status == 0:
                return
            await self._erase_superblock(leg)
        await process.run(["mdadm", "--manage", device, "--add", leg], MDADM_TIMEOUT_S)

    async def fail(self, device: str, leg: str) -> None:
        array, member = sysfs.kernel_name(device), sysfs.kernel_name(leg)
        if await self._member(array, member) in (None, MemberState.FAULTY):
            return
        state = md_sysfs.member_directory(array, member) / "state"
        try:
            await self._write(device, state, "faulty", f"fail {member}")
        except BusyError as error:
            raise ConflictError(
                f"{member} is the last leg in sync of {device}: md keeps it"
            ) from error

    async def remove(self, device: str, leg: str) -> None:
        array = sysfs.kernel_name(device)
        # A leg whose device has gone is still a member by its kernel name.
        member = sysfs.kernel_name(leg) if sysfs.exists(leg) else os.path.basename(leg)
        state = md_sysfs.member_directory(array, member) / "state"
        await self._until_free(
            lambda: self._write(device, state, "remove", f"remove {member}"),
            f"{member} is still used by {device}",
        )

    async def resize(self, device: str, raid_devices: int) -> None:
        directory = md_sysfs.directory(sysfs.kernel_name(device))
        await self._write(device, directory / "raid_disks", str(raid_devices), "resize")

    async def thaw(self, device: str) -> None:
        action = md_sysfs.directory(sysfs.kernel_name(device)) / "sync_action"
        if sysfs.attribute(action) == "frozen":
            # Nobody else does: mdadm thaws only what it froze itself (sysfs_freeze_array).
            await self._write(device, action, "idle", "thaw")

    async def set_sync_rate(self, device: str, min_kib_s: int, max_kib_s: int) -> None:
        directory = md_sysfs.directory(sysfs.kernel_name(device))
        # To md a higher minimum would win, and of its own it has 1000 KiB/s: a rebuild under load
        # would last for weeks. It takes no minimum of 0.
        least = max(1, min(min_kib_s, max_kib_s))
        await self._write(device, directory / "sync_speed_min", str(least), "set rate")
        await self._write(device, directory / "sync_speed_max", str(max_kib_s), "set rate")

    async def start_check(self, device: str) -> None:
        await self._scrub("check", f"start a check of {device}", device, md_scrub.start_check)

    async def check_status(self, device: str) -> CheckStatus:
        array = os.path.basename(device)
        what = f"look at the check of {device}"
        return await self._calls.call(partial(md_scrub.check_status, array), CALL_TIMEOUT_S, what)

    async def stop_check(self, device: str) -> None:
        await self._scrub("check", f"stop the check of {device}", device, md_scrub.stop_check)

    async def hold_writes(self, device: str, offset_bytes: int, length_bytes: int) -> None:
        self._expect_settled(device)
        act = partial(md_scrub.hold_writes, offset_bytes=offset_bytes, length_bytes=length_bytes)
        await self._scrub("hold", f"hold writes to {device}", device, act)

    async def release_writes(self, device: str) -> None:
        self._expect_settled(device)
        for member in md_sysfs.members(os.path.basename(device)):
            if self._calls.at_work(_repair_lane(member)):
                raise BusyError(f"a write to {member} is on its way")
        await self._scrub("hold", f"release writes to {device}", device, md_scrub.release_writes)

    def _expect_settled(self, device: str) -> None:
        """One call at a time: one whose caller has gone must not change what a later one set."""
        if self._calls.at_work(f"hold:{device}"):
            raise BusyError(f"md has not yet done what was last asked about writes to {device}")

    async def read_leg(self, leg: str, offset_bytes: int, length_bytes: int) -> bytes:
        what = f"read {leg} at {offset_bytes}"
        return await self._calls.call(
            partial(md_scrub.read_leg, leg, offset_bytes, length_bytes),
            READ_TIMEOUT_S,
            what,
            lane=f"scrub:{leg}",
        )

    async def write_leg(self, leg: str, offset_bytes: int, content: bytes) -> None:
        await self._calls.call(
            partial(md_scrub.write_leg, leg, offset_bytes, content),
            CALL_TIMEOUT_S,
            f"write {leg} at {offset_bytes}",
            lane=_repair_lane(os.path.basename(leg)),
        )

    async def _scrub(self, kind: str, what: str, device: str, act: Callable[[str], None]) -> None:
        """In lanes of their own: whatever md waits for, a leg can still be failed."""
        array = os.path.basename(device)
        await self._calls.call(
            partial(_speaking, what, partial(act, array)),
            CALL_TIMEOUT_S,
            what,
            lane=f"{kind}:{device}",
        )

    async def stop(self, device: str) -> None:
        if not sysfs.exists(device):
            return
        kernel_name = sysfs.kernel_name(device)
        try:
            await self._until_free(lambda: self._stop(device), device)
        except BusyError as error:
            by = await self._calls.call(
                partial(users.of_device, kernel_name), CALL_TIMEOUT_S, f"holders of {device}"
            )
            what = ", ".join(by) or "by somebody unknown"
            raise BusyError(f"{device} is in use: {what}") from error

    async def discard_unmade(self) -> None:
        async with self._numbering:
            for name in await self._calls.call(_unmade, CALL_TIMEOUT_S, "list md arrays"):
                await self._discard(f"/dev/{name}")

    async def _with_uuid(self, uuid: str) -> MdArray | None:
        return next((one for one in await self.arrays() if one.uuid == uuid and one.running), None)

    async def _member(self, array: str, member: str) -> MemberState | None:
        found = await self._calls.call(
            partial(md_sysfs.array, array), CALL_TIMEOUT_S, f"look at {array}"
        )
        members = () if found is None else found.members
        return next((m.state for m in members if m.device == member), None)

    async def _make(self, how: list[str], legs: list[str]) -> str:
        """mdadm makes an array of a free number. If it fails, nothing of it stays."""
        async with self._numbering:
            device = f"/dev/{_free_name()}"
            action, *options = how
            try:
                await process.run(
                    ["mdadm", action, device, _CONFIG, *options, *legs], MDADM_TIMEOUT_S
                )
            except BaseException:
                await self._discard(device)
                raise
        return device

    async def _discard(self, device: str) -> None:
        """Stops what an mdadm that failed or was killed left half made."""
        await self.stop(device)

    async def _erase_superblock(self, leg: str) -> None:
        what = f"erase the md superblock of {leg}"
        await self._calls.call(
            partial(direct.zero, leg, md_superblock.OFFSET_BYTES, md_superblock.READ_BYTES),
            CALL_TIMEOUT_S,
            what,
            lane=f"superblock:{leg}",
        )

    async def _write(self, device: str, attribute: Path, value: str, verb: str) -> None:
        what = f"{verb} {device}"
        await self._calls.call(
            partial(_speaking, what, partial(sysfs.write_attribute, attribute, value)),
            CALL_TIMEOUT_S,
            what,
            lane=f"md:{device}",
        )

    async def _stop(self, device: str) -> None:
        what = f"stop {device}"
        await self._calls.call(
            partial(_speaking, what, partial(_stop_array, device)),
            CALL_TIMEOUT_S,
            what,
            lane=f"md:{device}",
        )

    async def _until_free(self, act: Callable[[], Awaitable[None]], busy: str) -> None:
        """Tries again for BUSY_TIMEOUT_S while the kernel says busy: udev may just look at the
        array, and md detaches a failed leg only once its last I/O is done."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + BUSY_TIMEOUT_S
        while True:
            try:
                return await act()
            except BusyError as error:
                if loop.time() > deadline_s:
                    raise BusyError(busy) from error
            await asyncio.sleep(BUSY_RETRY_S)


def _repair_lane(member: str) -> str:
    return f"repair:{member}"


def mdadm_uuid(uuid: str) -> str:
    """32 hex digits in mdadm's notation: four groups of eight."""
    return ":".join(uuid[at : at + 8] for at in range(0, 32, 8))


def _free_name() -> str:
    for number in range(_NUMBER_MAX, -1, -1):
        state = sysfs.attribute(md_sysfs.directory(f"md{number}") / "array_state")
        if state in (None, "clear"):
            return f"md{number}"
    raise DeviceError("no md device number is free")


def _unmade() -> tuple[str, ...]:
    """Arrays without a member, of the numbers that only we give."""
    names = (f"md{number}" for number in range(_NUMBER_MAX, _NUMBER_OF_MDADM, -1))
    return tuple(
        name
        for name in names
        if sysfs.attribute(md_sysfs.directory(name) / "array_state") == "inactive"
        and not md_sysfs.members(name)
    )


def _stop_array(device: str) -> None:
    """By ioctl: `clear` written to array_state stops an array that somebody has open (seen on
    6.12)."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _STOP_ARRAY)
    finally:
        os.close(fd)


def _speaking(what: str, act: Callable[[], T]) -> T | None:
    """None: the attribute or device has gone, and with it what was to be changed."""
    try:
        return act()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            return None
        if error.errno == errno.EBUSY:
            raise BusyError(f"md: {what}: it is in use") from error
        raise DeviceError(
            f"md: {what}: {error.strerror}", hint="`journalctl -k` says more"
        ) from error
