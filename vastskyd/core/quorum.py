"""The in-sync set and the quorum rule, as pure functions over one segment.

S is the committed set (legs IN_SYNC), J the legs JOINING. Invariant, which everything here keeps:
a write is acknowledged only by legs that include a write quorum of S and one of S + J; recovery
takes a recovery quorum of S. Any two such sets of one S share a leg.
"""

from collections.abc import Collection

from vastskyd.core.documents import LegCondition, SegmentFact
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import Leg, LegState, Segment


def write_quorum(legs: int) -> int:
    """
    >>> [write_quorum(n) for n in (1, 2, 3, 4, 5)]
    [1, 2, 2, 3, 3]
    """
    return legs // 2 + 1


def recovery_quorum(legs: int) -> int:
    """
    >>> [recovery_quorum(n) for n in (1, 2, 3, 4, 5)]
    [1, 1, 2, 2, 3]
    """
    return legs - write_quorum(legs) + 1


def relied_on(segment: Segment) -> tuple[ExtentId, ...]:
    """The committed legs; in doubt also those that are joining: they may be the set by now."""
    if segment.in_doubt:
        return segment.in_state(LegState.IN_SYNC, LegState.JOINING)
    return segment.in_sync()


def may_acknowledge(
    in_sync: Collection[ExtentId], joining: Collection[ExtentId], used: Collection[ExtentId]
) -> bool:
    """Whether a head that writes to the legs `used`, and no others, may acknowledge by the
    documents that it holds. A head drops a leg by itself only if this stays so."""
    both = [*in_sync, *joining]
    return sum(leg in used for leg in in_sync) >= write_quorum(len(in_sync)) and sum(
        leg in used for leg in both
    ) >= write_quorum(len(both))


def _next_state(leg: Leg, *, broken: bool) -> LegState:
    return LegState.FAILED if broken else LegState.BEHIND


def shrunk(segment: Segment, fact: SegmentFact) -> dict[ExtentId, LegState]:
    """The legs that leave S or J now, with the state they go to; empty: none may or must.

    A leg that is OUT cannot be used again before the head has seen the commit, so it may leave at
    any time; and so may one that md fills again, since by its superblock it lacks something. A leg
    that is HELD may come back while another goes; it may leave only once the head has no freedom
    left to choose a different quorum from S by itself.
    """
    if not fact.created:
        return {}
    by_extent = {leg.extent: leg for leg in fact.legs}
    stale = (LegCondition.OUT, LegCondition.RECOVERING)
    gone = (*stale, LegCondition.HELD)

    def condition(extent: ExtentId) -> LegCondition:
        leg = by_extent.get(extent)
        return LegCondition.ABSENT if leg is None else leg.condition

    def leaving(extents: Collection[ExtentId]) -> dict[ExtentId, LegState]:
        return {
            leg.extent: _next_state(leg, broken=by_extent[leg.extent].broken)
            for leg in segment.legs
            if leg.extent in extents
        }

    joining = [e for e in segment.in_state(LegState.JOINING) if condition(e) in gone]
    if joining:
        return leaving(joining)
    committed = segment.in_sync()
    out = [e for e in committed if condition(e) in stale]
    held = [e for e in committed if condition(e) is LegCondition.HELD]
    active = [e for e in committed if condition(e) is LegCondition.ACTIVE]
    if not active or not (out or held):
        return {}
    free_to_choose = len(committed) - len(out) > write_quorum(len(committed))
    return leaving(out if free_to_choose else [*out, *held])


def given_up(segment: Segment, fact: SegmentFact) -> dict[ExtentId, LegState]:
    """Legs out of the set that cannot be filled: their server answers with I/O errors."""
    broken = {leg.extent for leg in fact.legs if leg.broken}
    return {
        leg.extent: LegState.FAILED
        for leg in segment.legs
        if leg.state in (LegState.BEHIND, LegState.REBUILDING) and leg.extent in broken
    }


def grown(segment: Segment, fact: SegmentFact) -> dict[ExtentId, LegState]:
    """The legs that take a step into S. Ask only with a fact that knows the newest document:
    an older one may speak of a leg that the head is about to drop."""
    if not fact.created:
        return {}
    step = {
        LegState.BEHIND: LegState.JOINING,
        LegState.REBUILDING: LegState.JOINING,
        LegState.JOINING: LegState.IN_SYNC,
    }
    active = {leg.extent for leg in fact.legs if leg.condition is LegCondition.ACTIVE}
    return {
        leg.extent: step[leg.state]
        for leg in segment.legs
        if leg.state in step and leg.extent in active
    }
