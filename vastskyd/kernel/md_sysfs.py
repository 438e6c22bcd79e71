"""md arrays as sysfs shows them. /proc/mdstat and `mdadm -D` can hang while a leg is held
(measured on 6.12); these attributes do not."""

from pathlib import Path

from vastskyd.core import names
from vastskyd.core.names import LegName
from vastskyd.core.units import SECTOR_BYTES
from vastskyd.kernel import sysfs
from vastskyd.ports import CheckStatus, MdArray, MdMember, MemberState

READ_ONLY = ("readonly", "read-auto")
_NOT_RUNNING = ("clear", "inactive")


def directory(kernel_name: str) -> Path:
    return sysfs.BLOCK / kernel_name / "md"


def member_directory(array: str, member: str) -> Path:
    return directory(array) / f"dev-{member}"


def arrays() -> tuple[MdArray, ...]:
    """Those of which a member is a leg of ours."""
    found = (array(name) for name in sysfs.names(sysfs.BLOCK) if name.startswith("md"))
    return tuple(one for one in found if one is not None)


def array(kernel_name: str) -> MdArray | None:
    """None: not ours, stopped, or just gone.

    The UUID is that of the volume and segment whose legs the members are: no I/O, and true
    even when no leg can be read. An array of other people's devices has none of these.
    """
    before = sysfs.attribute(directory(kernel_name) / "array_state")
    if before is None or before == "clear":
        return None
    ours = _members(kernel_name)
    leg = _leg(ours)
    if leg is None:
        return None
    # Members go one after the other, but only when the array no longer runs; and come so before.
    state = sysfs.attribute(directory(kernel_name) / "array_state") or "clear"
    done, total = sync_progress(sysfs.attribute(directory(kernel_name) / "sync_completed") or "")
    return MdArray(
        device=f"/dev/{kernel_name}",
        uuid=names.array_uuid(leg.volume, leg.segment),
        members=ours,
        running=before not in _NOT_RUNNING and state not in _NOT_RUNNING,
        raid_devices=_number(sysfs.attribute(directory(kernel_name) / "raid_disks")),
        read_only=state in READ_ONLY,
        sync_action=sysfs.attribute(directory(kernel_name) / "sync_action") or "idle",
        sync_done_bytes=done,
        sync_total_bytes=total,
        writes_held=_held_sectors(kernel_name) != (0, 0),
    )


def check_status(kernel_name: str) -> CheckStatus | None:
    """None: there is no such array any more. Read in this order, since a check may end meanwhile:
    only what ran to its end puts sync_max back."""
    action = sysfs.attribute(directory(kernel_name) / "sync_action")
    if action is None:
        return None
    completed = sysfs.attribute(directory(kernel_name) / "sync_completed") or ""
    running = action == "check"
    ended = sysfs.attribute(directory(kernel_name) / "sync_max") == "max"
    last = sysfs.attribute(directory(kernel_name) / "last_sync_action")
    mismatches = _number(sysfs.attribute(directory(kernel_name) / "mismatch_cnt"))
    return CheckStatus(
        running=running,
        complete=not running and ended and last == "check",
        done_bytes=sync_progress(completed)[0],
        mismatch_bytes=mismatches * SECTOR_BYTES,
    )


def data_offset_bytes(array: str, member: str) -> int | None:
    """Where on the member md keeps the array's data; None: it is no member."""
    text = sysfs.attribute(member_directory(array, member) / "offset")
    return None if text is None else int(text) * SECTOR_BYTES


def array_of(member: str) -> str | None:
    """The array that the device is a member of."""
    holders = sysfs.names(sysfs.BLOCK / member / "holders")
    return next((name for name in holders if name.startswith("md")), None)


def members(array: str) -> tuple[str, ...]:
    entries = sysfs.names(directory(array))
    return tuple(entry.removeprefix("dev-") for entry in entries if entry.startswith("dev-"))


def _held_sectors(array: str) -> tuple[int, int]:
    low = sysfs.attribute(directory(array) / "suspend_lo")
    high = sysfs.attribute(directory(array) / "suspend_hi")
    return _number(low), _number(high)


def sync_progress(text: str) -> tuple[int, int]:
    """Bytes (done, total) of "1024 / 131072" sectors; (0, 0) of "none" and "delayed"."""
    done, slash, total = text.partition("/")
    if not slash:
        return 0, 0
    return int(done) * SECTOR_BYTES, int(total) * SECTOR_BYTES


def member_state(state: str, slot: str) -> MemberState:
    """Of a member's attributes `state` (a list by commas) and `slot` (a number, or "none")."""
    words = state.split(",")
    if "faulty" in words:
        return MemberState.FAULTY
    if "in_sync" in words:
        return MemberState.IN_SYNC
    return MemberState.SPARE if slot == "none" else MemberState.RECOVERING


def resync_pending(array_directory: Path) -> bool:
    """Whether a resync is due that has not begun."""
    start = sysfs.attribute(array_directory / "resync_start")
    return start not in (None, "none") and (
        sysfs.attribute(array_directory / "sync_action") == "idle"
    )


def _members(kernel_name: str) -> tuple[MdMember, ...]:
    found = []
    for device in members(kernel_name):
        state = sysfs.attribute(member_directory(kernel_name, device) / "state")
        slot = sysfs.attribute(member_directory(kernel_name, device) / "slot")
        if state is not None and slot is not None:  # else it left just now
            found.append(MdMember(device, member_state(state, slot)))
    return tuple(found)


def _leg(found: tuple[MdMember, ...]) -> LegName | None:
    for member in found:
        uuid = sysfs.attribute(sysfs.BLOCK / member.device / "dm" / "uuid") or ""
        if (leg := LegName.parse(uuid)) is not None:
            return leg
    return None


def _number(text: str | None) -> int:
    """raid_disks reads "3", or "4 (3)" during a reshape."""
    return int((text or "0").split()[0])
