"""The manager's rules: from records and facts to the next records.

`advance` may be called at any moment and any number of times; a rule that has nothing to do does
nothing. Each turn is committed whole before anything of it is told to a node.
"""

from collections.abc import Callable

import msgspec

from vastskyd.core.ailing import follow_smart
from vastskyd.core.documents import (
    DiskCondition,
    DiskFact,
    ExtentCondition,
    VolumeCondition,
    VolumeFact,
)
from vastskyd.core.draining import follow_drains
from vastskyd.core.errors import BusyError, ConflictError, UnreachableError, VastskyError
from vastskyd.core.evacuating import evacuate
from vastskyd.core.ids import ExtentId
from vastskyd.core.lineage import next_lineage
from vastskyd.core.mending import ended, mend
from vastskyd.core.model import (
    SERVING,
    Attachment,
    AttachmentState,
    Disk,
    DiskState,
    Extent,
    ExtentState,
    Job,
    JobKind,
    JobState,
    LegState,
    Segment,
    Severity,
    Volume,
    VolumeState,
)
from vastskyd.core.moving import FIRST_WORD_S, fail_over, let_go
from vastskyd.core.offers import (
    UNASKED,
    follow_candidates,
    forget_retired,
    refused_unasked,
    unasked_job,
)
from vastskyd.core.quorum import recovery_quorum, relied_on
from vastskyd.core.recovery import follow_head, replace_lost_legs
from vastskyd.core.refusals import refusal, volume_refusal
from vastskyd.core.scrubbing import begin_due, follow_scrubs, scrub_patience_s
from vastskyd.core.turn import Turn, disk_name, with_range

_ROUNDS_MAX = 50
# How often what was noted is looked at.
_NOTED_S = 1.0


def advance(turn: Turn) -> None:
    """Applies all rules until none changes anything more."""
    # Once: a report is worth one step of a leg. The next is taken when the head has said that it
    # knows of this one.
    follow_head(turn)
    for _ in range(_ROUNDS_MAX):
        before = (turn.draft.puts(), turn.draft.deletes())
        for rule in _RULES:
            rule(turn)
        if (turn.draft.puts(), turn.draft.deletes()) == before:
            return


def patience_s(turn: Turn) -> float:
    """In how long some rule's patience ends, with a node that is away or with what is waited for.
    Infinite if none waits."""
    policy = turn.policy
    bounds_s = (policy.failover_delay_s, FIRST_WORD_S, policy.rebuild_delay_s)
    away_s = [
        turn.monotonic_s - facts.since_s
        for node in turn.draft.nodes
        if not (facts := turn.facts[node]).online
    ]
    left_s = [bound_s - since_s for since_s in away_s for bound_s in bounds_s]
    left_s += [
        since_s + policy.attach_timeout_s - turn.monotonic_s
        for (job, _), since_s in turn.waiting.items()
        if job in turn.draft.jobs and turn.draft.jobs[job].state is JobState.RUNNING
    ]
    left_s += [scrub_patience_s(turn, volume.scrub) for volume in turn.draft.volumes.values()]
    if turn.noted:  # of these the rule itself knows how long
        left_s.append(_NOTED_S)
    return min((one_s for one_s in left_s if one_s > 0), default=float("inf"))


# --- disks and extents -------------------------------------------------------------------


def _disks(turn: Turn) -> None:
    for disk in list(turn.draft.disks.values()):
        facts = turn.facts[disk.node]
        fact = facts.disks.get(disk.id)
        if fact is None or not facts.online:
            continue
        if disk.state is DiskState.ENROLLING:
            if fact.condition is DiskCondition.PRESENT:
                online = msgspec.structs.replace(
                    disk,
                    state=DiskState.ONLINE,
                    size_bytes=fact.size_bytes,
                    area_start_bytes=fact.area_start_bytes,
                    area_end_bytes=fact.area_end_bytes,
                    drive=fact.drive,
                    file=fact.file,
                )
                turn.draft.put(online)
                forget_retired(turn, online)
                itself = f" by itself: {UNASKED}" if unasked_job(turn, disk) else ""
                for job in turn.running(JobKind.ENROL, subject=disk.id):
                    turn.end_job(job, f"{disk_name(disk)} enrolled{itself}")
                turn.event(
                    Severity.INFO,
                    "disk-enrolled",
                    disk.id,
                    f"{disk_name(disk)} is enrolled{itself}",
                )
            else:
                error = refusal(disk.node, fact, fact.message)
                if unasked_job(turn, disk):
                    refused_unasked(turn, disk, error)
                turn.draft.delete(disk)
                for job in turn.running(JobKind.ENROL, subject=disk.id):
                    turn.fail_job(job, error)
        else:
            _follow_disk(turn, disk, fact.condition, fact.message)
            _follow_pace(turn, turn.draft.disks[disk.id], fact.slow_ms)
            _follow_path(turn, turn.draft.disks[disk.id], fact)
            if fact.smart is not None and fact.condition is DiskCondition.PRESENT:
                follow_smart(turn, turn.draft.disks[disk.id], fact.smart)


def _follow_disk(turn: Turn, disk: Disk, condition: DiskCondition, message: str) -> None:
    there = disk.state in SERVING or disk.state is DiskState.MISSING
    if there and condition is DiskCondition.FAILED:
        turn.draft.put(msgspec.structs.replace(disk, state=DiskState.FAILED, reason=message))
        turn.event(Severity.ERROR, "disk-failed", disk.id, f"{disk_name(disk)} failed: {message}")
    elif disk.state in SERVING and condition is DiskCondition.MISSING:
        turn.draft.put(msgspec.structs.replace(disk, state=DiskState.MISSING, reason=message))
        turn.event(
            Severity.ERROR, "disk-missing", disk.id, f"{disk_name(disk)} is missing: {message}"
        )
    elif disk.state is DiskState.MISSING and condition is DiskCondition.PRESENT:
        turn.draft.put(msgspec.structs.replace(disk, state=DiskState.ONLINE, reason=""))
        turn.event(Severity.INFO, "disk-returned", disk.id, f"{disk_name(disk)} is back")


def _follow_pace(turn: Turn, disk: Disk, slow_ms: int) -> None:
    if disk.slow == (slow_ms > 0):
        return
    turn.draft.put(msgspec.structs.replace(disk, slow=slow_ms > 0))
    if slow_ms:
        said = f"{disk_name(disk)} is slow: a request takes {slow_ms / 1000:.1f} s"
        turn.event(Severity.WARNING, "disk-slow", disk.id, said)
    else:
        turn.event(Severity.INFO, "disk-quick", disk.id, f"{disk_name(disk)} is no longer slow")


def _follow_path(turn: Turn, disk: Disk, fact: DiskFact) -> None:
    """Its lasting name may come a moment after the disk itself, and so may its drive's."""
    if fact.condition is DiskCondition.PRESENT:
        named = msgspec.structs.replace(disk, path=fact.path, drive=fact.drive, file=fact.file)
        turn.draft.put(named)


def _moved_disks(turn: Turn) -> None:
    """A disk belongs to the host that has it now, if the one that had it says that it is gone, or
    is gone itself."""
    for node, facts in list(turn.facts.items()):
        if not facts.online or not facts.fresh:
            continue
        for fact in facts.disks.values():
            disk = turn.draft.disks.get(fact.id)
            if (
                disk is None
                or disk.node == node
                or not (disk.state in SERVING or disk.state is DiskState.MISSING)
                or fact.condition is not DiskCondition.PRESENT
                or not _gave_away(turn, disk)
            ):
                continue
            before = disk_name(disk)
            moved = msgspec.structs.replace(
                disk,
                node=node,
                path=fact.path,
                drive=fact.drive,
                file=fact.file,
                state=DiskState.ONLINE,
                reason="",
            )
            turn.draft.put(moved)
            said = f"disk {before} was moved: it is {disk_name(moved)} now"
            turn.event(Severity.INFO, "disk-moved", disk.id, said)


def _gave_away(turn: Turn, disk: Disk) -> bool:
    old = turn.facts[disk.node]
    if not old.online:
        return old.unreachable_s(turn.monotonic_s) > 0
    fact = old.disks.get(disk.id)
    return old.fresh and fact is not None and fact.condition is DiskCondition.MISSING


def _extents(turn: Turn) -> None:
    for extent in list(turn.draft.extents.values()):
        disk = turn.draft.disks.get(extent.disk)
        if disk is None:
            if extent.state is ExtentState.RELEASED:
                turn.draft.delete(extent)
            continue
        facts = turn.facts[disk.node]
        fact = facts.extents.get(extent.id)
        if fact is None or not facts.online:
            continue
        if extent.state is ExtentState.PREPARING and fact.condition is ExtentCondition.READY:
            ready = msgspec.structs.replace(extent, state=ExtentState.READY, wipe_first=False)
            turn.draft.put(ready)
        elif extent.state is ExtentState.RELEASED and fact.condition is ExtentCondition.GONE:
            _forget(turn, disk, extent)


def _forget(turn: Turn, disk: Disk, extent: Extent) -> None:
    # One that was released before its host had wiped it: perhaps the host never heard of it.
    if not extent.wipe_first:
        span = (extent.offset_bytes, extent.offset_bytes + extent.length_bytes)
        turn.draft.put(msgspec.structs.replace(disk, clean=with_range(disk.clean, span)))
    turn.draft.delete(extent)


# --- volumes -----------------------------------------------------------------------------


def _creating(turn: Turn) -> None:
    for volume in list(turn.draft.volumes.values()):
        if volume.state is not VolumeState.CREATING:
            continue
        extents = [turn.draft.extents.get(leg.extent) for s in volume.segments for leg in s.legs]
        if all(extent and extent.state is ExtentState.READY for extent in extents):
            turn.draft.put(msgspec.structs.replace(volume, state=VolumeState.AVAILABLE))
            for job in turn.running(JobKind.CREATE, subject=volume.id):
                turn.end_job(job, f"volume {volume.name} created")
            turn.event(
                Severity.INFO, "volume-created", volume.id, f"volume {volume.name} is created"
            )


def _attachments(turn: Turn) -> None:
    for volume in list(turn.draft.volumes.values()):
        if volume.attachment is None:
            continue
        _ATTACHMENT_RULES[volume.attachment.state](turn, volume, volume.attachment)


def _with_state(turn: Turn, volume: Volume, attachment: Attachment, state: AttachmentState) -> None:
    changed = msgspec.structs.replace(attachment, state=state, since_s=turn.wall_s)
    turn.draft.put(msgspec.structs.replace(volume, attachment=changed))


def fenced_legs(turn: Turn, segment: Segment, epoch: int) -> list[ExtentId]:
    """The committed legs whose storage host says that it has taken over the epoch."""
    fenced = []
    for extent in relied_on(segment):
        node = turn.node_of(extent)
        fact = None if node is None else turn.facts.extent(node, extent)
        if (
            node is not None
            and turn.facts[node].online
            and fact is not None
            and fact.epoch >= epoch
            and fact.condition is ExtentCondition.READY
        ):
            fenced.append(extent)
    return fenced


def _awaited(turn: Turn, segment: Segment, fenced: list[ExtentId]) -> bool:
    """Whether a leg that is not fenced yet is on a node and a disk that will soon answer."""
    for extent in relied_on(segment):
        disk = turn.draft.disk_of(extent)
        if extent not in fenced and disk is not None and disk.state in SERVING:
            facts = turn.facts[disk.node]
            fact = facts.extents.get(extent)
            failed = fact is not None and fact.condition is ExtentCondition.FAILED
            if facts.online and not failed:
                return True
    return False


def _short(turn: Turn, volume: Volume, attachment: Attachment) -> str:
    """Which segment has too few legs fenced off all heads before; empty: the old head can
    acknowledge nothing any more, and what it acknowledged is within reach."""
    short = ""
    for segment in volume.segments:
        fenced = fenced_legs(turn, segment, attachment.epoch)
        committed = len(relied_on(segment))
        need = committed if segment.in_doubt else recovery_quorum(committed)
        if attachment.forced or not committed:
            need = 1
        if len(fenced) < need:
            short = (
                f"segment {segment.index} has {len(fenced)} of {committed} in-sync legs within"
                f" reach and needs {need}"
            )
    return short


def _fencing(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    if short := _short(turn, volume, attachment):
        _give_up_late_attach(turn, volume, attachment, short)
        return
    for segment in volume.segments:
        if _awaited(turn, segment, fenced_legs(turn, segment, attachment.epoch)):
            return
    if attachment.forced:
        volume = _condemn_unfenced(turn, volume, attachment)
    volume = _trust(turn, volume)
    fenced = msgspec.structs.replace(attachment, fences=None)
    _with_state(turn, volume, fenced, AttachmentState.ATTACHING)


def _condemn_unfenced(turn: Turn, volume: Volume, attachment: Attachment) -> Volume:
    """A forced attach may leave newer writes behind on legs it does not use: they never return."""
    for segment in volume.segments:
        fenced = fenced_legs(turn, segment, attachment.epoch)
        legs = tuple(
            msgspec.structs.replace(leg, state=LegState.FAILED, since_s=turn.wall_s)
            if leg.extent in relied_on(segment) and leg.extent not in fenced
            else leg
            for leg in segment.legs
        )
        volume = turn.put_segment(volume, msgspec.structs.replace(segment, legs=legs))
    return volume


def _trust(turn: Turn, volume: Volume) -> Volume:
    """All legs that may be the set are there: from here on they are it, by a revision that no disk
    can have seen."""
    for segment in volume.segments:
        if segment.in_doubt:
            legs = tuple(
                msgspec.structs.replace(leg, state=LegState.IN_SYNC, since_s=turn.wall_s)
                if leg.state is LegState.JOINING
                else leg
                for leg in segment.legs
            )
            after = msgspec.structs.replace(
                segment, legs=legs, revision=next_lineage(segment.revision)
            )
            volume = turn.put_segment(volume, after)
    return volume


def _give_up_late_attach(
    turn: Turn, volume: Volume, attachment: Attachment, why: str, fact: VolumeFact | None = None
) -> None:
    """`fact`: what its head says of it."""
    for job in turn.running(JobKind.ATTACH, subject=volume.id):
        if turn.waited_s(job, attachment.state) < turn.policy.attach_timeout_s:
            continue
        said = f"volume {volume.name} was not attached: {why}"
        turn.fail_job(job, volume_refusal(volume, attachment, fact, said))
        if not volume.standby:  # else it is to be up wherever it can: that goes on being tried
            let_go(turn, volume, attachment)
        turn.event(Severity.ERROR, "attach-failed", volume.id, f"volume {volume.name}: {why}")


def _attaching(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    facts = turn.facts[attachment.head]
    fact = facts.volumes.get(volume.id)
    current = facts.fresh and fact is not None and fact.epoch == attachment.epoch
    active = fact is not None and fact.condition is VolumeCondition.ACTIVE
    # Of one that was mended there until just now, the head may not know yet that it gets a device.
    if current and fact is not None and active and (fact.exposed or attachment.mending):
        # Which legs are behind its array shows, and `recovery` has recorded.
        seen = msgspec.structs.replace(volume, unclean=False)
        _with_state(turn, seen, attachment, AttachmentState.ATTACHED)
        for job in turn.running(JobKind.ATTACH, subject=volume.id):
            turn.end_job(job, f"volume {volume.name} attached on {attachment.head}")
        how = "being mended" if attachment.mending else "attached"
        turn.event(
            Severity.INFO,
            "volume-mending" if attachment.mending else "volume-attached",
            volume.id,
            f"volume {volume.name} is {how} on {attachment.head}, epoch {attachment.epoch}",
        )
        return
    said = fact.message if fact is not None and fact.message else "its head has not built it"
    _give_up_late_attach(turn, volume, attachment, said, fact)


def _attached(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    """Nothing to do: `recovery` looks after its legs."""


def _detaching(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    facts = turn.facts[attachment.head]
    fact: VolumeFact | None = facts.volumes.get(volume.id)
    jobs = turn.running(JobKind.DETACH, subject=volume.id)
    if not facts.current:
        _give_up_late_detach(turn, volume, attachment, jobs)
    elif fact is None and attachment.mending:
        ended(turn, volume, attachment)
    elif fact is None:
        _detached(turn, volume, attachment)
    elif fact.condition is VolumeCondition.IN_USE and jobs:
        _with_state(turn, volume, attachment, AttachmentState.ATTACHED)
        users = "; ".join(fact.users) or "it is open"
        for job in jobs:
            turn.fail_job(job, BusyError(f"volume {volume.name} is in use: {users}"))
    else:
        _give_up_late_detach(turn, volume, attachment, jobs)


def _detached(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    turn.draft.put(msgspec.structs.replace(volume, attachment=None))
    for job in turn.running(JobKind.REBUILD, subject=volume.id):
        turn.fail_job(job, ConflictError(f"it goes on when volume {volume.name} is attached"))
    for job in turn.running(JobKind.DETACH, subject=volume.id):
        turn.end_job(job, f"volume {volume.name} detached from {attachment.head}")
    turn.event(
        Severity.INFO,
        "volume-detached",
        volume.id,
        f"volume {volume.name} is detached from {attachment.head}",
    )


def _unfenced(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    """Until its last head says that it has it no more, or can acknowledge nothing."""
    facts = turn.facts[attachment.head]
    if (facts.current and volume.id not in facts.volumes) or not _short(turn, volume, attachment):
        _detached(turn, volume, attachment)
    else:
        jobs = turn.running(JobKind.DETACH, subject=volume.id)
        _give_up_late_detach(turn, volume, attachment, jobs)


def _give_up_late_detach(
    turn: Turn, volume: Volume, attachment: Attachment, jobs: list[Job]
) -> None:
    """The job ends; the head takes the volume down as soon as it can."""
    facts = turn.facts[attachment.head]
    fact = facts.volumes.get(volume.id)
    said = f"volume {volume.name} is not detached: "
    error: VastskyError
    if not facts.online:
        said += f"its head {attachment.head} is unreachable and takes it down when it returns"
        error = UnreachableError(
            said,
            hint=f"wait for {attachment.head}; an attach on another head fences it:"
            f" `vastskyctl volume attach {volume.name} HEAD`",
        )
    else:
        said += fact.message if fact and fact.message else "its head has not taken it down yet"
        error = volume_refusal(volume, attachment, fact, said)
    for job in jobs:
        if turn.waited_s(job, "detach") >= turn.policy.attach_timeout_s:
            turn.fail_job(job, error)


_ATTACHMENT_RULES: dict[AttachmentState, Callable[[Turn, Volume, Attachment], None]] = {
    AttachmentState.FENCING: _fencing,
    AttachmentState.ATTACHING: _attaching,
    AttachmentState.ATTACHED: _attached,
    AttachmentState.DETACHING: _detaching,
    AttachmentState.UNFENCED: _unfenced,
}

_RULES: tuple[Callable[[Turn], None], ...] = (
    _disks,
    _moved_disks,
    follow_candidates,
    _extents,
    _creating,
    fail_over,
    _attachments,
    replace_lost_legs,
    evacuate,
    mend,
    follow_drains,
    follow_scrubs,
    begin_due,
)
