"""What witnesses say, sorted by what it is about."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vastskyd.core.description import DiskDescription, ExtentRecord
from vastskyd.core.ids import DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.witness import (
    DiskSighting,
    ExportSighting,
    ServerSighting,
    StackSighting,
    Witness,
)


@dataclass(frozen=True)
class Place:
    """A disk where it was seen."""

    node: NodeId
    sighting: DiskSighting
    description: DiskDescription


@dataclass(frozen=True)
class Found:
    """An extent where it was seen."""

    node: NodeId
    disk: DiskId
    record: ExtentRecord


@dataclass(frozen=True)
class Evidence:
    """`volumes` has the extents of each; `deleted` are volumes of which some disk knows that."""

    disks: Mapping[DiskId, Place]
    found: Mapping[ExtentId, Found]
    volumes: Mapping[VolumeId, tuple[Found, ...]]
    deleted: frozenset[VolumeId]
    servers: Mapping[NodeId, ServerSighting]
    exports: tuple[ExportSighting, ...]
    stacks: Mapping[VolumeId, tuple[tuple[NodeId, StackSighting], ...]]

    @staticmethod
    def of(witnesses: Mapping[NodeId, Witness]) -> "Evidence":
        disks = _disks(witnesses)
        found = {
            record.id: Found(place.node, disk, record)
            for disk, place in sorted(disks.items())
            for record in place.description.extents
        }
        volumes: dict[VolumeId, tuple[Found, ...]] = {}
        for each in found.values():
            volumes[each.record.volume] = (*volumes.get(each.record.volume, ()), each)
        deleted = {v for place in disks.values() for v in place.description.deleted}
        deleted |= {each.record.volume for each in found.values() if each.record.deleted}
        said = [witness.said for _, witness in sorted(witnesses.items())]
        stacks: dict[VolumeId, tuple[tuple[NodeId, StackSighting], ...]] = {}
        for who in said:
            for stack in who.stacks:
                stacks[stack.volume] = (*stacks.get(stack.volume, ()), (who.node, stack))
        return Evidence(
            disks=disks,
            found=found,
            volumes=volumes,
            deleted=frozenset(deleted),
            servers={server.head: server for who in said for server in who.servers},
            exports=tuple(export for who in said for export in who.exports),
            stacks=stacks,
        )

    def segment(self, volume: VolumeId, index: int) -> tuple[Found, ...]:
        return tuple(f for f in self.volumes.get(volume, ()) if f.record.segment == index)

    def exports_of(self, volume: VolumeId) -> list[ExportSighting]:
        extents = {f.record.id for f in self.volumes.get(volume, ())}
        return [export for export in self.exports if export.extent in extents]

    def is_mended(self, volume: VolumeId, epoch: int) -> bool:
        """Whether nobody asked for the attachment of this epoch, by all that the disks say. Those
        that say else have heard of it later."""
        said = [f.record.mending for f in self.volumes.get(volume, ()) if f.record.epoch == epoch]
        return bool(said) and all(said)

    def epoch(self, volume: VolumeId) -> int:
        """The highest that anything of the volume is known to have had."""
        epochs: Iterable[int] = (
            *(f.record.epoch for f in self.volumes.get(volume, ())),
            *(export.epoch for export in self.exports_of(volume)),
            *(stack.epoch for _, stack in self.stacks.get(volume, ())),
        )
        return max(epochs, default=0)


def _disks(witnesses: Mapping[NodeId, Witness]) -> dict[DiskId, Place]:
    """Each disk once, should two hosts have seen it: as it was described last."""
    places: dict[DiskId, Place] = {}
    for node, witness in sorted(witnesses.items()):
        for sighting in witness.said.disks:
            description = witness.descriptions.get(sighting.id)
            before = places.get(sighting.id)
            if description is not None and (
                before is None or before.sighting.generation < sighting.generation
            ):
                places[sighting.id] = Place(node, sighting, description)
    return places
