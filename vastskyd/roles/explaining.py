"""Why a volume would fit, or would not, disk by disk."""

from vastskyd.core.answers import DiskVerdict, Placement
from vastskyd.core.api import ExplainPlacement
from vastskyd.core.model import Disk, DiskState
from vastskyd.core.placement import Room, explain_volume
from vastskyd.core.turn import Turn
from vastskyd.core.units import align_up, format_size
from vastskyd.roles.commands import wanted_copies, with_array


def explain_placement(turn: Turn, request: ExplainPlacement) -> Placement:
    copies, layout = wanted_copies(request.size_bytes, request.copies, request.layout)
    rooms = {room.disk: room for room in turn.rooms()}
    found = explain_volume(
        request.size_bytes,
        copies,
        list(rooms.values()),
        turn.policy.segment_max_bytes,
        turn.apart,
        with_array=with_array(layout),
    )
    said = {answer.disk: (answer.takes_bytes, answer.reason) for answer in found.disks}
    verdicts = [
        _verdict(disk, rooms.get(disk.id), *said.get(disk.id, (0, _unusable(turn, disk))))
        for disk in sorted(turn.draft.disks.values(), key=lambda disk: (disk.node, disk.path))
    ]
    what = f"{format_size(align_up(request.size_bytes))} in {copies} copies"
    if found.missing is None:
        return Placement(fits=True, reason=f"{what} fit", hint="", disks=tuple(verdicts))
    missing = found.missing
    return Placement(fits=False, reason=missing.message, hint=missing.hint, disks=tuple(verdicts))


def _verdict(disk: Disk, room: Room | None, takes_bytes: int, reason: str) -> DiskVerdict:
    return DiskVerdict(
        disk=disk.id,
        node=disk.node,
        path=disk.path,
        takes_bytes=takes_bytes,
        free_bytes=0 if room is None else room.free_bytes,
        largest_bytes=0 if room is None else room.largest_bytes,
        reason=reason,
    )


def _unusable(turn: Turn, disk: Disk) -> str:
    if disk.state is not DiskState.ONLINE:
        return f"it is {disk.state}" + (f": {disk.reason}" if disk.reason else "")
    return f"its node {disk.node} is unreachable" * (not turn.facts[disk.node].online)
