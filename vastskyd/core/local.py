"""What a host can say of its own volumes without the manager."""

from vastskyd.core.api import LocalVolume
from vastskyd.core.documents import (
    HeadDocument,
    HeadReport,
    LegCondition,
    LegSpec,
    VolumeCondition,
    VolumeFact,
    VolumeSpec,
)
from vastskyd.core.names import volume_device

STALLED = "stalled"
DEGRADED = "degraded"


def local_volumes(
    document: HeadDocument, report: HeadReport, *, connected: bool
) -> tuple[LocalVolume, ...]:
    """The volumes that this head is to have, as its kernel shows them."""
    facts = {fact.id: fact for fact in report.volumes}
    return tuple(
        _local(spec, facts.get(spec.id), connected=connected)
        for spec in sorted(document.volumes, key=lambda spec: spec.name)
    )


def _local(spec: VolumeSpec, fact: VolumeFact | None, *, connected: bool) -> LocalVolume:
    state, message = "assembling", ""
    if fact is not None:
        state, message = fact.condition.value, fact.message
        if fact.condition is VolumeCondition.ACTIVE:
            state, message = _health(spec, fact, state, connected=connected)
    return LocalVolume(
        name=spec.name, device=volume_device(spec.name), state=state, message=message
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
        return DEGRADED, f"without {', '.join(gone)}"
    return state, ""


def _where(leg: LegSpec | None) -> str:
    return "a leg" if leg is None else f"the leg on {leg.node}"
