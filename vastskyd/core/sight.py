"""What a head's kernel shows of its stacks, and what that means for each leg."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vastskyd.core.documents import (
    LegCondition,
    LegFact,
    LegSpec,
    SegmentFact,
    SegmentSpec,
    VolumeSpec,
)
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.model import Layout, LegState
from vastskyd.core.names import LegName


@dataclass(frozen=True)
class SeenPath:
    """An NBD connection of a leg, or the local extent (`network` is -1)."""

    device: str
    extent: ExtentId
    epoch: int
    network: int
    alive: bool


@dataclass(frozen=True)
class SeenLeg:
    """A leg's device. `paths` are kernel names; `failed` those that device-mapper gave up."""

    name: LegName
    device: str
    paths: tuple[str, ...]
    failed: frozenset[str]
    holds: bool


@dataclass(frozen=True)
class SeenMember:
    """`state` is a word of the array's: in-sync, recovering, spare, faulty."""

    device: str
    in_sync: bool
    faulty: bool


@dataclass(frozen=True)
class SeenArray:
    """One that is not `running` is half put together or half taken apart. `places`: how many legs
    it is made for. `writes_held`: to some of it, for a scrub."""

    device: str
    volume: VolumeId
    segment: int
    members: Mapping[str, SeenMember]
    running: bool
    read_only: bool
    places: int
    sync_done_bytes: int
    sync_total_bytes: int
    writes_held: bool = False


@dataclass(frozen=True)
class SeenVolume:
    """`broken_off`: its table was replaced with errors when it could not be removed."""

    dm_name: str
    device: str
    volume: VolumeId
    epoch: int
    open_count: int
    broken_off: bool = False


@dataclass(frozen=True)
class Sight:
    """All stacks of ours on this host, by what they serve."""

    legs: Mapping[ExtentId, SeenLeg] = field(default_factory=dict)
    arrays: Mapping[tuple[VolumeId, int], SeenArray] = field(default_factory=dict)
    volumes: Mapping[VolumeId, SeenVolume] = field(default_factory=dict)
    paths: tuple[SeenPath, ...] = ()
    wrecks: tuple[SeenVolume, ...] = ()

    def volume_ids(self) -> tuple[VolumeId, ...]:
        """Volumes of which anything is there, in a fixed order."""
        ids = {leg.name.volume for leg in self.legs.values()}
        ids |= {volume for volume, _ in self.arrays}
        return tuple(sorted(ids | set(self.volumes)))

    def epochs(self, volume: VolumeId) -> frozenset[int]:
        seen = {leg.name.epoch for leg in self.legs.values() if leg.name.volume == volume}
        if volume in self.volumes:
            seen.add(self.volumes[volume].epoch)
        return frozenset(seen)

    def live_paths(self, extent: ExtentId, epoch: int) -> tuple[SeenPath, ...]:
        return tuple(
            path
            for path in self.paths
            if path.extent == extent and path.alive and path.epoch in (epoch, -1)
        )


@dataclass(frozen=True)
class Trouble:
    """A leg that the head gave up waiting for. `broken`: it is not a matter of reach."""

    broken: bool
    message: str


def kernel_name(device: str) -> str:
    """
    >>> kernel_name("/dev/dm-3")
    'dm-3'
    """
    return device.rpartition("/")[2]


@dataclass(frozen=True)
class SegmentSight:
    """One wanted segment beside what is there of it. `array`: if it runs."""

    spec: SegmentSpec
    array: SeenArray | None
    facts: Mapping[ExtentId, LegFact]
    created: bool

    def in_state(self, *states: LegState) -> tuple[ExtentId, ...]:
        return tuple(leg.extent for leg in self.spec.legs if leg.state in states)

    def active(self) -> tuple[ExtentId, ...]:
        return tuple(
            fact.extent
            for fact in self.facts.values()
            if fact.condition in (LegCondition.ACTIVE, LegCondition.HELD)
        )

    def fact(self) -> SegmentFact:
        return SegmentFact(
            index=self.spec.index, created=self.created, legs=tuple(self.facts.values())
        )


def look_at_segment(
    volume: VolumeSpec, spec: SegmentSpec, sight: Sight, trouble: Mapping[ExtentId, Trouble]
) -> SegmentSight:
    array = sight.arrays.get((volume.id, spec.index))
    if array is not None and not array.running:
        array = None
    facts = {}
    for leg in spec.legs:
        seen = sight.legs.get(leg.extent)
        if seen is not None and seen.name.epoch != volume.epoch:
            seen = None
        if volume.layout is Layout.LINEAR:
            facts[leg.extent] = _bare_leg(leg, seen, trouble.get(leg.extent))
        else:
            facts[leg.extent] = _member_leg(leg, seen, array, trouble.get(leg.extent))
    created = array is not None
    if volume.layout is Layout.LINEAR:
        created = all(fact.condition is not LegCondition.ABSENT for fact in facts.values())
    return SegmentSight(spec, array, facts, created)


def _bare_leg(leg: LegSpec, seen: SeenLeg | None, trouble: Trouble | None) -> LegFact:
    if seen is None:
        return LegFact(extent=leg.extent, condition=LegCondition.ABSENT)
    if trouble is None or set(seen.paths) - seen.failed:
        # Also of a disk that has failed: of a last copy, what can be read is read.
        return LegFact(extent=leg.extent, condition=LegCondition.ACTIVE)
    if seen.holds:
        return _held(leg, trouble)
    return LegFact(  # its users get errors
        extent=leg.extent,
        condition=LegCondition.OUT,
        broken=trouble.broken,
        message=trouble.message,
    )


def _held(leg: LegSpec, trouble: Trouble) -> LegFact:
    return LegFact(
        extent=leg.extent,
        condition=LegCondition.HELD,
        broken=trouble.broken,
        message=trouble.message,
    )


def _member_leg(
    leg: LegSpec, seen: SeenLeg | None, array: SeenArray | None, trouble: Trouble | None
) -> LegFact:
    if array is None:
        return LegFact(extent=leg.extent, condition=LegCondition.ABSENT)
    member = None if seen is None else array.members.get(kernel_name(seen.device))
    broken = trouble is not None and trouble.broken
    message = "" if trouble is None else trouble.message
    if member is None or member.faulty:
        return LegFact(
            extent=leg.extent, condition=LegCondition.OUT, broken=broken, message=message
        )
    if not member.in_sync:
        return LegFact(
            extent=leg.extent,
            condition=LegCondition.RECOVERING,
            broken=broken,
            done_bytes=array.sync_done_bytes,
            total_bytes=array.sync_total_bytes,
            message=message,
        )
    if trouble is not None:
        return _held(leg, trouble)
    return LegFact(extent=leg.extent, condition=LegCondition.ACTIVE)
