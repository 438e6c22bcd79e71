"""Moving legs off disks that are failing, while they can still be read.

A segment gets one leg more than its volume has copies. The old one stays in the set until the new
one is in it; only then does the head let go of it, by the quorum rule of the larger set. So there
are never fewer legs in sync than without the move, whatever else fails meanwhile.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from vastskyd.core.documents import LegCondition
from vastskyd.core.ids import DiskId, ExtentId
from vastskyd.core.legs import leg_facts, reachable
from vastskyd.core.model import (
    AttachmentState,
    Disk,
    DiskState,
    Layout,
    Leg,
    LegState,
    Segment,
    Severity,
    Volume,
)
from vastskyd.core.placement import PlacedExtent, Room, extent_length, place_leg
from vastskyd.core.recovery import disks_of, let_go, start_rebuild
from vastskyd.core.turn import Turn, disk_name


def evacuate(turn: Turn) -> None:
    """The next step of each segment that has a leg on a failing disk, or one too many."""
    segments = [
        (volume.id, segment.index)
        for volume in turn.draft.volumes.values()
        if volume.layout is not Layout.LINEAR
        for segment in volume.segments
        if not segment.in_doubt
    ]
    for volume_id, index in segments:
        _let_go(turn, turn.draft.volumes[volume_id], index)
    if any(disk.state is DiskState.FAILING for disk in turn.draft.disks.values()):
        moves, rooms = _moves(turn), turn.rooms()
        for volume_id, index in segments:
            _begin(turn, turn.draft.volumes[volume_id], index, moves, rooms)


def leaving_leg(turn: Turn, volume: Volume, segment: Segment) -> ExtentId | None:
    """The leg of the set that its head may let go of now: the others are enough, and at work. One
    on a failing disk goes first; if there is none any more, the newest was not needed."""
    if volume.layout is Layout.LINEAR or segment.in_doubt:
        return None
    in_sync = [leg for leg in segment.legs if leg.state is LegState.IN_SYNC]
    if len(in_sync) <= volume.copies:
        return None
    facts = leg_facts(turn, volume)
    at_work = {e for e, fact in facts.items() if fact.condition is LegCondition.ACTIVE}
    failing = [leg for leg in in_sync if _is_failing(turn, leg.extent)]
    leaves = failing[0] if failing else in_sync[-1]
    rest = {leg.extent for leg in in_sync} - {leaves.extent}
    return leaves.extent if len(rest & at_work) >= volume.copies else None


def _legs_on(turn: Turn, disk: Disk) -> list[tuple[Volume, Segment, Leg]]:
    return [
        (volume, segment, leg)
        for volume, segment, leg in turn.draft.legs()
        if (extent := turn.draft.extents.get(leg.extent)) is not None and extent.disk == disk.id
    ]


def outlook(turn: Turn, disk: Disk) -> str:
    """What becomes of the legs on a failing disk, for people."""
    legs = _legs_on(turn, disk)
    if not legs:
        return "no volume uses it any more"
    alone = [v for v, _, _ in legs if v.layout is Layout.LINEAR]
    copied = [(v, s, leg) for v, s, leg in legs if v.layout is not Layout.LINEAR]
    idle = [v for v, _, _ in copied if not _is_attached(v)]
    rooms = turn.rooms()
    stuck = [
        volume
        for volume, segment, leg in copied
        if _is_attached(volume)
        and len(segment.legs) <= volume.copies
        and _place(turn, segment, leg.extent, [room.copy() for room in rooms]) is None
    ]
    said = []
    if stuck:
        said.append(f"no other disk has room for the legs of {_names(stuck)}, which go on using it")
    if idle:
        said.append(f"the legs of {_names(idle)} are moved off it once attached")
    if alone:
        said.append(f"the only copy of {_names(alone)} is on it: save what is there")
    return "; ".join(said) or f"the legs of {_names(v for v, _, _ in legs)} are being moved off it"


def _names(volumes: Iterable[Volume]) -> str:
    return ", ".join(sorted({volume.name for volume in volumes}))


# --- letting go --------------------------------------------------------------------------


def _let_go(turn: Turn, volume: Volume, index: int) -> None:
    """Of legs out of the set that nobody needs: enough others are in it, on disks that are well."""
    segment = volume.segments[index]
    if len(segment.legs) <= volume.copies:
        return
    sound = [extent for extent in segment.in_sync() if not _is_failing(turn, extent)]
    if len(sound) < volume.copies:
        return
    for leg in segment.legs:
        if leg.state not in (LegState.IN_SYNC, LegState.JOINING):
            let_go(turn, volume, segment.index, leg.extent)


# --- beginning ---------------------------------------------------------------------------


def _begin(
    turn: Turn, volume: Volume, index: int, moves: Counter[DiskId], rooms: list[Room]
) -> None:
    """One more leg, for the first one on a failing disk. What is lost already goes first; and no
    more legs move off a disk at a time than it may serve rebuilds."""
    segment = volume.segments[index]
    if not _is_attached(volume) or not segment.initialised or len(segment.legs) > volume.copies:
        return
    failing = [extent for extent in segment.in_sync() if _is_failing(turn, extent)]
    if not failing or not all(_is_settled(turn, leg) for leg in segment.legs):
        return
    disk = turn.draft.disk_of(failing[0])
    if disk is None or moves[disk.id] >= turn.policy.rebuilds_per_disk:
        return
    place = _place(turn, segment, failing[0], rooms)
    if place is None:
        return
    moves[disk.id] += 1
    extent = turn.new_extent(volume, segment.index, place)
    more = Leg(extent=extent.id, state=LegState.REBUILDING, since_s=turn.wall_s)
    legs = (*segment.legs, more)
    turn.put_segment(volume, msgspec.structs.replace(segment, legs=legs))
    start_rebuild(turn, volume, segment, extent.id)
    turn.event(
        Severity.INFO,
        "leg-moving",
        volume.id,
        f"volume {volume.name}, segment {segment.index}: its leg on {disk_name(disk)} moves to"
        f" {disk_name(turn.draft.disks[place.disk])}",
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


def _place(
    turn: Turn, segment: Segment, failing: ExtentId, rooms: list[Room]
) -> PlacedExtent | None:
    """Out of `rooms`, on a node that has no leg of the segment; if there is none, on another disk
    of the same."""
    others = [leg.extent for leg in segment.legs if leg.extent != failing]
    nodes = {node for extent in others if (node := turn.node_of(extent)) is not None}
    racks = {turn.draft.nodes[node].rack for node in nodes} - {""}
    here = turn.node_of(failing)
    length_bytes = extent_length(segment.length_bytes, with_array=True)
    apart = nodes if here is None else nodes | {here}
    return place_leg(length_bytes, rooms, apart, racks) or place_leg(
        length_bytes, rooms, nodes, racks
    )


def _is_attached(volume: Volume) -> bool:
    attachment = volume.attachment
    return attachment is not None and attachment.state is AttachmentState.ATTACHED


def _is_failing(turn: Turn, extent: ExtentId) -> bool:
    disk = turn.draft.disk_of(extent)
    return disk is not None and disk.state is DiskState.FAILING
