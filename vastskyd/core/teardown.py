"""What is to go of a head's stacks: of a volume layer by layer, and what no document names."""

from collections.abc import Mapping

from vastskyd.core.documents import VolumeSpec
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.model import Layout
from vastskyd.core.sight import Sight, Trouble, kernel_name
from vastskyd.core.steps import (
    BreakLeg,
    Disconnect,
    EndWriters,
    ReleaseLeg,
    RemoveWreck,
    Step,
    StopArray,
    UnmapLeg,
    UnmapVolume,
)


def plan_teardown(
    volume: VolumeId, sight: Sight, trouble: Mapping[ExtentId, Trouble], *, force: bool
) -> tuple[Step, ...]:
    """The next layer to remove, from the top. With `force` nothing waits: held I/O fails first,
    and users of the device get errors."""
    legs = [leg for leg in sight.legs.values() if leg.name.volume == volume]
    seen = sight.volumes.get(volume)
    released: list[Step] = []
    if force:
        # Those that work go first. The other way round md would go on with them alone, and
        # acknowledge what they took, in a history that is over. What they took before waits for
        # the others: when these go, md calls it written, and nobody may be told.
        used = [leg for leg in legs if leg.holds or leg.paths]
        released += [BreakLeg(leg.name) for leg in used if sight.works(leg)]
        released += [EndWriters(seen.dm_name)] if seen is not None else []
        released += [BreakLeg(leg.name) for leg in used if not sight.works(leg)]
    if seen is not None and not seen.broken_off:
        return (*released, UnmapVolume(seen.dm_name, force))
    # Nobody can write any more: no acknowledgement depends on what md does without these.
    released += [
        ReleaseLeg(leg.name)
        for leg in legs
        if leg.holds and not force and leg.name.extent in trouble
    ]
    arrays = [array for (owner, _), array in sorted(sight.arrays.items()) if owner == volume]
    if arrays:
        return (*released, *(StopArray(array.device) for array in arrays))
    if legs:
        return (*released, *(UnmapLeg(leg.name) for leg in legs))
    if seen is not None:
        return (UnmapVolume(seen.dm_name, force),)
    return ()


def plan_wrecks(sight: Sight) -> dict[VolumeId, tuple[RemoveWreck, ...]]:
    """What is left of fenced volumes, once nobody uses it any more."""
    plans: dict[VolumeId, tuple[RemoveWreck, ...]] = {}
    for wreck in sight.wrecks:
        if not wreck.open_count:
            step = RemoveWreck(wreck.dm_name)
            plans[wreck.volume] = (*plans.get(wreck.volume, ()), step)
    return plans


def plan_orphan_paths(
    sight: Sight, wanted: frozenset[tuple[ExtentId, int]]
) -> tuple[Disconnect, ...]:
    """Connections that no document wants and no leg uses."""
    in_use = {name for leg in sight.legs.values() for name in leg.paths}
    return tuple(
        Disconnect(path.device)
        for path in sight.paths
        if path.network >= 0
        and (path.extent, path.epoch) not in wanted
        and kernel_name(path.device) not in in_use
    )


def stale_legs(spec: VolumeSpec, sight: Sight) -> tuple[UnmapLeg, ...]:
    """Legs of the volume that are mapped and neither in an array nor of any use: replaced ones,
    and those that lost all paths."""
    members = {
        name
        for (volume, _), array in sight.arrays.items()
        if volume == spec.id
        for name in array.members
    }
    wanted = {leg.extent for segment in spec.segments for leg in segment.legs}
    return tuple(
        UnmapLeg(leg.name)
        for leg in sight.legs.values()
        if leg.name.volume == spec.id
        and kernel_name(leg.device) not in members
        and spec.layout is not Layout.LINEAR
        and (
            leg.name.extent not in wanted
            or (
                (spec.id, leg.name.segment) in sight.arrays
                and not sight.live_paths(leg.name.extent, leg.name.epoch)
            )
        )
    )
