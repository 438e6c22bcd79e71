"""md arrays as sysfs shows them. /proc/mdstat and `mdadm -D` can hang while a leg is held
(measured on 6.12); these attributes do not."""

from pathlib import Path

from vastskyd.core import names
from vastskyd.core.names import LegName
from vastskyd.core.units import SECTOR_BYTES
from vastskyd.kernel import sysfs
from vastskyd.ports import MdArray, MdMember, MemberState

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
    members = _members(kernel_name)
    leg = _leg(members)
    if leg is None:
        return None
    # Members go one after the other, but only when the array no longer runs; and come so before.
    state = sysfs.attribute(directory(kernel_name) / "array_state") or "clear"
    done, total = sync_progress(sysfs.attribute(directory(kernel_name) / "sync_completed") or "")
    return MdArray(
        device=f"/dev/{kernel_name}",
        uuid=names.array_uuid(leg.volume, leg.segment),
        members=members,
        running=before not in _NOT_RUNNING and state not in _NOT_RUNNING,
        raid_devices=_number(sysfs.attribute(directory(kernel_name) / "raid_disks")),
        read_only=state in READ_ONLY,
        sync_action=sysfs.attribute(directory(kernel_name) / "sync_action") or "idle",
        sync_done_bytes=done,
        sync_total_bytes=total,
    )


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
    members = []
    for entry in sysfs.names(directory(kernel_name)):
        if not entry.startswith("dev-"):
            continue
        state = sysfs.attribute(directory(kernel_name) / entry / "state")
        slot = sysfs.attribute(directory(kernel_name) / entry / "slot")
        if state is not None and slot is not None:  # else it left just now
            device = entry.removeprefix("dev-")
            members.append(MdMember(device, member_state(state, slot)))
    return tuple(members)


def _leg(members: tuple[MdMember, ...]) -> LegName | None:
    for member in members:
        uuid = sysfs.attribute(sysfs.BLOCK / member.device / "dm" / "uuid") or ""
        if (leg := LegName.parse(uuid)) is not None:
            return leg
    return None


def _number(text: str | None) -> int:
    """raid_disks reads "3", or "4 (3)" during a reshape."""
    return int((text or "0").split()[0])
