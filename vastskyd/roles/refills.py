"""How much was written to each leg that was given back to its array."""

import msgspec

from vastskyd.core.documents import HeadDocument, LegCondition, LegFact, VolumeFact
from vastskyd.core.errors import NotFoundError
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import LegState
from vastskyd.ports import DeviceMapper

_COUNTED = (LegCondition.RECOVERING, LegCondition.ACTIVE)


class Refills:
    """Remembers between looks. A restarted daemon does not know of what began before."""

    def __init__(self, dm: DeviceMapper) -> None:
        self._dm = dm
        self._legs: dict[ExtentId, tuple[str, int]] = {}

    @property
    def counting(self) -> bool:
        return bool(self._legs)

    async def begin(self, extent: ExtentId, device: str) -> None:
        self._legs[extent] = (device, await self._dm.written_bytes(device))

    def forget(self, document: HeadDocument) -> None:
        """Legs that are in the set again, or are not to be."""
        filling = {
            leg.extent
            for volume in document.volumes
            for segment in volume.segments
            for leg in segment.legs
            if leg.state is not LegState.IN_SYNC
        }
        self._legs = {extent: leg for extent, leg in self._legs.items() if extent in filling}

    async def told(self, fact: VolumeFact) -> VolumeFact:
        """The fact with the counts in it."""
        if not self._legs:
            return fact
        segments = []
        for segment in fact.segments:
            legs = [await self._counted(leg) for leg in segment.legs]
            segments.append(msgspec.structs.replace(segment, legs=tuple(legs)))
        return msgspec.structs.replace(fact, segments=tuple(segments))

    async def _counted(self, leg: LegFact) -> LegFact:
        if leg.extent not in self._legs or leg.condition not in _COUNTED:
            return leg
        device, before_bytes = self._legs[leg.extent]
        try:
            now_bytes = await self._dm.written_bytes(device)
        except NotFoundError:
            return leg
        return msgspec.structs.replace(leg, written_bytes=max(0, now_bytes - before_bytes))
