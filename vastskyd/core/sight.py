"""What a head's kernel shows of its stacks, and what that means for each leg."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

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


class SeenPath(msgspec.Struct, frozen=True):
    """An NBD connection of a leg, or the local extent (`network` is -1)."""

    device: str
    extent: ExtentId
    epoch: int
    network: int
    alive: bool


class SeenLeg(msgspec.Struct, frozen=True):
    """A leg's device. `paths` are kernel names; `failed` those that device-mapper gave up."""

    name: LegName
    device: str
    paths: tuple[str, ...]
    failed: frozenset[str]
    holds: bool


class SeenMember(msgspec.Struct, frozen=True):
    """`state` is a word of the array's: in-sync, recovering, spare, faulty."""

    device: str
    in_sync: bool
    faulty: bool


class SeenArray(msgspec.Struct, frozen=True):
    """One that is not `running` is half put together or half taken apart. `places`: how many legs
    it is made for. `writes_held`: to some of it, for a scrub. `frozen`: it begins no copying."""

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
    frozen: bool = False


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

    def works(self, leg: SeenLeg) -> bool:
        """It has a path that is there and was not given up."""
        return not self._alive.isdisjoint(set(leg.paths) - leg.failed)

    @cached_property
    def _alive(self) -> frozenset[str]:
        return frozenset(kernel_name(path.device) for path in self.paths if path.alive)

    def cut_off(self, array: SeenArray) -> frozenset[str]:
        """The members whose I/O fails at once: no path of theirs works, and nothing is held for
        one. Nobody but a head gives a leg a path. None, if it is all that md could go on with."""
        cut = {
            kernel_name(leg.device)
            for leg in self.legs.values()
            if not leg.holds and kernel_name(leg.device) in array.members and not self.works(leg)
        }
        whole = {m.device for m in array.members.values() if m.in_sync and not m.faulty}
        return frozenset(cut) if whole - cut else frozenset()


class Trouble(msgspec.Struct, frozen=True):
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
    cut_off = frozenset[str]() if array is None else sight.cut_off(array)
    facts = {}
    for leg in spec.legs:
        seen = sight.legs.get(leg.extent)
        if seen is not None and seen.name.epoch != volume.epoch:
            seen = None
        if volume.layout is Layout.LINEAR:
            works = seen is not None and sight.works(seen)
            facts[leg.extent] = _bare_leg(leg, seen, trouble.get(leg.extent), works=works)
        else:
            facts[leg.extent] = _member_leg(leg, seen, array, cut_off, trouble.get(leg.extent))
    created = array is not None
    if volume.layout is Layout.LINEAR:
        created = all(fact.condition is not LegCondition.ABSENT for fact in facts.values())
    return SegmentSight(spec, array, facts, created)


def _bare_leg(
    leg: LegSpec, seen: SeenLeg | None, trouble: Trouble | None, *, works: bool
) -> LegFact:
    if seen is None:
        return LegFact(extent=leg.extent, condition=LegCondition.ABSENT)
    if trouble is None or works:
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
    leg: LegSpec,
    seen: SeenLeg | None,
    array: SeenArray | None,
    cut_off: frozenset[str],
    trouble: Trouble | None,
) -> LegFact:
    """One that is cut off is out, be it that md has not met its errors yet, nor can be told."""
    if array is None:
        return LegFact(extent=leg.extent, condition=LegCondition.ABSENT)
    member = None if seen is None else array.members.get(kernel_name(seen.device))
    broken = trouble is not None and trouble.broken
    message = "" if trouble is None else trouble.message
    if member is None or member.faulty or member.device in cut_off:
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
