"""Moving legs while they can be read: off disks that are failing or to be retired, and apart from
each other where copies share a host, or a drive, and there is room on another.

A segment gets one leg more than its volume has copies. The old one stays in the set until the new
one is in it; only then does the head let go of it, by the quorum rule of the larger set. So there
are never fewer legs in sync than without the move, whatever else fails meanwhile.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from vastskyd.core.documents import LegCondition
from vastskyd.core.guards import extent_length
from vastskyd.core.ids import DiskId, ExtentId, VolumeId
from vastskyd.core.legs import leg_facts, reachable
from vastskyd.core.model import (
    TO_BE_LEFT,
    Apart,
    AttachmentState,
    Disk,
    Layout,
    Leg,
    LegState,
    Segment,
    Severity,
    Volume,
)
from vastskyd.core.placement import PlacedExtent, Room, Site, place_leg, spread
from vastskyd.core.recovery import disks_of, let_go, start_rebuild
from vastskyd.core.turn import Turn, disk_name


def evacuate(turn: Turn) -> None:
    """The next step of each segment that has a leg on a failing disk, legs that could be further
    apart, or one too many."""
    segments = [
        (volume.id, segment.index)
        for volume in turn.draft.volumes.values()
        if volume.layout is not Layout.LINEAR
        for segment in volume.segments
        if not segment.in_doubt
    ]
    for volume_id, index in segments:
        _let_go(turn, turn.draft.volumes[volume_id], index)
    moving = [part for part in segments if _may_begin(turn, *part)]
    if moving:
        moves, rooms = _moves(turn), turn.rooms()
        for volume_id, index in moving:
            _begin(turn, turn.draft.volumes[volume_id], index, moves, rooms)


def leaving_leg(turn: Turn, volume: Volume, segment: Segment) -> ExtentId | None:
    """The leg of the set that its head may let go of now: the others are enough, and at work. One
    on a failing disk goes first, then the one without which the others are furthest apart; if
    nothing tells them, the newest was not needed."""
    if volume.layout is Layout.LINEAR or segment.in_doubt:
        return None
    in_sync = [leg for leg in segment.legs if leg.state is LegState.IN_SYNC]
    if len(in_sync) <= volume.copies:
        return None
    facts = leg_facts(turn, volume)
    at_work = {e for e, fact in facts.items() if fact.condition is LegCondition.ACTIVE}
    failing = [leg for leg in in_sync if is_to_be_left(turn, leg.extent)]
    leaves = failing[0] if failing else max(in_sync, key=lambda leg: _without(turn, in_sync, leg))
    rest = {leg.extent for leg in in_sync} - {leaves.extent}
    return leaves.extent if len(rest & at_work) >= volume.copies else None


def _without(turn: Turn, in_sync: list[Leg], leaves: Leg) -> tuple[int, int, int, int]:
    """How good the rest is, and how new the one that leaves."""
    sites = turn.sites(leg.extent for leg in in_sync if leg is not leaves)
    racks = len({site.rack for site in sites})
    return (*spread(sites), racks, in_sync.index(leaves))


def legs_on(turn: Turn, disk: Disk) -> list[tuple[Volume, Segment, Leg]]:
    return [
        (volume, segment, leg)
        for volume, segment, leg in turn.draft.legs()
        if (extent := turn.draft.extents.get(leg.extent)) is not None and extent.disk == disk.id
    ]


def outlook(turn: Turn, disk: Disk) -> str:
    """What becomes of the legs on a disk that is to be left, for people."""
    legs = legs_on(turn, disk)
    if not legs:
        return "no volume uses it any more"
    alone = [v for v, _, _ in legs if v.layout is Layout.LINEAR]
    copied = [(v, s, leg) for v, s, leg in legs if v.layout is not Layout.LINEAR]
    stuck = stuck_on(turn, disk)
    idle = [v for v, _, _ in copied if v not in stuck and not is_attached(v)]
    said = []
    if stuck:
        said.append(f"no other disk has room for the legs of {_names(stuck)}, which go on using it")
    if idle:
        said.append(f"the legs of {_names(idle)} are moved off it as soon as a head can")
    if alone:
        said.append(f"the only copy of {_names(alone)} is on it: save what is there")
    return "; ".join(said) or f"the legs of {_names(v for v, _, _ in legs)} are being moved off it"


def stuck_on(turn: Turn, disk: Disk) -> list[Volume]:
    """Those that have legs there for which no other disk has room."""
    rooms = turn.rooms()
    return [
        volume
        for volume, segment, leg in legs_on(turn, disk)
        if volume.layout is not Layout.LINEAR
        and len(segment.legs) <= volume.copies
        and place_off(turn, segment, leg.extent, [room.copy() for room in rooms]) is None
    ]


def _names(volumes: Iterable[Volume]) -> str:
    return ", ".join(sorted({volume.name for volume in volumes}))


# --- letting go --------------------------------------------------------------------------


def _let_go(turn: Turn, volume: Volume, index: int) -> None:
    """Of legs out of the set that nobody needs: enough others are in it, on disks that are well,
    and no further apart with this one."""
    segment = volume.segments[index]
    if len(segment.legs) <= volume.copies:
        return
    sound = [extent for extent in segment.in_sync() if not is_to_be_left(turn, extent)]
    if len(sound) < volume.copies:
        return
    for leg in segment.legs:
        if leg.state in (LegState.IN_SYNC, LegState.JOINING):
            continue
        if leg.state is LegState.FAILED or not _is_on_its_way(turn, segment, leg):
            let_go(turn, volume, segment.index, leg.extent)


def _is_on_its_way(turn: Turn, segment: Segment, leg: Leg) -> bool:
    """Whether it is filled for the copies to be further apart."""
    to = turn.sites([leg.extent])
    return (
        bool(to)
        and not is_to_be_left(turn, leg.extent)
        and _gains(turn.sites(segment.in_sync()), to[0])
    )


def _gains(there: list[Site], more: Site) -> bool:
    """Whether legs are further apart with this one in the place of one of them."""
    rests = ([*there[:place], *there[place + 1 :], more] for place in range(len(there)))
    return max((spread(rest) for rest in rests), default=(0, 0)) > spread(there)


# --- beginning ---------------------------------------------------------------------------


def _may_begin(turn: Turn, volume_id: VolumeId, index: int) -> bool:
    """Nothing is under way in the segment; and there is something to move. What is lost already
    goes first."""
    volume = turn.draft.volumes[volume_id]
    segment = volume.segments[index]
    if not is_attached(volume) or not segment.initialised or len(segment.legs) > volume.copies:
        return False
    if any(is_to_be_left(turn, extent) for extent in segment.in_sync()):
        return all(_is_settled(turn, leg) for leg in segment.legs)
    if volume.given() is None:  # it is mended, and given back as soon as that is done
        return False
    return is_together(turn, volume, segment) and _is_whole(turn, volume, segment)


def is_together(turn: Turn, volume: Volume, segment: Segment) -> bool:
    """Whether legs of the segment share a host, or a drive."""
    if volume.layout is Layout.LINEAR:
        return False
    there = turn.sites(leg.extent for leg in segment.legs)
    return min(spread(there)) < len(there)


def _is_whole(turn: Turn, volume: Volume, segment: Segment) -> bool:
    """All legs are in sync and at work: a move that nothing forces waits for that."""
    facts = leg_facts(turn, volume)
    at_work = {e for e, fact in facts.items() if fact.condition is LegCondition.ACTIVE}
    in_sync = segment.in_sync()
    return len(in_sync) >= volume.copies and all(
        extent in at_work and reachable(turn, extent) for extent in in_sync
    )


def _begin(
    turn: Turn, volume: Volume, index: int, moves: Counter[DiskId], rooms: list[Room]
) -> None:
    """One more leg, for the first one on a failing disk, or for one that shares its host. No more
    legs move off a disk at a time than it may serve rebuilds."""
    segment = volume.segments[index]
    failing = [extent for extent in segment.in_sync() if is_to_be_left(turn, extent)]
    leaves = failing[0] if failing else segment.in_sync()[-1]
    disk = turn.draft.disk_of(leaves)
    busy = [disk.id] if failing and disk is not None else disks_of(turn, segment.in_sync())
    if disk is None or any(moves[each] >= turn.policy.rebuilds_per_disk for each in busy):
        return
    if failing:
        place = place_off(turn, segment, leaves, rooms)
    else:
        place = place_apart(turn, segment, rooms)
    if place is None:
        return
    moves.update(busy)
    to = turn.draft.disks[place.disk]
    if failing:
        said = f"its leg on {disk_name(disk)} moves to {disk_name(to)}"
    else:
        said = f"a leg moves to {disk_name(to)}, so that its copies are further apart"
    extent = turn.new_extent(volume, segment.index, place)
    more = Leg(extent=extent.id, state=LegState.REBUILDING, since_s=turn.wall_s)
    legs = (*segment.legs, more)
    turn.put_segment(volume, msgspec.structs.replace(segment, legs=legs))
    start_rebuild(turn, volume, segment, extent.id)
    turn.event(
        Severity.INFO,
        "leg-moving",
        volume.id,
        f"volume {volume.name}, segment {segment.index}: {said}",
    )


def _is_settled(turn: Turn, leg: Leg) -> bool:
    """Nothing is being done for it, or can be."""
    done = leg.state in (LegState.IN_SYNC, LegState.FAILED)
    return done or not reachable(turn, leg.extent)


def _moves(turn: Turn) -> Counter[DiskId]:
    """How many segments on each disk have one leg too many."""
    moves: Counter[DiskId] = Counter()
    for volume in turn.draft.volumes.values():
        for segment in volume.segments:
            if len(segment.legs) > volume.copies:
                moves.update(disks_of(turn, segment.in_sync()))
    return moves


def place_off(
    turn: Turn, segment: Segment, failing: ExtentId, rooms: list[Room]
) -> PlacedExtent | None:
    """Out of `rooms`, on a node that has no leg of the segment; if there is none, where the
    others let it be."""
    others = turn.sites(leg.extent for leg in segment.legs if leg.extent != failing)
    here = turn.sites([failing])
    length_bytes = extent_length(segment.length_bytes, with_array=True)
    return place_leg(length_bytes, rooms, [*others, *here], Apart.HOST) or place_leg(
        length_bytes, rooms, others, turn.apart
    )


def place_apart(turn: Turn, segment: Segment, rooms: list[Room]) -> PlacedExtent | None:
    """Out of those of `rooms` with which the legs of the segment are further apart."""
    there = turn.sites(leg.extent for leg in segment.legs)
    better = [room for room in rooms if _gains(there, room.site)]
    return place_leg(
        extent_length(segment.length_bytes, with_array=True), better, there, Apart.DISK
    )


def is_attached(volume: Volume) -> bool:
    attachment = volume.attachment
    return attachment is not None and attachment.state is AttachmentState.ATTACHED


def is_to_be_left(turn: Turn, extent: ExtentId) -> bool:
    disk = turn.draft.disk_of(extent)
    return disk is not None and disk.state in TO_BE_LEFT
