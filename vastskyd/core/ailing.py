"""The manager's rule for what disks say of themselves: failing health marks the disk, a warning is
told."""

import msgspec

from vastskyd.core.model import SERVING, Disk, DiskState, Severity, SmartHealth, SmartReading
from vastskyd.core.smart import SmartWarning, follow, news, warnings
from vastskyd.core.turn import Turn, disk_name


def follow_smart(turn: Turn, disk: Disk, reading: SmartReading) -> None:
    """Keeps the reading. The mark goes when the disk takes its word back."""
    if disk.state not in SERVING:
        return
    limits = turn.policy.smart
    history = follow(disk.smart, reading, limits, turn.wall_s)
    before = disk_warnings(turn, disk)
    disk = msgspec.structs.replace(disk, smart=history)
    turn.draft.put(disk)
    for warning in news(before, warnings(history, limits)):
        said = f"{disk_name(disk)}: {warning.message}"
        turn.event(Severity.WARNING, "disk-warning", disk.id, said)
    _mark(turn, disk, history.last)


def _mark(turn: Turn, disk: Disk, last: SmartReading) -> None:
    if last.health is SmartHealth.FAILING and not disk.smart_ignored:
        failing = msgspec.structs.replace(disk, state=DiskState.FAILING, reason=last.reason)
        turn.draft.put(failing)
        if disk.state is not DiskState.FAILING:
            said = f"{disk_name(disk)} says that it is failing: {last.reason}"
            turn.event(Severity.ERROR, "disk-failing", disk.id, said)
    elif last.health is SmartHealth.PASSED and disk.state is DiskState.FAILING:
        turn.draft.put(msgspec.structs.replace(disk, state=DiskState.ONLINE, reason=""))
        said = f"{disk_name(disk)} no longer says that it is failing"
        turn.event(Severity.INFO, "disk-well", disk.id, said)


def disk_warnings(turn: Turn, disk: Disk) -> tuple[SmartWarning, ...]:
    return () if disk.smart is None else warnings(disk.smart, turn.policy.smart)
