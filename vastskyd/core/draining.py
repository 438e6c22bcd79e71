"""Disks that an administrator retires: their legs are moved elsewhere first, as off a disk that is
failing, and then nothing is known of them any more."""

import msgspec

from vastskyd.core.documents import ExtentCondition
from vastskyd.core.errors import BusyError, CancelledError, ConflictError
from vastskyd.core.evacuating import legs_on, outlook
from vastskyd.core.ids import DiskId
from vastskyd.core.model import (
    SERVING,
    Disk,
    DiskState,
    Extent,
    Job,
    JobKind,
    JobState,
    Layout,
    Severity,
)
from vastskyd.core.offers import remember_retired
from vastskyd.core.turn import Turn, disk_name


def drain(turn: Turn, disk: Disk) -> Job:
    """The job that ends when the disk is retired: at once, if nothing is on it. BusyError: what is
    on it is moved nowhere."""
    for job in turn.running(JobKind.RETIRE, subject=disk.id):
        return job
    legs = legs_on(turn, disk)
    alone = sorted({volume.name for volume, _, _ in legs if volume.layout is Layout.LINEAR})
    if alone:
        raise BusyError(
            f"{disk_name(disk)} holds the only copy of {', '.join(alone)}",
            hint="save what is in each, and delete it first: `vastskyctl volume delete"
            f" {alone[0]}`",
        )
    if legs and disk.state not in SERVING:
        names = sorted({volume.name for volume, _, _ in legs})
        raise BusyError(
            f"{disk_name(disk)} holds legs of {', '.join(names)}",
            hint="they are rebuilt elsewhere if there is room, and `vastskyctl status` says if"
            " there is none; then retire it",
        )
    job = turn.start_job(
        JobKind.RETIRE, disk.id, disk_name(disk), total_bytes=_bytes_on(turn, disk)
    )
    if legs:
        turn.event(Severity.INFO, "disk-draining", disk.id, f"{disk_name(disk)} is being emptied")
    _go_on(turn, disk, job)
    return turn.draft.jobs[job.id]


def follow_drains(turn: Turn) -> None:
    for job in list(turn.draft.jobs.values()):
        if job.kind is JobKind.RETIRE and job.state is JobState.RUNNING:
            disk = turn.draft.disks.get(DiskId(job.subject))
            if disk is not None:
                _go_on(turn, disk, job)


def _go_on(turn: Turn, disk: Disk, job: Job) -> None:
    """A disk that was away meanwhile is not placed on when it is back."""
    if disk.state is DiskState.ONLINE:
        disk = msgspec.structs.replace(disk, state=DiskState.DRAINING)
        turn.draft.put(disk)
    if not legs_on(turn, disk) and not _is_being_wiped(turn, disk):
        _retire(turn, disk)
        turn.end_job(job, f"{disk_name(disk)} retired")


def _extents_on(turn: Turn, disk: Disk) -> list[Extent]:
    return [extent for extent in turn.draft.extents.values() if extent.disk == disk.id]


def _is_being_wiped(turn: Turn, disk: Disk) -> bool:
    facts = [turn.facts.extent(disk.node, extent.id) for extent in _extents_on(turn, disk)]
    left = [fact for fact in facts if fact is None or fact.condition is not ExtentCondition.FAILED]
    return bool(left) and disk.state in SERVING


def _retire(turn: Turn, disk: Disk) -> None:
    for extent in _extents_on(turn, disk):
        turn.release(extent.id)
    turn.draft.delete(disk)
    remember_retired(turn, disk)
    turn.event(Severity.INFO, "disk-retired", disk.id, f"{disk_name(disk)} is retired")


def cancel_drain(turn: Turn, job: Job, why: str) -> None:
    """What was moved already stays where it is; what is under way is not needed any more."""
    disk = turn.draft.disks.get(DiskId(job.subject))
    if disk is None:
        raise ConflictError(
            f"job {job.id} cannot be cancelled now: the disk is retired",
            hint=f"enrol it again: `vastskyctl disk enrol {job.about} --wipe`",
        )
    turn.fail_job(job, CancelledError(why))
    if disk.state is DiskState.DRAINING:
        turn.draft.put(msgspec.structs.replace(disk, state=DiskState.ONLINE))
    turn.event(
        Severity.INFO, "disk-kept", disk.id, f"{disk_name(disk)} is not retired, but used on"
    )


def drain_progress(turn: Turn, job: Job) -> tuple[int, str]:
    """How much has left it, and what becomes of the rest."""
    disk = turn.draft.disks.get(DiskId(job.subject))
    if disk is None:
        return job.total_bytes, ""
    left_bytes = _bytes_on(turn, disk)
    said = outlook(turn, disk) if legs_on(turn, disk) else "what was on it is being wiped"
    return max(0, job.total_bytes - left_bytes), said


def _bytes_on(turn: Turn, disk: Disk) -> int:
    return sum(segment.length_bytes for _, segment, _ in legs_on(turn, disk))
