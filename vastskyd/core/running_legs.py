"""The legs of a segment that stands on a head, when the manager's records are made anew."""

from dataclasses import dataclass

import msgspec

from vastskyd.core.description import ExtentRecordState
from vastskyd.core.documents import LegHint
from vastskyd.core.evidence import Evidence, Found
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import LegState
from vastskyd.core.witness import SegmentSighting

RELIED_ON = (LegState.IN_SYNC, LegState.JOINING)


@dataclass(frozen=True)
class RunningLegs:
    """`unexplained` are in use, and nobody says where they lie."""

    hints: tuple[LegHint, ...]
    unexplained: tuple[ExtentId, ...]


def running_legs(
    evidence: Evidence,
    hints: tuple[LegHint, ...],
    found: tuple[Found, ...],
    seen: SegmentSighting,
    copies: int,
) -> RunningLegs:
    """By the head's word: the legs in its array hold all that was acknowledged, and of those out of
    it none is in the set any more. One that the disks did not call joining enters the set as any
    other does, unless there is no other."""
    by_extent = {hint.extent: hint for hint in hints}
    for each in found:
        if each.record.id in seen.in_sync:
            by_extent.setdefault(each.record.id, hint_of(each))
    unexplained = [
        extent
        for extent in seen.in_sync
        if extent not in by_extent or _is_lost(evidence, by_extent[extent])
    ]
    relied_on = [h.extent for h in hints if h.state in RELIED_ON and h.extent in seen.in_sync]
    used: list[LegHint] = []
    others: list[LegHint] = []
    for hint in by_extent.values():
        if hint.extent in seen.in_sync:
            committed = not relied_on or hint.extent in relied_on
            state = LegState.IN_SYNC if committed else LegState.JOINING
            used.append(msgspec.structs.replace(hint, state=state))
        else:
            others.append(msgspec.structs.replace(hint, state=_state_out(evidence, hint)))
    others.sort(key=lambda hint: hint.state is not LegState.BEHIND)
    return RunningLegs((*used, *others[: max(0, copies - len(used))]), tuple(unexplained))


def _state_out(evidence: Evidence, hint: LegHint) -> LegState:
    if _is_lost(evidence, hint):
        return LegState.FAILED
    return LegState.BEHIND if hint.state in RELIED_ON else hint.state


def _is_lost(evidence: Evidence, hint: LegHint) -> bool:
    """Whether its disk was seen and does not have it any more."""
    there = evidence.found.get(hint.extent)
    if there is None:
        return hint.disk in evidence.disks
    return is_wiping(there)


def hint_of(found: Found) -> LegHint:
    """Of an extent whose segment nobody describes."""
    return LegHint(
        extent=found.record.id,
        disk=found.disk,
        node=found.node,
        offset_bytes=found.record.offset_bytes,
        state=found.record.leg_state or LegState.IN_SYNC,
    )


def is_wiping(found: Found) -> bool:
    return found.record.state is ExtentRecordState.WIPING
