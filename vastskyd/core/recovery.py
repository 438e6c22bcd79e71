"""How redundancy is lost and won back: the manager's rules for legs."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from vastskyd.core.documents import ExtentCondition, LegCondition, SegmentFact, VolumeFact
from vastskyd.core.errors import ConflictError, DeviceError
from vastskyd.core.guards import extent_length, guarded_length
from vastskyd.core.ids import DiskId, ExtentId
from vastskyd.core.model import (
    TO_BE_LEFT,
    TOLD,
    DiskState,
    ExtentState,
    Job,
    JobKind,
    Layout,
    Leg,
    LegState,
    Segment,
    Severity,
    Volume,
)
from vastskyd.core.placement import place_leg
from vastskyd.core.quorum import given_up, grown, shrunk
from vastskyd.core.state import ClusterState
from vastskyd.core.turn import Turn, disk_name
from vastskyd.core.units import format_size

# --- following what the head sees ---------------------------------------------------------


def follow_head(turn: Turn) -> None:
    """Commits, per segment, what the head's report allows: a smaller set, or a larger one."""
    for volume in list(turn.draft.volumes.values()):
        attachment = volume.attachment
        if attachment is None or attachment.state not in TOLD:
            continue
        facts = turn.facts[attachment.head]
        fact = facts.volumes.get(volume.id)
        if not facts.online or not facts.fresh or fact is None:
            continue
        if fact.epoch != attachment.epoch:
            continue
        _follow_volume(turn, volume, fact, current=facts.current)


def _follow_volume(turn: Turn, volume: Volume, fact: VolumeFact, *, current: bool) -> None:
    by_index = {segment.index: segment for segment in fact.segments}
    for segment in volume.segments:
        seen = by_index.get(segment.index)
        if seen is None:
            continue
        changes = shrunk(segment, seen)
        if not changes and current:
            changes = _recorded(turn, segment, grown(segment, seen))
            changes |= _hopeless(turn, segment, seen)
        after = _with_legs(turn, segment, changes)
        if seen.created and not segment.initialised and _whole(after, seen):
            after = msgspec.structs.replace(after, initialised=True)
        if seen.created and segment.in_doubt and _all_active(after, seen):
            after = msgspec.structs.replace(after, in_doubt=False)
        if after != segment:
            surplus = len(segment.in_sync()) > volume.copies
            volume = turn.put_segment(volume, after)
            _tell(turn, volume, segment, changes, seen, surplus=surplus)
        _track_rebuilds(turn, volume, after, seen)


def _hopeless(turn: Turn, segment: Segment, seen: SegmentFact) -> dict[ExtentId, LegState]:
    """What is given up, but for legs whose disk may come back."""
    return {
        extent: state
        for extent, state in given_up(segment, seen).items()
        if not is_condemned(turn.draft, extent)
    }


def _recorded(
    turn: Turn, segment: Segment, changes: dict[ExtentId, LegState]
) -> dict[ExtentId, LegState]:
    """A leg enters the set only when a disk of the set says that it is joining: so a manager that
    has lost its records finds no disk that knows less than all legs that may be the set."""
    facts = []
    for extent in segment.in_sync():
        node = turn.node_of(extent)
        fact = None if node is None else turn.facts.extent(node, extent)
        facts += [] if fact is None else [fact.set_revision]
    known = max(facts, default=0) >= segment.revision
    return {e: s for e, s in changes.items() if known or s is not LegState.IN_SYNC}


def _all_active(segment: Segment, seen: SegmentFact) -> bool:
    active = {leg.extent for leg in seen.legs if leg.condition is LegCondition.ACTIVE}
    return active >= set(segment.in_state(LegState.IN_SYNC, LegState.JOINING))


def _whole(segment: Segment, seen: SegmentFact) -> bool:
    active = {leg.extent for leg in seen.legs if leg.condition is LegCondition.ACTIVE}
    return active >= set(segment.in_sync())


def _with_legs(turn: Turn, segment: Segment, changes: dict[ExtentId, LegState]) -> Segment:
    legs = tuple(
        msgspec.structs.replace(leg, state=changes[leg.extent], since_s=turn.wall_s)
        if leg.extent in changes
        else leg
        for leg in segment.legs
    )
    return msgspec.structs.replace(segment, legs=legs)


def _tell(
    turn: Turn,
    volume: Volume,
    segment: Segment,
    changes: dict[ExtentId, LegState],
    seen: SegmentFact,
    *,
    surplus: bool,
) -> None:
    """`surplus`: of its legs one was more than the volume has copies, and was to leave."""
    written = {leg.extent: leg.written_bytes for leg in seen.legs}
    for extent, state in changes.items():
        disk = turn.draft.disk_of(extent)
        where = extent if disk is None else disk_name(disk)
        what = f"volume {volume.name}, segment {segment.index}: the leg on {where}"
        if state is LegState.IN_SYNC:
            turn.event(Severity.INFO, "leg-in-sync", volume.id, f"{what} is in sync")
            for job in rebuild_jobs(turn, volume, extent):
                turn.end_job(job, f"redundancy restored{_cost(written.get(extent, 0))}")
        elif state is LegState.JOINING:
            # A few blocks are copied faster than anybody looks: that it was done is told all the
            # same.
            if not rebuild_jobs(turn, volume, extent):
                start_rebuild(turn, volume, segment, extent)
        elif state is LegState.FAILED or not surplus:
            why = "failed" if state is LegState.FAILED else "fell behind"
            turn.event(Severity.WARNING, "leg-lost", volume.id, f"{what} {why}")


def _track_rebuilds(turn: Turn, volume: Volume, segment: Segment, seen: SegmentFact) -> None:
    """A leg that returns, or is filled again after a detach, gets its job when that begins."""
    behind = segment.in_state(LegState.BEHIND, LegState.REBUILDING)
    for fact in seen.legs:
        recovering = fact.condition is LegCondition.RECOVERING
        if recovering and fact.extent in behind and not rebuild_jobs(turn, volume, fact.extent):
            start_rebuild(turn, volume, segment, fact.extent)


def start_rebuild(turn: Turn, volume: Volume, segment: Segment, extent: ExtentId) -> None:
    turn.start_job(
        JobKind.REBUILD,
        volume.id,
        volume.name,
        total_bytes=guarded_length(segment.length_bytes),
        segment=segment.index,
        extent=extent,
    )


def _cost(written_bytes: int) -> str:
    return f"; {format_size(written_bytes)} were written to it" if written_bytes else ""


def rebuild_jobs(turn: Turn, volume: Volume, extent: ExtentId) -> list[Job]:
    return [job for job in turn.running(JobKind.REBUILD, subject=volume.id) if job.extent == extent]


# --- replacing what will not return -------------------------------------------------------


def is_condemned(
    state: ClusterState, extent: ExtentId, condition: ExtentCondition | None = None
) -> bool:
    """Whether the leg's disk, or the extent on it, is known to be lost."""
    disk = state.disk_of(extent)
    return (
        disk is None
        or disk.state in (DiskState.MISSING, DiskState.FAILED)
        or condition is ExtentCondition.FAILED
    )


def replace_lost_legs(turn: Turn) -> None:
    """A new extent for each leg that will not return: those of the segments with the fewest
    good legs first, since room may be short."""
    lost = [
        (len(segment.in_sync()), volume.id, segment.index, leg.extent)
        for volume, segment, leg in turn.draft.legs()
        if is_lost(turn, volume, segment, leg)
    ]
    for _, volume_id, index, extent in sorted(lost):
        volume = turn.draft.volumes[volume_id]
        _replace(turn, volume, volume.segments[index], extent)


def is_lost(turn: Turn, volume: Volume, segment: Segment, leg: Leg) -> bool:
    """Whether the leg is to be replaced. After a turn this is so only where no disk has room."""
    if segment.in_doubt:  # what the disks say of it stays as it is until its array was seen
        return False
    if leg.state is LegState.FAILED:
        return True
    # A leg of the committed set leaves it first, by the head's word, unless nothing was ever
    # written to the segment.
    if leg.state in (LegState.IN_SYNC, LegState.JOINING) and (
        segment.initialised or volume.attachment is not None
    ):
        return False
    if volume.layout is Layout.LINEAR and segment.initialised:
        return False
    return is_gone(turn, leg.extent) or _is_unwritten_and_ailing(turn, segment, leg)


def _is_unwritten_and_ailing(turn: Turn, segment: Segment, leg: Leg) -> bool:
    disk = turn.draft.disk_of(leg.extent)
    return not segment.initialised and disk is not None and disk.state in TO_BE_LEFT


def is_gone(turn: Turn, extent: ExtentId) -> bool:
    """Whether the leg's disk or host will not come back, as far as anybody can tell."""
    node = turn.node_of(extent)
    fact = None if node is None else turn.facts.extent(node, extent)
    if is_condemned(turn.draft, extent, None if fact is None else fact.condition):
        return True
    if node is None or _is_elsewhere(turn, extent):
        return True
    away_s = turn.facts[node].unreachable_s(turn.monotonic_s)
    return away_s > 0 and away_s >= turn.policy.rebuild_delay_s


def _is_elsewhere(turn: Turn, extent: ExtentId) -> bool:
    """Whether its disk was not in its host, which was there, when the records were rebuilt."""
    disk = turn.draft.disk_of(extent)
    unseen = disk is not None and disk.state is DiskState.UNSEEN
    return unseen and disk is not None and not turn.draft.nodes[disk.node].unseen


def let_go(turn: Turn, volume: Volume, index: int, extent: ExtentId) -> None:
    """Of a leg out of the set, for which another is there already."""
    volume = turn.draft.volumes[volume.id]
    segment = volume.segments[index]
    disk = turn.draft.disk_of(extent)
    where = extent if disk is None else disk_name(disk)
    turn.release(extent)
    rest = tuple(leg for leg in segment.legs if leg.extent != extent)
    turn.put_segment(volume, msgspec.structs.replace(segment, legs=rest))
    for job in rebuild_jobs(turn, volume, extent):
        turn.fail_job(job, ConflictError("the leg is not needed any more"))
    said = f"volume {volume.name}, segment {segment.index}: the leg on {where} is not used any more"
    turn.event(Severity.INFO, "leg-moved", volume.id, said)


def _replace(turn: Turn, volume: Volume, segment: Segment, lost: ExtentId) -> None:
    if len(segment.legs) > volume.copies:
        let_go(turn, volume, segment.index, lost)
        return
    others = [leg.extent for leg in segment.legs if leg.extent != lost]
    length_bytes = extent_length(
        segment.length_bytes, with_array=volume.layout is not Layout.LINEAR
    )
    place = place_leg(length_bytes, turn.rooms(), turn.sites(others), turn.apart)
    if place is None:
        return
    extent = turn.new_extent(volume, segment.index, place)
    fresh = LegState.REBUILDING if segment.initialised else LegState.IN_SYNC
    legs = tuple(
        Leg(extent=extent.id, state=fresh, since_s=turn.wall_s) if leg.extent == lost else leg
        for leg in segment.legs
    )
    turn.release(lost)
    turn.put_segment(volume, msgspec.structs.replace(segment, legs=legs))
    for job in rebuild_jobs(turn, volume, lost):
        turn.fail_job(job, DeviceError("the leg was lost and is rebuilt elsewhere"))
    if segment.initialised and volume.attachment is not None:
        start_rebuild(turn, volume, segment, extent.id)
    disk = turn.draft.disks[place.disk]
    turn.event(
        Severity.INFO,
        "leg-replaced",
        volume.id,
        f"volume {volume.name}, segment {segment.index}:"
        f" a lost leg is rebuilt on {disk_name(disk)}",
    )


# --- one rebuild a disk -------------------------------------------------------------------


@dataclass(frozen=True)
class Rebuilds:
    """The legs that may be filled now, and how many rebuilds each disk then serves."""

    legs: frozenset[ExtentId]
    load: dict[DiskId, int]


def admitted_rebuilds(turn: Turn) -> Rebuilds:
    """The legs out of the set that may be filled now, so that no disk, source or target, serves
    more rebuilds than the policy allows. Those under way stay; then fewest good legs first."""
    waiting = []
    for volume, segment, leg in turn.draft.legs():
        if volume.attachment is None or leg.state not in (LegState.BEHIND, LegState.REBUILDING):
            continue
        extent = turn.draft.extents.get(leg.extent)
        if extent is None or extent.state is not ExtentState.READY:
            continue
        if is_condemned(turn.draft, leg.extent):
            continue
        node = turn.node_of(leg.extent)
        if node is None or not turn.facts[node].online:
            continue
        started = not _recovering(turn, volume, segment, leg)
        order = (started, len(segment.in_sync()), volume.id, segment.index, leg.extent)
        waiting.append((order, segment, leg))
    load: dict[DiskId, int] = {}
    admitted = []
    for _, segment, leg in sorted(waiting, key=lambda entry: entry[0]):
        disks = disks_of(turn, {leg.extent, *segment.in_sync()})
        if all(load.get(disk, 0) < turn.policy.rebuilds_per_disk for disk in disks):
            admitted.append(leg.extent)
            for disk in disks:
                load[disk] = load.get(disk, 0) + 1
    return Rebuilds(frozenset(admitted), load)


def disks_of(turn: Turn, extents: Iterable[ExtentId]) -> set[DiskId]:
    return {extent.disk for e in extents if (extent := turn.draft.extents.get(e))}


def _recovering(turn: Turn, volume: Volume, segment: Segment, leg: Leg) -> bool:
    if volume.attachment is None:
        return False
    fact = turn.facts[volume.attachment.head].volumes.get(volume.id)
    for seen in () if fact is None else fact.segments:
        if seen.index == segment.index:
            return any(
                f.extent == leg.extent and f.condition is LegCondition.RECOVERING for f in seen.legs
            )
    return False
