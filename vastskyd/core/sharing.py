"""What people should know of copies that share a host or a drive where that is allowed: notes, not
problems."""

from enum import StrEnum

from vastskyd.core.evacuating import is_attached, is_together, place_apart
from vastskyd.core.ids import NodeId
from vastskyd.core.model import SERVING, Apart, Layout, Role, Segment, Volume
from vastskyd.core.placement import Room, spread
from vastskyd.core.turn import Turn


def notes(turn: Turn) -> tuple[str, ...]:
    """As sentences; none where copies have to be on different hosts."""
    if turn.apart is Apart.HOST:
        return ()
    copied = [v for v in turn.draft.volumes.values() if v.layout is not Layout.LINEAR]
    together = [volume for volume in copied if any(_share_a_host(turn, s) for s in volume.segments)]
    hosts = _storage_hosts(turn)
    said = [*_of_hosts(turn, together, hosts), *_of_drives(turn, copied)]
    if copied and not together and len(hosts) >= max(volume.copies for volume in copied):
        said.append(
            "all copies are on different hosts; to keep it so:"
            " `vastskyctl cluster set --copies-apart host`"
        )
    return tuple(said)


def _share_a_host(turn: Turn, segment: Segment) -> bool:
    sites = turn.sites(leg.extent for leg in segment.legs)
    return spread(sites)[0] < len(sites)


def _storage_hosts(turn: Turn) -> list[NodeId]:
    """Those that have disks to place copies on."""
    nodes = {disk.node for disk in turn.draft.disks.values() if disk.state in SERVING}
    return sorted(node for node in nodes if Role.STORAGE in turn.draft.nodes[node].roles)


def _of_hosts(turn: Turn, together: list[Volume], hosts: list[NodeId]) -> list[str]:
    if not together:
        return []
    if len(hosts) <= 1:
        where = f"on one host, {hosts[0]}" if hosts else "on one host"
        return [f"the copies of all volumes are {where}: they are lost with it"]
    rooms = turn.rooms()
    outlooks = [(volume, _outlook(turn, volume, rooms)) for volume in together]
    return [
        f"the copies of {_names(volumes)} share hosts{outlook}"
        for outlook in Outlook
        if (volumes := [volume for volume, its in outlooks if its is outlook])
    ]


class Outlook(StrEnum):
    MOVING = ", and are being moved apart"
    IDLE = "; they are moved apart once it is attached"
    STUCK = ", and no other host has room for them: enrol disks there"


def _outlook(turn: Turn, volume: Volume, rooms: list[Room]) -> Outlook:
    if not is_attached(volume) or volume.given() is None:
        return Outlook.IDLE
    if any(len(segment.legs) > volume.copies for segment in volume.segments):
        return Outlook.MOVING
    for segment in volume.segments:
        trial = [room.copy() for room in rooms]
        if is_together(turn, volume, segment) and place_apart(turn, segment, trial) is not None:
            return Outlook.MOVING
    return Outlook.STUCK


def _of_drives(turn: Turn, copied: list[Volume]) -> list[str]:
    """Files may be on one drive, being there for trying things."""
    sharing = [volume for volume in copied if any(_share_a_drive(turn, s) for s in volume.segments)]
    if not sharing:
        return []
    return [f"copies of {_names(sharing)} are in files on one drive: they are lost with it"]


def _share_a_drive(turn: Turn, segment: Segment) -> bool:
    sites = turn.sites(leg.extent for leg in segment.legs)
    return spread(sites)[1] < len(sites)


def _names(volumes: list[Volume]) -> str:
    return ", ".join(sorted({volume.name for volume in volumes}))
