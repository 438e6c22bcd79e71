"""What the nodes say of a volume's legs."""

from vastskyd.core.documents import LegFact, VolumeFact
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import SERVING, Volume
from vastskyd.core.turn import Turn


def leg_facts(turn: Turn, volume: Volume) -> dict[ExtentId, LegFact]:
    """What the volume's head says of its legs in this attachment; empty if it says nothing."""
    fact = volume_fact(turn, volume)
    if fact is None:
        return {}
    return {leg.extent: leg for segment in fact.segments for leg in segment.legs}


def volume_fact(turn: Turn, volume: Volume) -> VolumeFact | None:
    attachment = volume.attachment
    if attachment is None:
        return None
    fact = turn.facts[attachment.head].volumes.get(volume.id)
    return fact if fact is not None and fact.epoch == attachment.epoch else None


def reachable(turn: Turn, extent: ExtentId) -> bool:
    disk = turn.draft.disk_of(extent)
    return disk is not None and disk.state in SERVING and turn.facts[disk.node].online
