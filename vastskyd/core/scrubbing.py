"""Scrubs: comparing a volume's copies with each other, one segment after the other.

The manager says which segment is next, under a number; its head does it, and tells what it found.
"""

from collections.abc import Collection

import msgspec

from vastskyd.core.documents import LegCondition, ScrubFact, ScrubState, SegmentFact
from vastskyd.core.errors import (
    CancelledError,
    ConflictError,
    UnreachableError,
    VastskyError,
    from_code,
)
from vastskyd.core.ids import DiskId, VolumeId
from vastskyd.core.model import (
    Attachment,
    AttachmentState,
    Job,
    JobKind,
    Scrub,
    ScrubResult,
    Segment,
    Severity,
    Volume,
)
from vastskyd.core.recovery import Rebuilds, admitted_rebuilds, disks_of
from vastskyd.core.refusals import refusal
from vastskyd.core.turn import Turn, disk_name
from vastskyd.core.units import format_size

# A segment that is not fit for so long is left out this time.
WAIT_MOST_S = 3600.0
TRIES_MOST = 3
# A scrub that came to nothing, or left something out, is not made up for sooner.
AGAIN_S = 86_400.0

_CROWDED = "its disks serve rebuilds or other scrubs"
_ADVICE = (
    "check the data there with its file system or its checksums, write again what is wrong, and"
    " scrub again"
)


# --- beginning ---------------------------------------------------------------------------


def begin_scrub(turn: Turn, volume: Volume, attachment: Attachment) -> Job:
    job = turn.start_job(JobKind.SCRUB, volume.id, volume.name, total_bytes=_length(volume))
    scrub = Scrub(job=job.id, epoch=attachment.epoch)
    order = volume.scrub_order + 1
    turn.draft.put(msgspec.structs.replace(volume, scrub=scrub, scrub_order=order))
    return job


def begin_due(turn: Turn) -> None:
    """Volumes whose last scrub is older than the policy allows, once all of their legs are in
    sync."""
    for volume in list(turn.draft.volumes.values()):
        attachment = volume.attachment
        if (
            attachment is not None
            and attachment.state is AttachmentState.ATTACHED
            and not attachment.mending
            and volume.scrub is None
            and _is_due(turn, volume)
            and all(_is_whole(segment) for segment in volume.segments)
        ):
            begin_scrub(turn, volume, attachment)


def _is_due(turn: Turn, volume: Volume) -> bool:
    interval_s = turn.policy.scrub_interval_s
    if not interval_s:
        return False
    last = volume.scrubbed
    last_s = volume.created_s if last is None else last.ended_s
    if last is not None and last.skipped:
        interval_s = min(interval_s, AGAIN_S)
    again_s = volume.scrub_failed_s + min(interval_s, AGAIN_S)
    return turn.wall_s >= last_s + interval_s and turn.wall_s >= again_s


def _is_whole(segment: Segment) -> bool:
    return len(segment.legs) > 1 and len(segment.in_sync()) == len(segment.legs)


def _length(volume: Volume) -> int:
    return sum(segment.length_bytes for segment in volume.segments)


# --- which may go on now -----------------------------------------------------------------


def scrub_patience_s(turn: Turn, scrub: Scrub | None) -> float:
    """In how long one that waits is given up; infinite if it does not wait."""
    if scrub is None or not scrub.waits_since_s:
        return float("inf")
    return scrub.waits_since_s + WAIT_MOST_S - turn.wall_s


def admitted_scrubs(turn: Turn, rebuilds: Rebuilds) -> frozenset[VolumeId]:
    """The volumes whose next segment may be scrubbed now: a scrub counts as a rebuild of its disks,
    and rebuilds go first. Those under way stay, as long as no rebuild wants their disks."""
    waiting = [
        (_fact(turn, volume) is None, volume.id)
        for volume in turn.draft.volumes.values()
        if volume.scrub is not None and not _hindrance(turn, volume, volume.scrub)
    ]
    load = dict(rebuilds.load)
    admitted = []
    for _, volume_id in sorted(waiting):
        disks = _disks(turn, turn.draft.volumes[volume_id])
        if all(load.get(disk, 0) < turn.policy.rebuilds_per_disk for disk in disks):
            admitted.append(volume_id)
            for disk in disks:
                load[disk] = load.get(disk, 0) + 1
    return frozenset(admitted)


def _disks(turn: Turn, volume: Volume) -> set[DiskId]:
    if volume.scrub is None:
        return set()
    segment = volume.segments[volume.scrub.segment]
    return disks_of(turn, (leg.extent for leg in segment.legs))


def _hindrance(turn: Turn, volume: Volume, scrub: Scrub) -> str:
    """Why the segment cannot be scrubbed now; empty: it can."""
    attachment = volume.attachment
    if attachment is None or attachment.state is not AttachmentState.ATTACHED:
        return "the volume is not attached"
    if not turn.facts[attachment.head].online:
        return f"its head {attachment.head} is unreachable"
    segment = volume.segments[scrub.segment]
    if len(segment.legs) > volume.copies:
        return f"a leg of segment {segment.index} is being moved"
    seen = _seen(turn, volume, scrub)
    good = set(segment.in_sync())
    if seen is not None:  # a head that has not spoken since the manager started is not told to stop
        good &= {leg.extent for leg in seen.legs if leg.condition is LegCondition.ACTIVE}
    if len(good) == len(segment.legs):
        return ""
    of = f"{len(good)} of {len(segment.legs)}"
    return f"segment {segment.index} has {of} legs in sync and at work"


def _seen(turn: Turn, volume: Volume, scrub: Scrub) -> SegmentFact | None:
    """What the head says of the segment that is next."""
    if volume.attachment is None:
        return None
    fact = turn.facts[volume.attachment.head].volumes.get(volume.id)
    if fact is None or fact.epoch != scrub.epoch:
        return None
    return next((seen for seen in fact.segments if seen.index == scrub.segment), None)


def _fact(turn: Turn, volume: Volume) -> ScrubFact | None:
    """What the head says of the order that was last given."""
    seen = None if volume.scrub is None else _seen(turn, volume, volume.scrub)
    fact = None if seen is None else seen.scrub
    return fact if fact is not None and fact.order == volume.scrub_order else None


# --- following ---------------------------------------------------------------------------


def follow_scrubs(turn: Turn) -> None:
    under_way = [volume for volume in turn.draft.volumes.values() if volume.scrub is not None]
    if not under_way:
        return
    admitted = admitted_scrubs(turn, admitted_rebuilds(turn))
    for volume in under_way:
        if volume.scrub is not None:
            _follow(turn, volume, volume.scrub, admitted)


def _follow(turn: Turn, volume: Volume, scrub: Scrub, admitted: Collection[VolumeId]) -> None:
    attachment = volume.attachment
    if attachment is None or attachment.epoch != scrub.epoch:
        how = "detached" if attachment is None else f"moved to {attachment.head}"
        why = f"volume {volume.name} was {how} meanwhile"
        _give_up(turn, volume, scrub, ConflictError(why))
        return
    fact = _fact(turn, volume)
    if fact is not None and fact.state is ScrubState.DONE:
        _record(turn, volume, scrub, fact)
    elif fact is not None and fact.state is ScrubState.FAILED:
        _try_again(turn, volume, scrub, refusal(attachment.head, fact, fact.message))
    else:
        _wait(turn, volume, scrub, waits=volume.id not in admitted)


def _record(turn: Turn, volume: Volume, scrub: Scrub, fact: ScrubFact) -> None:
    segment = volume.segments[scrub.segment]
    where = f"volume {volume.name}, segment {segment.index}"
    if fact.repaired_bytes:
        disks = [turn.draft.disk_of(extent) for extent in fact.wrong]
        on = ", ".join(disk_name(disk) for disk in disks if disk is not None)
        said = f"{where}: {_repaired(fact.repaired_bytes)}; wrong was what is on {on}"
        turn.event(Severity.WARNING, "scrub-repaired", volume.id, said)
    if fact.undecided_bytes:
        before = sum(s.length_bytes for s in volume.segments if s.index < segment.index)
        said = (
            f"{where}: {_undecided(fact.undecided_bytes)}, the first at byte"
            f" {before + fact.first_undecided_bytes} of the volume: {_ADVICE}"
        )
        turn.event(Severity.ERROR, "scrub-undecided", volume.id, said)
    known = msgspec.structs.replace(segment, undecided_bytes=fact.undecided_bytes)
    volume = turn.put_segment(volume, known)
    found = msgspec.structs.replace(
        scrub,
        checked_bytes=scrub.checked_bytes + segment.length_bytes,
        repaired_bytes=scrub.repaired_bytes + fact.repaired_bytes,
        undecided_bytes=scrub.undecided_bytes + fact.undecided_bytes,
    )
    _next_segment(turn, volume, msgspec.structs.replace(found, waits_since_s=0.0))


def _try_again(turn: Turn, volume: Volume, scrub: Scrub, error: VastskyError) -> None:
    if scrub.tries + 1 >= TRIES_MOST:
        _skip(turn, volume, scrub, error)
        return
    again = msgspec.structs.replace(scrub, tries=scrub.tries + 1)
    order = volume.scrub_order + 1
    turn.draft.put(msgspec.structs.replace(volume, scrub=again, scrub_order=order))


def _wait(turn: Turn, volume: Volume, scrub: Scrub, *, waits: bool) -> None:
    if waits != bool(scrub.waits_since_s):
        since_s = turn.wall_s if waits else 0.0
        changed = msgspec.structs.replace(scrub, waits_since_s=since_s)
        turn.draft.put(msgspec.structs.replace(volume, scrub=changed))
    elif waits and turn.wall_s - scrub.waits_since_s >= WAIT_MOST_S:
        if volume.attachment is None or turn.facts[volume.attachment.head].online:
            why = _hindrance(turn, volume, scrub) or _CROWDED
            _skip(turn, volume, scrub, ConflictError(why))
        else:
            why = f"its head {volume.attachment.head} is unreachable"
            _give_up(turn, volume, scrub, UnreachableError(why))


def _skip(turn: Turn, volume: Volume, scrub: Scrub, error: VastskyError) -> None:
    """It keeps its `waits_since_s`: what hinders one segment may hinder the next for no longer."""
    without = msgspec.structs.replace(
        scrub,
        skipped=(*scrub.skipped, scrub.segment),
        skipped_why=error.message,
        skipped_code=error.code,
        skipped_hint=error.hint,
    )
    _next_segment(turn, volume, without)


def _next_segment(turn: Turn, volume: Volume, scrub: Scrub) -> None:
    if scrub.segment + 1 >= len(volume.segments):
        _finish(turn, volume, scrub)
        return
    following = msgspec.structs.replace(scrub, segment=scrub.segment + 1, tries=0)
    order = volume.scrub_order + 1
    turn.draft.put(msgspec.structs.replace(volume, scrub=following, scrub_order=order))


def _finish(turn: Turn, volume: Volume, scrub: Scrub) -> None:
    said = _conclusion(scrub)
    result = ScrubResult(
        ended_s=turn.wall_s,
        checked_bytes=scrub.checked_bytes,
        repaired_bytes=scrub.repaired_bytes,
        undecided_bytes=scrub.undecided_bytes,
        skipped=scrub.skipped,
        message=said,
    )
    if scrub.checked_bytes:
        turn.draft.put(msgspec.structs.replace(volume, scrub=None, scrubbed=result))
        for job in turn.running(JobKind.SCRUB, subject=volume.id):
            turn.end_job(job, said)
        turn.event(
            Severity.INFO, "volume-scrubbed", volume.id, f"volume {volume.name} is scrubbed: {said}"
        )
    else:
        error = from_code(scrub.skipped_code, said, scrub.skipped_hint)
        _give_up(turn, volume, scrub, error)


def cancel_scrub(turn: Turn, volume: Volume, scrub: Scrub, why: str) -> None:
    """Its head ends what it began when its order is gone. It is not made up for at once."""
    _give_up(turn, volume, scrub, CancelledError(why))


def _give_up(turn: Turn, volume: Volume, scrub: Scrub, error: VastskyError) -> None:
    turn.draft.put(msgspec.structs.replace(volume, scrub=None, scrub_failed_s=turn.wall_s))
    done = f"; {format_size(scrub.checked_bytes)} were compared" if scrub.checked_bytes else ""
    for job in turn.running(JobKind.SCRUB, subject=volume.id):
        turn.fail_job(job, from_code(error.code, f"{error.message}{done}", error.hint))


# --- words -------------------------------------------------------------------------------


def _conclusion(scrub: Scrub) -> str:
    parts = []
    if scrub.repaired_bytes:
        parts.append(_repaired(scrub.repaired_bytes))
    if scrub.undecided_bytes:
        parts.append(f"{_undecided(scrub.undecided_bytes)}: {_ADVICE}")
    if not parts and scrub.checked_bytes:
        parts.append(f"no difference in {format_size(scrub.checked_bytes)}")
    if scrub.skipped:
        which = ", ".join(map(str, scrub.skipped))
        parts.append(f"segments left out: {which}, the last because {scrub.skipped_why}")
    return "; ".join(parts)


def _repaired(size_bytes: int) -> str:
    return f"{format_size(size_bytes)} differed and were repaired from the majority"


def _undecided(size_bytes: int) -> str:
    return f"{format_size(size_bytes)} differ and cannot be decided"


def undecided(volume: Volume) -> str:
    """What the last scrubs of its segments left open, for people; empty: nothing."""
    size_bytes = sum(segment.undecided_bytes for segment in volume.segments)
    return f"of its copies {_undecided(size_bytes)}: {_ADVICE}" if size_bytes else ""


def scrub_progress(turn: Turn, job: Job) -> tuple[int, str]:
    """How much a running scrub has compared, and what it waits for or is at."""
    volume = turn.draft.volumes.get(VolumeId(job.subject))
    if volume is None or volume.scrub is None:
        return 0, ""
    fact = _fact(turn, volume)
    skipped = sum(volume.segments[index].length_bytes for index in volume.scrub.skipped)
    done_bytes = volume.scrub.checked_bytes + skipped + (0 if fact is None else fact.done_bytes)
    why = _hindrance(turn, volume, volume.scrub)
    if not why and volume.scrub.waits_since_s:
        why = _CROWDED
    if why:
        return done_bytes, f"waits: {why}"
    return done_bytes, "" if fact is None else fact.message
