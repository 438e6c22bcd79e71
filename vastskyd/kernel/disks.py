"""The host's disks: what there is, what is on it, and the bytes vastskyd writes there.
Implements ports.Disks.
"""

import asyncio
import errno
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vastskyd.core.errors import ConflictError, DeviceError
from vastskyd.core.ondisk_layout import (
    AREA_START_BYTES,
    SLOT_BYTES,
    SLOT_MAGIC,
    SLOT_OFFSETS_BYTES,
)
from vastskyd.core.pace import Activity
from vastskyd.core.units import MIB, format_size
from vastskyd.kernel import direct, disk_links, drives, process, sysfs, users
from vastskyd.kernel.calls import Calls
from vastskyd.kernel.writings import Writings, writings
from vastskyd.ports import BlockDevice, SlotBytes

CALL_TIMEOUT_S = 20.0
WIPE_TIMEOUT_S = 120.0
TOOL_TIMEOUT_S = 20.0

# Not disks of this host: what stands on others, memory, and media that come and go.
_EXCLUDED = ("dm-", "md", "nbd", "zram", "ram", "sr", "fd", "drbd")
_SIZE_MIN_BYTES = 64 * MIB
_OURS = "(vastsky-extent-"  # of the name of what holds a disk
_TAKEN = ("mounted on ", "used as swap", "held by md")
_LOOKS_AT_ONCE = 4
_UNREADABLE = "unreadable"

# It has been claimed, whether the device that stands on it is there yet or not.
_PATH_OF_ANOTHER = "a path of multipathd"

_DISKSTATS = Path("/proc/diskstats")

_KINDS = {
    "gpt": "GPT partition table",
    "PMBR": "GPT partition table",
    "dos": "DOS partition table",
    "LVM2_member": "LVM physical volume",
    "linux_raid_member": "md member",
    "crypto_LUKS": "LUKS encrypted data",
    "swap": "swap space",
    "zfs_member": "ZFS member",
}


@dataclass(frozen=True)
class _Found:
    """What a look found, and what had been written then."""

    writings: Writings
    member: bool
    found: str


class LinuxDisks:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._looking = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._found: dict[str, _Found] = {}

    async def list(self, *, anew: bool = False) -> tuple[BlockDevice, ...]:
        names = await self._calls.call(_kernel_names, CALL_TIMEOUT_S, "list disks")
        links = await self._calls.call(
            disk_links.by_preference, CALL_TIMEOUT_S, "list links of disks"
        )
        known = {} if anew else self._found
        self._found = {name: known[name] for name in names if name in known}
        looked = await asyncio.gather(*(self._look(name, links) for name in names))
        return tuple(device for device in looked if device is not None)

    async def activity(self) -> dict[str, Activity]:
        text = await self._calls.call(_DISKSTATS.read_text, CALL_TIMEOUT_S, f"read {_DISKSTATS}")
        return parse_diskstats(text)

    async def read_slots(self, path: str) -> SlotBytes:
        what = f"read the slots of {path}"
        act = partial(_read_at_slots, path, SLOT_BYTES, settled=True)
        return SlotBytes(await self._calls.call(act, CALL_TIMEOUT_S, what, lane=path))

    async def write_slot(self, path: str, slot: int, content: bytes) -> None:
        if len(content) > SLOT_BYTES:
            raise DeviceError(f"a description of {len(content)} bytes does not fit its slot")
        what = f"write slot {slot} of {path}"
        offset = SLOT_OFFSETS_BYTES[slot]
        await self._calls.call(
            partial(_write_ours, path, offset, content), CALL_TIMEOUT_S, what, lane=path
        )

    async def remnants(self, path: str) -> str:
        return await self._calls.call(
            partial(_remnants, path), CALL_TIMEOUT_S, f"look whether {path} is new", lane=path
        )

    async def erase_signatures(self, path: str) -> None:
        # To the kernel first: wipefs leaves alone what it does not know.
        await self._calls.call(partial(_refuse_used, path), CALL_TIMEOUT_S, f"look at {path}")
        await process.run(["wipefs", "--all", "--quiet", path], TOOL_TIMEOUT_S)
        await self._calls.call(
            partial(_zero_ends, path), WIPE_TIMEOUT_S, f"erase {path}", lane=path
        )

    async def wipe(self, path: str, offset_bytes: int, length_bytes: int) -> None:
        await self._calls.call(
            partial(_zero_ours, path, offset_bytes, length_bytes),
            WIPE_TIMEOUT_S,
            f"wipe {path}",
            lane=f"wipe {path}",
        )

    async def _look(self, name: str, links: dict[str, tuple[str, ...]]) -> BlockDevice | None:
        """None: it went away while it was looked at."""
        path, *others = _paths(name, links)
        directory = Path("/sys/class/block") / name
        size = sysfs.size_bytes(directory)
        known = await self._calls.call(
            partial(disk_links.known, name), CALL_TIMEOUT_S, f"ask udev about {name}"
        )
        below = drives.below(name)
        used = users.of_whole(name)
        if known.multipath and not used:
            used = (_PATH_OF_ANOTHER,)
        ours = [word for word in used if _OURS in word]
        member = bool(ours) and any(_OURS in word for word in users.of_itself(name))
        found = "vastsky member" if member else ""
        if not member and ours:
            found = "in use: a partition of it is a vastsky member"
        elif not member and used:
            found = f"in use: {used[0]}"
        elif not member:
            member, found = await self._what_is_on(name, path, below.file)
        if not directory.exists():
            return None
        return BlockDevice(
            path=path,
            kernel_name=name,
            serial=known.serial,
            size_bytes=size,
            found=found,
            member=member,
            aliases=(*others, *([below.file] if below.file else ())),
            partition=(directory / "partition").exists(),
            drive=_paths(below.drive, links)[0] if below.drive else "",
            file=below.file,
        )

    async def _what_is_on(self, name: str, path: str, file: str) -> tuple[bool, str]:
        """(member, found). Of what nobody has written to since it is known: a disk that sleeps is
        let sleep."""
        known = self._found.get(name)
        now = await self._calls.call(
            partial(writings, name, file), CALL_TIMEOUT_S, f"ask the kernel about {name}"
        )
        if known is not None and known.writings == now:
            return known.member, known.found
        async with self._looking:
            member, found = await self._probe(path)
        self._found.pop(name, None)
        if now is not None and not found.startswith(_UNREADABLE):
            self._found[name] = _Found(now, member, found)
        return member, found

    async def _probe(self, path: str) -> tuple[bool, str]:
        """(member, found) of what is written on it. A disk that cannot be read is no candidate,
        so that is "found" as well."""
        try:
            starts = await self._calls.call(
                partial(_read_at_slots, path, direct.BLOCK_BYTES),
                CALL_TIMEOUT_S,
                f"look at {path}",
                lane=path,
            )
            if any(start.startswith(SLOT_MAGIC) for start in starts):
                return True, "vastsky member"
            outcome = await process.run(["wipefs", "--json", path], TOOL_TIMEOUT_S)
        except DeviceError as error:
            return False, f"{_UNREADABLE}: {error.message}"
        return False, describe_signatures(outcome.output)


def _paths(name: str, links: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return (*links.get(name, ()), f"/dev/{name}")


def parse_diskstats(text: str) -> dict[str, Activity]:
    """Of /proc/diskstats: the kernel's Documentation/admin-guide/iostats.rst."""
    found = {}
    for line in text.splitlines():
        _, _, name, reads, _, _, read_ms, writes, _, _, write_ms, waiting, *_ = line.split()
        took_s = (int(read_ms) + int(write_ms)) / 1000
        found[name] = Activity(int(reads) + int(writes), took_s, int(waiting))
    return found


def describe_signatures(wipefs_json: str) -> str:
    """Of `wipefs --json`: "GPT partition table", "ext4 filesystem"; empty if there is none."""
    if not wipefs_json.strip():
        return ""
    try:
        signatures = json.loads(wipefs_json)["signatures"]
        kinds = [str(one["type"]) for one in signatures]
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"wipefs answered what is not understood: {wipefs_json[:200]}") from error
    words = [_KINDS.get(kind, f"{kind} filesystem") for kind in kinds]
    return ", ".join(dict.fromkeys(words))


def _kernel_names() -> tuple[str, ...]:
    """Whole disks, and their partitions."""
    found: list[str] = []
    for name in sysfs.names(sysfs.BLOCK):
        directory = sysfs.BLOCK / name
        if name.startswith(_EXCLUDED) or (directory / "removable_media").exists():
            continue
        if name.startswith("loop") and not (directory / "loop" / "backing_file").exists():
            continue
        for one in (name, *users.partitions(name)):
            if sysfs.size_bytes(Path("/sys/class/block") / one) >= _SIZE_MIN_BYTES:
                found.append(one)
    return tuple(found)


def _read_at_slots(path: str, length_bytes: int, *, settled: bool = False) -> tuple[bytes, ...]:
    return tuple(
        direct.read(path, offset, length_bytes, settled=settled) for offset in SLOT_OFFSETS_BYTES
    )


def _remnants(path: str) -> str:
    name = sysfs.kernel_name(path)
    if found := users.but_lookers(users.of_device(name)):
        return found[0]
    try:
        _refuse_used(path, os.O_RDONLY)
    except ConflictError as error:
        return error.message
    size = sysfs.size_bytes(Path("/sys/class/block") / name)
    last = max(0, size - MIB) // direct.BLOCK_BYTES * direct.BLOCK_BYTES
    if direct.read(path, 0, AREA_START_BYTES).strip(b"\0"):
        return f"its first {format_size(AREA_START_BYTES)} do not read as zeros"
    if direct.read(path, last, MIB).strip(b"\0"):
        return f"its last {format_size(MIB)} do not read as zeros"
    return ""


def _refuse_used(path: str, mode: int = os.O_RDWR) -> None:
    """ConflictError if anybody has it, or a partition of it, for himself."""
    name = sysfs.kernel_name(path)
    try:
        os.close(os.open(path, mode | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise DeviceError(f"{path} cannot be opened: {error.strerror}") from error
        by = ", ".join(users.of_whole(name)) or "by somebody unknown"
        raise ConflictError(
            f"{path} is in use: {by}",
            hint=f"`lsblk -f {path}` shows what uses it; end that first",
        ) from error


def _write_ours(path: str, offset_bytes: int, content: bytes) -> None:
    _refuse_taken(path)
    try:
        _refuse_used(path)  # also what only the kernel knows, as of btrfs
    except ConflictError:
        if not _has_extents(path):  # asked after it: the first of them may have come just now
            raise
    direct.write(path, offset_bytes, content)


def _zero_ours(path: str, offset_bytes: int, length_bytes: int) -> None:
    _refuse_taken(path)
    direct.zero(path, offset_bytes, length_bytes)


def _has_extents(path: str) -> bool:
    return any(_OURS in word for word in users.of_itself(sysfs.kernel_name(path)))


def _refuse_taken(path: str) -> None:
    """ConflictError if somebody has made something else of an enrolled disk. Nobody is kept from
    that while no extent is on it, and it may be mounted by now."""
    taken = [word for word in users.of_whole(sysfs.kernel_name(path)) if word.startswith(_TAKEN)]
    if taken:
        raise ConflictError(
            f"{path} is in use: {taken[0]}",
            hint=f"it was enrolled before: `lsblk -f {path}` shows what uses it now",
        )


def _zero_ends(path: str) -> None:
    """All before the area of the extents, an older description with it, and the last MiB."""
    size = sysfs.size_bytes(Path("/sys/class/block") / sysfs.kernel_name(path))
    with direct.opened(path, os.O_RDWR | os.O_EXCL) as fd:
        for offset, end in ((0, min(AREA_START_BYTES, size)), (max(0, size - MIB), size)):
            direct.alone_with(fd, offset, end - offset)
            direct.zero_open(fd, offset, end - offset)
        os.fsync(fd)
