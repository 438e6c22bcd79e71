"""What a host can say of its own volumes and disks without the manager."""

from vastskyd.core.answers import DiskView, LocalVolume, SmartView
from vastskyd.core.documents import (
    CandidateFact,
    DiskCondition,
    DiskFact,
    DiskSpec,
    HeadDocument,
    HeadReport,
    LegCondition,
    LegFact,
    LegSpec,
    StorageDocument,
    StorageReport,
    VolumeCondition,
    VolumeFact,
    VolumeSpec,
)
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.model import SmartReading
from vastskyd.core.names import volume_device

STALLED = "stalled"
DEGRADED = "degraded"
REBUILDING = "rebuilding"

_DISK_STATES = {DiskCondition.PRESENT: "online"}


def local_volumes(
    document: HeadDocument, report: HeadReport, *, connected: bool
) -> tuple[LocalVolume, ...]:
    """The volumes that this head is to have, as its kernel shows them."""
    facts = {fact.id: fact for fact in report.volumes}
    return tuple(
        _local(spec, facts.get(spec.id), connected=connected)
        for spec in sorted(document.volumes, key=lambda spec: spec.name)
        if spec.exposed  # else nobody attached it here, and nobody can use it
    )


def _local(spec: VolumeSpec, fact: VolumeFact | None, *, connected: bool) -> LocalVolume:
    state, message = "assembling", ""
    if fact is not None:
        state, message = fact.condition.value, fact.message
        if fact.condition is VolumeCondition.ACTIVE:
            state, message = _health(spec, fact, state, connected=connected)
    filling = () if fact is None else _filling(fact)
    return LocalVolume(
        id=spec.id,
        name=spec.name,
        device=volume_device(spec.name),
        state=state,
        message=message,
        rebuilt_bytes=sum(leg.done_bytes for leg in filling),
        rebuild_bytes=sum(leg.total_bytes for leg in filling),
    )


def _filling(fact: VolumeFact) -> tuple[LegFact, ...]:
    """The legs that are copied to; one that was added just now waits for that to begin."""
    return tuple(
        leg
        for segment in fact.segments
        for leg in segment.legs
        if leg.condition is LegCondition.RECOVERING and leg.total_bytes
    )


def _health(spec: VolumeSpec, fact: VolumeFact, state: str, *, connected: bool) -> tuple[str, str]:
    legs = {leg.extent: leg for segment in spec.segments for leg in segment.legs}
    held: dict[str, str] = {}
    gone: dict[str, str] = {}
    for leg in (leg for segment in fact.segments for leg in segment.legs):
        spec_of = legs.get(leg.extent)
        if leg.condition is LegCondition.HELD:
            held.setdefault(_where(spec_of), leg.message)
        elif leg.condition is not LegCondition.ACTIVE:
            gone.setdefault(_where(spec_of), leg.message)
    if held:
        reasons = "; ".join(f"{where}: {why}" if why else where for where, why in held.items())
        word = "the manager's word" if connected else "the manager, which is unreachable"
        return STALLED, f"writes wait for {reasons}; to go on without it takes {word}"
    if gone:
        state = REBUILDING if _filling(fact) else DEGRADED
        return state, f"without {', '.join(gone)}"
    return state, ""


def _where(leg: LegSpec | None) -> str:
    return "a leg" if leg is None else f"the leg on {leg.node}"


def local_disks(
    node: NodeId, document: StorageDocument, report: StorageReport
) -> tuple[DiskView, ...]:
    """The disks that this host is to have, and those that it could offer, as it sees them."""
    facts = {fact.id: fact for fact in report.disks}
    enrolled = [
        _local_disk(node, document, spec, facts.get(spec.id))
        for spec in sorted(document.disks, key=lambda spec: spec.path)
    ]
    return (*enrolled, *(candidate_view(node, each) for each in report.candidates))


def _local_disk(
    node: NodeId, document: StorageDocument, spec: DiskSpec, fact: DiskFact | None
) -> DiskView:
    if fact is None:
        state = "enrolling" if spec.enrol else "unknown"
        fact = DiskFact(id=spec.id, path=spec.path, condition=DiskCondition.MISSING)
    else:
        state = _DISK_STATES.get(fact.condition, fact.condition.value)
    used_bytes = sum(each.length_bytes for each in document.extents if each.disk == spec.id)
    area_bytes = fact.area_end_bytes - fact.area_start_bytes
    return DiskView(
        id=spec.id,
        node=node,
        path=fact.path or spec.path,
        serial=spec.serial,
        size_bytes=fact.size_bytes,
        free_bytes=max(0, area_bytes - used_bytes),
        state=state,
        message=fact.message or "slow" * (fact.slow_ms > 0) or _made_of(fact),
        smart=None if fact.smart is None else smart_view(fact.smart),
    )


def _made_of(fact: DiskFact) -> str:
    return f"file {fact.file}" if fact.file else ""


def smart_view(
    reading: SmartReading, read_s: float = 0.0, warnings: tuple[str, ...] = ()
) -> SmartView:
    """`warnings` are the manager's to say, by what the disk said before."""
    return SmartView(
        health=reading.health,
        reason=reading.reason,
        model=reading.model,
        read_s=read_s,
        reallocated=reading.reallocated,
        pending=reading.pending,
        media_errors=reading.media_errors,
        wear_percent=reading.wear_percent,
        spare_percent=reading.spare_percent,
        temperature_c=reading.temperature_c,
        power_on_h=reading.power_on_h,
        warnings=warnings,
    )


def candidate_view(node: NodeId, candidate: CandidateFact) -> DiskView:
    """A disk that is not enrolled has no id."""
    return DiskView(
        id=DiskId(""),
        node=node,
        path=candidate.path,
        serial=candidate.serial,
        size_bytes=candidate.size_bytes,
        free_bytes=0,
        state="candidate",
        message=candidate.found,
    )
