"""Volumes whose records were lost while they were being created.

A segment that is known whole, by legs that never had an epoch or that their disks were not even
told of yet, was never exported, nor was any other of its volume: an attach needs a recovery quorum
of each segment to have its epoch on the disk first. So nothing was ever written to the volume, and
segments of it that nobody speaks of may be made anew.
"""

from collections.abc import Callable

import msgspec

from vastskyd.core.ids import SHORT_ID_DIGITS, ExtentId
from vastskyd.core.model import DiskState, ExtentState, Leg, LegState, Segment
from vastskyd.core.running_legs import RELIED_ON
from vastskyd.core.state import ClusterState


def completed(
    segments: tuple[Segment, ...],
    copies: int,
    records: ClusterState,
    new_token: Callable[[int], str],
) -> tuple[Segment, ...]:
    """Of a volume of which nothing was seen that has an epoch; `records` have the extents of its
    legs. Legs that no disk has stand for those that are to be made: each is replaced as one that
    is lost, on a disk that has room."""
    if not any(_is_whole(segment, records) for segment in segments):
        return segments
    return tuple(
        segment if segment.legs else _to_be_made(segment, copies, new_token) for segment in segments
    )


def _is_whole(segment: Segment, records: ClusterState) -> bool:
    relied_on = [leg.extent for leg in segment.legs if leg.state in RELIED_ON]
    return bool(relied_on) and all(_is_there(extent, records) for extent in relied_on)


def _is_there(extent: ExtentId, records: ClusterState) -> bool:
    record, disk = records.extents.get(extent), records.disk_of(extent)
    return (
        record is not None
        and record.state is not ExtentState.RELEASED
        and disk is not None
        and disk.state is not DiskState.UNSEEN
    )


def _to_be_made(segment: Segment, copies: int, new_token: Callable[[int], str]) -> Segment:
    legs = tuple(
        Leg(extent=ExtentId(new_token(SHORT_ID_DIGITS)), state=LegState.IN_SYNC)
        for _ in range(copies)
    )
    return msgspec.structs.replace(segment, legs=legs, initialised=False, in_doubt=False)
