"""From a volume's document and what the head's kernel shows to the next steps of its stack.

Each step is safe to repeat. A batch holds what can be done without looking again; the head does
it, looks, and asks for the next, until there is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from vastskyd.core.documents import (
    LegCondition,
    LegSpec,
    VolumeCondition,
    VolumeFact,
    VolumeSpec,
)
from vastskyd.core.errors import VastskyError
from vastskyd.core.guards import GUARD_BYTES, guarded_length
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import Layout, LegState
from vastskyd.core.names import LegName, VolumeDeviceName, volume_dm_name
from vastskyd.core.quorum import may_acknowledge, recovery_quorum
from vastskyd.core.sight import (
    SeenArray,
    SeenLeg,
    SegmentSight,
    Sight,
    Trouble,
    kernel_name,
    look_at_segment,
)
from vastskyd.core.steps import (
    AddMember,
    AssembleArray,
    BreakLeg,
    Connect,
    CreateArray,
    Disconnect,
    FailMember,
    FindArray,
    MakeWritable,
    MapLeg,
    MapVolume,
    ReleaseLeg,
    RemoveMember,
    ResizeArray,
    Step,
    StopArray,
    ThawArray,
)
from vastskyd.core.teardown import plan_teardown, stale_legs


@dataclass(frozen=True)
class Plan:
    """`steps` in order; `fact` is what to report now, None if nothing is there any more."""

    steps: tuple[Step, ...]
    fact: VolumeFact | None

    def explained(self, error: VastskyError) -> "Plan":
        """The same, with what went wrong in the fact."""
        if self.fact is None:
            return self
        fact = msgspec.structs.replace(
            self.fact, message=error.message, error_code=error.code, hint=error.hint
        )
        return Plan(self.steps, fact)

    def assembling(self, message: str) -> "Plan":
        """The same, with the volume not ready yet."""
        if self.fact is None or self.fact.condition is not VolumeCondition.ACTIVE:
            return self
        condition = VolumeCondition.ASSEMBLING
        fact = msgspec.structs.replace(self.fact, condition=condition, message=message)
        return Plan(self.steps, fact)


@dataclass
class _Draft:
    steps: list[Step] = field(default_factory=list)
    waits_for: str = ""

    def wait(self, why: str) -> None:
        self.waits_for = self.waits_for or why

    def only_connects(self) -> bool:
        """Nothing is to be done but what goes on in the background."""
        return all(isinstance(step, Connect) for step in self.steps)


def plan_volume(
    spec: VolumeSpec,
    sight: Sight,
    trouble: Mapping[ExtentId, Trouble],
    users: tuple[str, ...],
    *,
    waited: bool,
) -> Plan:
    """The next steps of a volume that this head has a document for.

    `trouble` are the legs that the head has waited for long enough; `waited`: so it has for legs
    that did not appear at all. `users` are the holders found when a detach was last tried.
    """
    if sight.epochs(spec.id) - {spec.epoch}:
        steps = plan_teardown(spec.id, sight, trouble, force=True)
        return Plan(
            steps, _fact(spec, (), VolumeCondition.ASSEMBLING, "an older stack is taken down")
        )
    draft = _Draft()
    segments = [look_at_segment(spec, s, sight, trouble) for s in spec.segments]
    for segment in segments:
        _drop_lost_legs(draft, spec, segment, sight)
    if not spec.attached:
        for segment in segments if users else ():
            # Who uses the volume may be waiting for this very leg.
            _reach_legs(draft, spec, segment, sight, trouble)
        return _plan_detach(draft, spec, segments, sight, trouble, users)
    for segment in segments:
        _reach_legs(draft, spec, segment, sight, trouble)
        if spec.layout is not Layout.LINEAR:
            _build_array(draft, spec, segment, sight, trouble, waited=waited)
    draft.steps += stale_legs(spec, sight)
    _drop_dead_paths(draft, spec, sight)
    if draft.only_connects():
        _expose(draft, spec, segments, sight)
    there = spec.id in sight.volumes if spec.exposed else _runs(segments)
    condition = VolumeCondition.ACTIVE if there else VolumeCondition.ASSEMBLING
    return Plan(
        tuple(draft.steps),
        _fact(spec, segments, condition, "" if there else draft.waits_for),
    )


def _fact(
    spec: VolumeSpec,
    segments: tuple[SegmentSight, ...] | list[SegmentSight],
    condition: VolumeCondition,
    message: str = "",
    users: tuple[str, ...] = (),
) -> VolumeFact:
    return VolumeFact(
        id=spec.id,
        epoch=spec.epoch,
        condition=condition,
        segments=tuple(segment.fact() for segment in segments),
        users=users,
        message=message,
        exposed=spec.exposed,
    )


def _runs(segments: list[SegmentSight]) -> bool:
    """All of the volume is there and written to, be it by md alone."""
    arrays = [segment.array for segment in segments if segment.spec.initialised]
    running = [array for array in arrays if array is not None and not array.read_only]
    return len(running) == len(segments)


def _leg_name(spec: VolumeSpec, segment: SegmentSight, leg: LegSpec) -> LegName:
    return LegName(spec.id, segment.spec.index, leg.extent, spec.epoch)


# --- losing legs --------------------------------------------------------------------------


def _drop_lost_legs(draft: _Draft, spec: VolumeSpec, segment: SegmentSight, sight: Sight) -> None:
    """Lets md go on without the legs that it may go on without, one a batch, then clears away
    what md already gave up. In this order: md does not clear away before all I/O that is under way
    on the array is done (drivers/md/md.c, mddev_suspend), and some may be held by the next leg.
    A leg that gets errors only is out whether md could be told so or not: it is told in time."""
    if spec.layout is Layout.LINEAR:
        _fail_bad_blocks(draft, segment, sight)
    array = segment.array
    if array is None:
        return
    wanted = {leg.extent: leg for leg in segment.spec.legs}
    members, cut_off = _members(array, sight), sight.cut_off(array)
    faulty = [seen for seen in members if array.members[kernel_name(seen.device)].faulty]
    working = [seen for seen in members if seen not in faulty]
    cut = [seen for seen in working if kernel_name(seen.device) in cut_off]
    used = [seen for seen in working if seen not in cut]
    for seen in used:
        extent = seen.name.extent
        if extent not in wanted or _may_drop(segment, extent):
            if _answers(used, sight, but=seen):
                draft.steps += [ReleaseLeg(seen.name), FailMember(array.device, seen.device)]
            elif sight.works(seen):
                draft.steps.append(BreakLeg(seen.name))
            elif seen.holds:
                draft.steps.append(ReleaseLeg(seen.name))
            return
    for seen in used:
        extent = seen.name.extent
        if wanted[extent].leaving and _may_leave(segment, extent, spec.copies):
            draft.steps += [ReleaseLeg(seen.name), FailMember(array.device, seen.device)]
            return
    if cut and _answers(used, sight):
        draft.steps.append(FailMember(array.device, cut[0].device))
        return
    draft.steps += [ReleaseLeg(seen.name) for seen in faulty if seen.holds]
    if faulty and not cut and _answers(used, sight):
        draft.steps.append(RemoveMember(array.device, faulty[0].device))


def _answers(used: list[SeenLeg], sight: Sight, but: SeenLeg | None = None) -> bool:
    """Whether md can be asked for anything: while it writes superblocks it keeps its lock, and a
    leg that holds I/O holds them too (drivers/md/md.c, md_update_sb)."""
    return all(sight.works(leg) for leg in used if leg is not but)


def _fail_bad_blocks(draft: _Draft, segment: SegmentSight, sight: Sight) -> None:
    """Without another leg an I/O error is the user's. It is the disk's answer, not its absence:
    for that I/O waits, unless the disk will not return."""
    for leg in segment.spec.legs:
        seen = sight.legs.get(leg.extent)
        broken = segment.facts[leg.extent].broken and not leg.condemned
        if (broken or leg.failed) and seen is not None and seen.holds:
            draft.steps.append(ReleaseLeg(seen.name))


def _members(array: SeenArray, sight: Sight) -> list[SeenLeg]:
    by_device = {kernel_name(leg.device): leg for leg in sight.legs.values()}
    return [by_device[name] for name in sorted(array.members) if name in by_device]


def _may_drop(segment: SegmentSight, extent: ExtentId) -> bool:
    """The quorum rule: by itself, a head drops a leg in trouble only while enough are left."""
    fact = segment.facts[extent]
    in_sync = segment.in_state(LegState.IN_SYNC)
    joining = segment.in_state(LegState.JOINING)
    if extent not in in_sync and extent not in joining:
        return bool(fact.message)
    if not fact.message:
        return False
    rest = [other for other in segment.active() if other != extent]
    return may_acknowledge(in_sync, joining, rest)


def _may_leave(segment: SegmentSight, extent: ExtentId, copies: int) -> bool:
    """Whether the rest of the set is enough by itself, all of it at work."""
    rest = [
        other
        for other, fact in segment.facts.items()
        if fact.condition is LegCondition.ACTIVE and other != extent
    ]
    in_sync = segment.in_state(LegState.IN_SYNC)
    return sum(other in rest for other in in_sync) >= copies and may_acknowledge(
        in_sync, segment.in_state(LegState.JOINING), rest
    )


# --- reaching legs ------------------------------------------------------------------------


def _reach_legs(
    draft: _Draft,
    spec: VolumeSpec,
    segment: SegmentSight,
    sight: Sight,
    trouble: Mapping[ExtentId, Trouble],
) -> None:
    for leg in segment.spec.legs:
        if leg.condemned or not _is_useful(segment, leg):
            continue
        live = sight.live_paths(leg.extent, spec.epoch)
        draft.steps += [
            Connect(leg.extent, spec.epoch, endpoint, leg.export_name, spec.encryption, leg.node)
            for endpoint in leg.endpoints
            if endpoint.network not in {path.network for path in live}
        ]
        seen = sight.legs.get(leg.extent)
        if seen is not None and _is_given_up(segment.array, seen, sight):
            continue  # its hold has ended until md has let go of it
        broken = leg.extent in trouble and trouble[leg.extent].broken
        # Of a disk that was moved from this host to another, what is left here is no way to it.
        useful = [path for path in live if path.network >= 0 or not leg.endpoints]
        wanted = tuple(path.device for path in sorted(useful, key=lambda path: path.network))
        if wanted and not broken:
            has = () if seen is None else seen.paths
            if (
                seen is None
                or not seen.holds
                # A path that only went is left in the table: a swap would wait for its I/O.
                or {kernel_name(device) for device in wanted} - set(has)
            ):
                name = _leg_name(spec, segment, leg)
                draft.steps.append(MapLeg(name, wanted, leg.length_bytes))


def _is_given_up(array: SeenArray | None, seen: SeenLeg, sight: Sight) -> bool:
    device = kernel_name(seen.device)
    if array is None or device not in array.members:
        return False
    return array.members[device].faulty or device in sight.cut_off(array)


def _is_useful(segment: SegmentSight, leg: LegSpec) -> bool:
    """A leg of the set that md does not use waits for the manager's word before it returns."""
    if segment.array is None:
        return leg.state in _first_legs(segment)
    seen = segment.facts[leg.extent]
    if leg.state in (LegState.IN_SYNC, LegState.JOINING):
        return seen.condition not in (LegCondition.OUT, LegCondition.ABSENT)
    return True


def _first_legs(segment: SegmentSight) -> tuple[LegState, ...]:
    """What an array is assembled of. In doubt, one that is said to join may be the only one that
    is left of the set: md's event counts tell, if it is given all."""
    if segment.spec.in_doubt:
        return (LegState.IN_SYNC, LegState.JOINING)
    return (LegState.IN_SYNC,)


def _drop_dead_paths(draft: _Draft, spec: VolumeSpec, sight: Sight) -> None:
    in_use = {name for leg in sight.legs.values() for name in leg.paths}
    extents = {leg.extent for segment in spec.segments for leg in segment.legs}
    for path in sight.paths:
        stale = not path.alive or path.epoch not in (spec.epoch, -1)
        if stale and path.extent in extents and kernel_name(path.device) not in in_use:
            draft.steps.append(Disconnect(path.device))


# --- arrays -------------------------------------------------------------------------------


def _build_array(
    draft: _Draft,
    spec: VolumeSpec,
    segment: SegmentSight,
    sight: Sight,
    trouble: Mapping[ExtentId, Trouble],
    *,
    waited: bool,
) -> None:
    if segment.array is not None:
        if segment.array.frozen:
            # By whoever added a leg, and was killed over it: a leg's I/O may have been held.
            draft.steps.append(ThawArray(segment.array.device))
        _fill_array(draft, spec, segment, segment.array, sight)
        return
    half_made = sight.arrays.get((spec.id, segment.spec.index))
    if half_made is not None:
        draft.steps.append(StopArray(half_made.device))
        return
    # Nobody writes to what is not built. A program that builds it may hang on what is held.
    for leg in segment.spec.legs:
        held = sight.legs.get(leg.extent)
        if (
            leg.extent in trouble
            and held is not None
            and held.holds
            and not sight.live_paths(leg.extent, spec.epoch)
        ):
            draft.steps.append(ReleaseLeg(held.name))
    committed = [leg for leg in segment.spec.legs if leg.state in _first_legs(segment)]
    expected = [leg for leg in committed if leg.endpoints or leg.local]
    there = [
        seen.device
        for leg in expected
        if (seen := sight.legs.get(leg.extent)) is not None and sight.works(seen)
    ]
    need = recovery_quorum(len(committed)) if segment.spec.initialised else 1
    if segment.spec.in_doubt:
        need = len(committed)
    if len(there) < need or (len(there) < len(expected) and not waited):
        draft.wait(
            f"segment {segment.spec.index}: {len(there)} of {len(committed)} in-sync legs are"
            f" connected, {need} needed"
        )
        return
    if segment.spec.initialised:
        draft.steps.append(AssembleArray(spec.id, segment.spec.index, tuple(there)))
    else:
        make = FindArray if segment.spec.in_doubt else CreateArray
        draft.steps.append(
            make(
                spec.id,
                segment.spec.index,
                tuple(there),
                spec.copies,
                guarded_length(segment.spec.length_bytes),
            )
        )


def _fill_array(
    draft: _Draft, spec: VolumeSpec, segment: SegmentSight, array: SeenArray, sight: Sight
) -> None:
    """Legs out of the set join the array once they can be reached and it is written to. It has a
    place more than the volume has copies while a leg is moved, and no longer: md takes an array
    with an empty place for degraded, and keeps all marks in its bitmap."""
    waiting = [
        (leg.extent, seen.device)
        for leg in segment.spec.legs
        if leg.state in (LegState.BEHIND, LegState.REBUILDING)
        and not leg.condemned
        and not array.read_only
        and (seen := sight.legs.get(leg.extent)) is not None
        and seen.name.epoch == spec.epoch
        and seen.holds
        and sight.works(seen)
        and kernel_name(seen.device) not in array.members
    ]
    members, most = len(array.members), max(spec.copies, len(segment.spec.legs))
    if waiting and members < min(array.places, most):
        extent, device = waiting[0]
        draft.steps.append(AddMember(array.device, device, extent, spec.id, segment.spec.index))
    elif waiting and members < most and _may_resize(array, sight):
        draft.steps.append(ResizeArray(array.device, members + 1))
    elif array.places > most >= members and _may_resize(array, sight):
        draft.steps.append(ResizeArray(array.device, most))


def _may_resize(array: SeenArray, sight: Sight) -> bool:
    """md does so between two requests, and not while it copies: what is held would hold that up."""
    return (
        not array.read_only
        and not array.sync_total_bytes
        and all(member.in_sync for member in array.members.values())
        and all(sight.works(seen) for seen in _members(array, sight))
    )


# --- the volume's device ------------------------------------------------------------------


def _expose(draft: _Draft, spec: VolumeSpec, segments: list[SegmentSight], sight: Sight) -> None:
    parts: list[tuple[str, int, int]] = []
    for segment in segments:
        device = _segment_device(spec, segment, sight)
        if device is None:
            draft.wait(f"segment {segment.spec.index} is not there yet")
            return
        if not segment.spec.initialised:
            draft.wait(f"segment {segment.spec.index}: its creation is being recorded")
            return
        # All of the set, not a quorum: the legs that were not there may have a history of their
        # own, and must be out of the set before this one has its first write.
        committed = segment.in_state(LegState.IN_SYNC, LegState.JOINING)
        there = [extent for extent in committed if extent in segment.active()]
        if len(there) < len(committed):
            draft.wait(
                f"segment {segment.spec.index}: waiting for the manager to record that it goes on"
                f" with {len(there)} of {len(committed)} in-sync legs"
            )
            return
        parts.append((device, GUARD_BYTES, segment.spec.length_bytes))
    draft.steps += [
        MakeWritable(segment.array.device)
        for segment in segments
        if segment.array is not None and segment.array.read_only
    ]
    if spec.exposed and spec.id not in sight.volumes and not draft.steps:
        name = VolumeDeviceName(spec.id, spec.epoch)
        draft.steps.append(MapVolume(name, volume_dm_name(spec.name), tuple(parts)))


def _segment_device(spec: VolumeSpec, segment: SegmentSight, sight: Sight) -> str | None:
    if spec.layout is not Layout.LINEAR:
        return None if segment.array is None else segment.array.device
    legs = [sight.legs.get(leg.extent) for leg in segment.spec.legs]
    return legs[0].device if legs and legs[0] is not None else None


# --- taking down --------------------------------------------------------------------------


def _plan_detach(
    draft: _Draft,
    spec: VolumeSpec,
    segments: list[SegmentSight],
    sight: Sight,
    trouble: Mapping[ExtentId, Trouble],
    users: tuple[str, ...],
) -> Plan:
    condition = VolumeCondition.IN_USE if users else VolumeCondition.DETACHING
    if draft.only_connects():
        draft.steps += plan_teardown(spec.id, sight, trouble, force=False)
    return Plan(tuple(draft.steps), _fact(spec, segments, condition, "", users))
