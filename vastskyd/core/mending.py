"""Volumes that nobody has attached, and that are not whole: a head has them for as long as it takes
to make them so.

What copies is a head, by md. So a volume that lost a leg while it was detached, or that has one on
a disk that is failing, is attached for that: with an epoch of its own and all fencing, as for use,
but without a device, so that nobody can use it. The other rules do the rest, as for any volume that
is attached; here it is begun and ended. Whoever asks for the volume meanwhile comes first.
"""

from collections import Counter
from functools import cached_property

import msgspec

from vastskyd.core.documents import ExtentCondition, LegCondition
from vastskyd.core.errors import ConflictError
from vastskyd.core.evacuating import is_to_be_left, place_off
from vastskyd.core.guards import extent_length
from vastskyd.core.ids import ExtentId, NodeId, VolumeId
from vastskyd.core.legs import leg_facts, reachable, volume_fact
from vastskyd.core.model import (
    Attachment,
    AttachmentState,
    Job,
    JobKind,
    Layout,
    Leg,
    LegState,
    Role,
    Segment,
    Severity,
    Volume,
    VolumeState,
)
from vastskyd.core.moving import give, move, patience_with
from vastskyd.core.placement import Room, place_leg
from vastskyd.core.quorum import recovery_quorum, relied_on
from vastskyd.core.recovery import admitted_rebuilds, is_gone
from vastskyd.core.turn import Turn

# What was just detached, or pulled, may be on its way to another head or host.
PATIENCE_S = 15.0
# After a head could not mend a volume, before it is tried again.
REST_S = 60.0
# A head that is asked for a volume lets go of it in that time, or is fenced.
LET_GO_S = 10.0
# How many volumes one head mends at a time.
AT_ONCE = 4

_WOUND, _STALLED, _TRIED, _RESTS, _LEAVES = "wound", "stalled", "tried", "rests", "leaves"
_NOTES = (_WOUND, _STALLED, _TRIED, _RESTS, _LEAVES)
_GOOD = (LegState.IN_SYNC, LegState.JOINING)


def mend(turn: Turn) -> None:
    """Those with the fewest good legs first."""
    for volume_id in {volume_id for volume_id, _ in turn.noted} - turn.draft.volumes.keys():
        turn.is_over(volume_id, *_NOTES)
    look = Look(turn)
    for _, volume_id in sorted((_good_legs(turn, v), v.id) for v in turn.draft.volumes.values()):
        volume = turn.draft.volumes[volume_id]
        if volume.attachment is None:
            _consider(look, volume)
        elif volume.attachment.mending:
            _follow(look, volume, volume.attachment)
        else:
            turn.is_over(volume_id, *_NOTES)


def _good_legs(turn: Turn, volume: Volume) -> int:
    return min(
        (sum(reachable(turn, extent) for extent in s.in_sync()) for s in volume.segments), default=0
    )


# --- what there is to mend ---------------------------------------------------------------


class Look:
    """At volumes that nobody has attached, or that are mended, in one turn."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    @cached_property
    def _rooms(self) -> list[Room]:
        return self.turn.rooms()

    def wants(self, volume: Volume) -> bool:
        """Whether a head could do anything for it: only then is it attached, and no longer."""
        return (
            volume.state is VolumeState.AVAILABLE
            and volume.layout is not Layout.LINEAR
            and any(self._segment_wants(volume, segment) for segment in volume.segments)
        )

    def _segment_wants(self, volume: Volume, segment: Segment) -> bool:
        if not segment.initialised:
            return False  # what nothing was written to is placed elsewhere as it is
        if volume.unclean:
            return True
        in_sync = segment.in_sync()
        if len(in_sync) > volume.copies and all(reachable(self.turn, each) for each in in_sync):
            return True  # one more was made, and the old one is to go
        return any(self._leg_wants(volume, segment, leg) for leg in segment.legs)

    def _leg_wants(self, volume: Volume, segment: Segment, leg: Leg) -> bool:
        if leg.state is LegState.FAILED:
            # In doubt it is kept. Else there is no room: it would have been replaced by now.
            return segment.in_doubt and self.has_room(volume, segment, leg.extent)
        if is_gone(self.turn, leg.extent):
            return leg.state in _GOOD and self.has_room(volume, segment, leg.extent)
        if leg.state is not LegState.IN_SYNC:
            return reachable(self.turn, leg.extent)
        return is_to_be_left(self.turn, leg.extent) and self._may_leave(volume, segment, leg.extent)

    def has_room(self, volume: Volume, segment: Segment, lost: ExtentId) -> bool:
        """For another leg in the place of this one, unless there is one already."""
        if len(segment.legs) > volume.copies:
            return True
        others = self.turn.sites(leg.extent for leg in segment.legs if leg.extent != lost)
        length_bytes = extent_length(segment.length_bytes, with_array=True)
        rooms = [room.copy() for room in self._rooms]
        return place_leg(length_bytes, rooms, others, self.turn.apart) is not None

    def _may_leave(self, volume: Volume, segment: Segment, failing: ExtentId) -> bool:
        """Its disk, while it can be read: what is lost already goes first."""
        rooms = [room.copy() for room in self._rooms]
        return (
            len(segment.legs) <= volume.copies
            and reachable(self.turn, failing)
            and place_off(self.turn, segment, failing, rooms) is not None
        )

    def is_within_reach(self, volume: Volume) -> bool:
        """Of each segment a recovery quorum answers, and no leg of the set is away for a while
        only: it would be left behind."""
        return all(self._answers(segment) for segment in volume.segments)

    def _answers(self, segment: Segment) -> bool:
        committed = relied_on(segment)
        near = [extent for extent in committed if self._is_near(extent)]
        need = len(committed) if segment.in_doubt else recovery_quorum(len(committed))
        return (
            bool(committed)
            and len(near) >= need
            and all(extent in near or is_gone(self.turn, extent) for extent in committed)
        )

    def _is_near(self, extent: ExtentId) -> bool:
        node = self.turn.node_of(extent)
        fact = None if node is None else self.turn.facts.extent(node, extent)
        ready = fact is not None and fact.condition is ExtentCondition.READY
        return ready and reachable(self.turn, extent)


def note(turn: Turn, volume: Volume) -> str:
    """Where it is mended, for people; empty: it is not."""
    on = volume.attachment
    if on is not None and on.mending and on.state is not AttachmentState.DETACHING:
        return f"mended on {on.head}"
    if on is None and not _heads(turn) and Look(turn).wants(volume):
        return "it is mended once a head is online"
    return ""


def is_stuck(turn: Turn, volume: Volume, segment: Segment) -> bool:
    """Whether a leg is gone that no head could replace, for want of room."""
    if volume.given() is not None or volume.layout is Layout.LINEAR or not segment.initialised:
        return False
    look = Look(turn)
    return any(
        is_gone(turn, leg.extent) and not look.has_room(volume, segment, leg.extent)
        for leg in segment.legs
    )


# --- beginning ---------------------------------------------------------------------------


def _consider(look: Look, volume: Volume) -> None:
    turn = look.turn
    if not look.wants(volume):
        turn.is_over(volume.id, *_NOTES)
    elif not look.is_within_reach(volume):
        turn.is_over(volume.id, _WOUND)
    elif turn.noted_s(volume.id, _WOUND) >= PATIENCE_S and not _rests(turn, volume.id):
        head = _choose(turn, volume)
        if head is not None:
            give(turn, volume, head, mending=True)


def _rests(turn: Turn, volume: VolumeId) -> bool:
    if (volume, _RESTS) not in turn.noted:
        return False
    if turn.noted_s(volume, _RESTS) < REST_S:
        return True
    turn.is_over(volume, _RESTS)
    return False


def _heads(turn: Turn) -> list[NodeId]:
    return [
        node.id
        for node in turn.draft.nodes.values()
        if Role.HEAD in node.roles
        and not node.unseen
        and turn.facts[node.id].online
        and turn.facts[node.id].fresh
    ]


def _choose(turn: Turn, volume: Volume, besides: NodeId | None = None) -> NodeId | None:
    """The head with the fewest volumes; one that failed at this one only if there is no other."""
    attachments = [v.attachment for v in turn.draft.volumes.values() if v.attachment is not None]
    has = Counter(attachment.head for attachment in attachments)
    mends = Counter(attachment.head for attachment in attachments if attachment.mending)
    failed, _ = turn.noted.get((volume.id, _TRIED), ("", 0.0))
    free = [head for head in _heads(turn) if head != besides and mends[head] < AT_ONCE]
    return min(free, key=lambda head: (head == failed, has[head], head), default=None)


# --- following ---------------------------------------------------------------------------


def _follow(look: Look, volume: Volume, attachment: Attachment) -> None:
    turn = look.turn
    away = _is_away(turn, attachment.head)
    if attachment.state is AttachmentState.DETACHING:
        _let_go(turn, volume, attachment, away=away)
    elif not look.wants(volume):
        _finish(turn, volume, attachment)
    elif away:
        other = _choose(turn, volume, besides=attachment.head)
        if other is not None and look.is_within_reach(volume):
            give(turn, volume, other, mending=True)
    elif not _is_stalled(turn, volume, attachment):
        turn.is_over(volume.id, _STALLED)
    else:
        revisions = sum(segment.revision for segment in volume.segments)
        at = f"{attachment.epoch} {attachment.state} {revisions}"
        if turn.noted_s(volume.id, _STALLED, at) >= turn.policy.attach_timeout_s:
            _give_up(turn, volume, attachment)


def _is_away(turn: Turn, head: NodeId) -> bool:
    """Also of one that others reach: nobody uses the volume there."""
    facts = turn.facts[head]
    return not facts.online and turn.monotonic_s - facts.since_s >= patience_with(turn, head)


def _is_stalled(turn: Turn, volume: Volume, attachment: Attachment) -> bool:
    """Nothing gets on, and it is not for others that have their turn before it."""
    if attachment.state is not AttachmentState.ATTACHED:
        return True
    facts = leg_facts(turn, volume)
    if any(fact.condition is LegCondition.RECOVERING for fact in facts.values()):
        return False
    admitted = admitted_rebuilds(turn).legs
    return any(
        leg.extent in admitted
        or leg.state is LegState.JOINING
        or (leg.state is LegState.IN_SYNC and is_gone(turn, leg.extent))
        or len(segment.in_sync()) > volume.copies
        for segment in volume.segments
        for leg in segment.legs
    )


def _give_up(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    """For a while. Said once, until it is mended."""
    if (volume.id, _TRIED) not in turn.noted:
        fact = volume_fact(turn, volume)
        why = fact.message if fact is not None and fact.message else "it does not get on there"
        said = f"volume {volume.name} could not be mended on {attachment.head}: {why}"
        turn.event(Severity.WARNING, "mending-failed", volume.id, f"{said}; it is tried again")
    turn.is_over(volume.id, _STALLED)
    turn.noted_s(volume.id, _TRIED, attachment.head)
    turn.noted_s(volume.id, _RESTS)
    _detach(turn, volume, attachment)


def _finish(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    if attachment.state is AttachmentState.ATTACHED:
        if all(_is_whole(turn, volume, segment) for segment in volume.segments):
            said = f"volume {volume.name} is whole: it was mended on {attachment.head}"
            turn.event(Severity.INFO, "volume-mended", volume.id, said)
        else:
            said = f"volume {volume.name}: nothing more can be mended on {attachment.head} for now"
            turn.event(Severity.WARNING, "mending-ended", volume.id, said)
    turn.is_over(volume.id, *_NOTES)
    _detach(turn, volume, attachment)


def _is_whole(turn: Turn, volume: Volume, segment: Segment) -> bool:
    good = [extent for extent in segment.in_sync() if not is_gone(turn, extent)]
    return len(good) >= volume.copies


def _detach(turn: Turn, volume: Volume, attachment: Attachment, then: NodeId | None = None) -> None:
    after = msgspec.structs.replace(
        attachment, state=AttachmentState.DETACHING, since_s=turn.wall_s, then=then
    )
    turn.draft.put(msgspec.structs.replace(volume, attachment=after))


def _let_go(turn: Turn, volume: Volume, attachment: Attachment, *, away: bool) -> None:
    """A head that does not is left alone with it: its exports are gone, and so is its epoch once
    another gets the volume."""
    if attachment.then is None:
        turn.is_over(volume.id, _LEAVES)
        if away:
            ended(turn, volume, attachment)
    elif away or turn.noted_s(volume.id, _LEAVES, str(attachment.epoch)) >= LET_GO_S:
        move(turn, volume, attachment.then, forced=attachment.forced)


def ended(turn: Turn, volume: Volume, attachment: Attachment) -> None:
    """The head has let go of it."""
    if attachment.then is not None:
        move(turn, volume, attachment.then, forced=attachment.forced)
        return
    turn.draft.put(msgspec.structs.replace(volume, attachment=None))
    for job in turn.running(JobKind.REBUILD, subject=volume.id):
        why = f"it goes on when volume {volume.name} is mended again"
        turn.fail_job(job, ConflictError(why))


# --- who asks for it ---------------------------------------------------------------------


def hand_over(turn: Turn, volume: Volume, on: Attachment, head: NodeId, *, forced: bool) -> Job:
    """A volume that is mended is attached for use. On the same head it gets its device; for another
    one its head lets go of it first, which it can: nobody uses it there."""
    for job in turn.running(JobKind.ATTACH, subject=volume.id):
        turn.fail_job(job, ConflictError(f"volume {volume.name} is attached on {head} instead"))
    if on.state is AttachmentState.FENCING or not turn.facts[on.head].online:
        return move(turn, volume, head, forced=forced)
    if on.state is not AttachmentState.DETACHING and on.head == head:
        attached = on.state is AttachmentState.ATTACHED
        state = AttachmentState.ATTACHING if attached else on.state
        after = msgspec.structs.replace(on, state=state, mending=False, since_s=turn.wall_s)
        turn.draft.put(msgspec.structs.replace(volume, attachment=after))
    else:
        _detach(turn, volume, msgspec.structs.replace(on, forced=forced), then=head)
    return turn.start_job(JobKind.ATTACH, volume.id, volume.name)
