"""What a host can say of its own volumes and disks without the manager."""

import msgspec

from vastskyd.core.answers import DiskView, LocalVolume, SmartView
from vastskyd.core.documents import (
    CandidateFact,
    DiskCondition,
    DiskFact,
    DiskSpec,
    DiskWords,
    ExtentWish,
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
from vastskyd.core.model import DiskState, SmartReading
from vastskyd.core.names import volume_device

STALLED = "stalled"
DEGRADED = "degraded"
REBUILDING = "rebuilding"


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
    """The disks that this host is to have, and those that it could offer: what it sees of them, and
    what the manager has told it of them."""
    facts = {fact.id: fact for fact in report.disks}
    enrolled = [
        _local_disk(node, document, spec, facts.get(spec.id))
        for spec in sorted(document.disks, key=lambda spec: spec.path)
    ]
    told = {offer.path: offer.message for offer in document.offers}
    offered = (
        candidate_view(node, each, told.get(each.path, each.found)) for each in report.candidates
    )
    return (*enrolled, *offered)


def _local_disk(
    node: NodeId, document: StorageDocument, spec: DiskSpec, fact: DiskFact | None
) -> DiskView:
    words = spec.words
    state = _local_state(spec, fact)
    if fact is None:
        fact = DiskFact(id=spec.id, path=spec.path, condition=DiskCondition.MISSING)
    extents = [each for each in document.extents if each.disk == spec.id]
    area_bytes = fact.area_end_bytes - fact.area_start_bytes
    if fact.message:
        words = msgspec.structs.replace(words, reason=fact.message)
    return DiskView(
        id=spec.id,
        node=node,
        path=fact.path or spec.path,
        serial=spec.serial,
        size_bytes=fact.size_bytes,
        free_bytes=max(0, area_bytes - sum(each.length_bytes for each in extents)),
        state=state,
        message=disk_message(
            words,
            file=fact.file,
            slow=fact.slow_ms > 0,
            wiping=any(each.wish is ExtentWish.RELEASE for each in extents),
        ),
        volumes=words.volumes,
        smart=None if fact.smart is None else smart_view(fact.smart, words),
    )


def _local_state(spec: DiskSpec, fact: DiskFact | None) -> str:
    """A disk that is there is what the manager has made of it, once that knows that it is there."""
    if fact is None:
        return "enrolling" if spec.enrol else "unknown"
    if fact.condition is not DiskCondition.PRESENT:
        return fact.condition.value
    known = spec.words.state
    return (DiskState.ONLINE if known is DiskState.MISSING else known).value


def disk_message(words: DiskWords, *, file: str, slow: bool, wiping: bool) -> str:
    said = [f"file {file}"] * bool(file) + [words.reason] * bool(words.reason)
    said += ["slow"] * slow + ["wiping freed extents"] * wiping
    return "; ".join((*said, *words.warnings))


def smart_view(reading: SmartReading, words: DiskWords) -> SmartView:
    return SmartView(
        health=reading.health,
        reason=reading.reason,
        model=reading.model,
        read_s=words.smart_read_s,
        reallocated=reading.reallocated,
        pending=reading.pending,
        media_errors=reading.media_errors,
        wear_percent=reading.wear_percent,
        spare_percent=reading.spare_percent,
        temperature_c=reading.temperature_c,
        power_on_h=reading.power_on_h,
        warnings=words.warnings,
    )


def candidate_view(node: NodeId, candidate: CandidateFact, message: str) -> DiskView:
    """A disk that is not enrolled has no id."""
    return DiskView(
        id=DiskId(""),
        node=node,
        path=candidate.path,
        serial=candidate.serial,
        size_bytes=candidate.size_bytes,
        free_bytes=0,
        state="candidate",
        message=message,
    )
