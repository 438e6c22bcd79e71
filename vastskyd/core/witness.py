"""What a host says of itself to a manager that has lost its records: nothing but what its kernel,
its disks and its own identity show."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vastskyd.core.description import DiskDescription
from vastskyd.core.ids import DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import Encryption, Record, Role
from vastskyd.core.sight import Sight, kernel_name


class DiskSighting(Record):
    """An enrolled disk. `generation` rises with each change of its description; `failed` says why
    it is not to be relied on."""

    id: DiskId
    path: str
    serial: str
    size_bytes: int
    generation: int
    failed: str = ""


class ServerSighting(Record):
    """An export server that runs, and how."""

    head: NodeId
    port: int
    addresses: tuple[str, ...]
    encryption: Encryption


class ExportSighting(Record):
    """`export_key` is the unguessable part of the export's name."""

    head: NodeId
    extent: ExtentId
    epoch: int
    export_key: str


class SegmentSighting(Record):
    """`in_sync`: the legs that md reads and writes."""

    index: int
    in_sync: tuple[ExtentId, ...]


class StackSighting(Record):
    """What stands of a volume on a head. `exposed`: its device is there, and may be written to."""

    volume: VolumeId
    epoch: int
    exposed: bool
    segments: tuple[SegmentSighting, ...] = ()


class Introduction(Record):
    """A whole host. `revision` is that of the last document it has, 0 if it has none since its
    daemon started; `unreadable` are disks that were ours and cannot be read, for people."""

    node: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    port: int
    rack: str
    revision: int
    disks: tuple[DiskSighting, ...] = ()
    unreadable: tuple[str, ...] = ()
    servers: tuple[ServerSighting, ...] = ()
    exports: tuple[ExportSighting, ...] = ()
    stacks: tuple[StackSighting, ...] = ()


@dataclass(frozen=True)
class Witness:
    """A host that was heard, with the descriptions of its disks."""

    said: Introduction
    descriptions: Mapping[DiskId, DiskDescription] = field(default_factory=dict)


def stacks_in(sight: Sight) -> tuple[StackSighting, ...]:
    """What a head's kernel shows, as it is told."""
    return tuple(_stack(volume, sight) for volume in sight.volume_ids())


def _stack(volume: VolumeId, sight: Sight) -> StackSighting:
    seen = sight.volumes.get(volume)
    legs = [leg for leg in sight.legs.values() if leg.name.volume == volume]
    segments = []
    for index in sorted({leg.name.segment for leg in legs}):
        of_segment = [leg for leg in legs if leg.name.segment == index]
        array = sight.arrays.get((volume, index))
        if array is None:  # a bare leg
            in_sync = [leg.name.extent for leg in of_segment]
        else:
            used = {name for name, member in array.members.items() if member.in_sync}
            in_sync = [leg.name.extent for leg in of_segment if kernel_name(leg.device) in used]
        segments.append(SegmentSighting(index=index, in_sync=tuple(in_sync)))
    return StackSighting(
        volume=volume,
        epoch=seen.epoch if seen is not None else max(sight.epochs(volume), default=0),
        exposed=seen is not None and not seen.broken_off,
        segments=tuple(segments),
    )
