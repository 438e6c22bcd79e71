"""What of the kernel does each step of a head's plan."""

import logging
from collections.abc import Awaitable

from vastskyd.core.errors import NotFoundError
from vastskyd.core.names import array_uuid
from vastskyd.core.steps import (
    AddMember,
    AssembleArray,
    BreakLeg,
    Connect,
    CreateArray,
    Disconnect,
    EndWriters,
    FailMember,
    FindArray,
    MakeWritable,
    MapLeg,
    MapVolume,
    ReleaseLeg,
    RemoveMember,
    RemoveWreck,
    ResizeArray,
    Step,
    StopArray,
    ThawArray,
    UnmapLeg,
    UnmapVolume,
)
from vastskyd.ports import DeviceMapper, Kernel, LinearTarget, Md
from vastskyd.roles.refills import Refills

log = logging.getLogger(__name__)


def effect(kernel: Kernel, refills: Refills, step: Step) -> Awaitable[object]:
    """What does the step; TypeError for those that need more than the kernel."""
    dm, md = kernel.dm, kernel.md
    match step:
        case MapLeg():
            return dm.ensure_leg(step.name, step.paths, step.size_bytes)
        case ReleaseLeg():
            return dm.release_leg(step.name)
        case BreakLeg():
            return dm.replace_with_error(step.name.dm_name())
        case EndWriters():
            return _end_writers(dm, step)
        case RemoveWreck():
            return dm.remove(step.dm_name)
        case UnmapLeg():
            return dm.remove(step.name.dm_name())
        case CreateArray():
            uuid = array_uuid(step.volume, step.segment)
            name = f"{step.volume}-{step.segment}"
            return md.create(uuid, name, step.legs, step.copies, step.size_bytes)
        case AssembleArray():
            uuid = array_uuid(step.volume, step.segment)
            return md.assemble(uuid, f"{step.volume}-{step.segment}", step.legs)
        case FindArray():
            return _find_array(md, step)
        case MakeWritable():
            return md.make_writable(step.array)
        case AddMember():
            return _add_member(md, refills, step)
        case FailMember():
            return md.fail(step.array, step.leg)
        case RemoveMember():
            return md.remove(step.array, step.leg)
        case ResizeArray():
            return md.resize(step.array, step.places)
        case ThawArray():
            return md.thaw(step.array)
        case StopArray():
            return md.stop(step.array)
        case MapVolume():
            targets = tuple(LinearTarget(*part) for part in step.parts)
            return dm.ensure_linear(step.dm_name, step.name.dm_uuid(), targets, public=True)
        case Connect() | Disconnect() | UnmapVolume():
            raise TypeError(f"{type(step).__name__} is not done here")


async def _find_array(md: Md, step: FindArray) -> None:
    uuid, name = array_uuid(step.volume, step.segment), f"{step.volume}-{step.segment}"
    found = [await md.superblock(leg) for leg in step.legs]
    legs = tuple(
        leg
        for leg, superblock in zip(step.legs, found, strict=True)
        if superblock is not None and superblock.array_uuid == uuid
    )
    if legs:
        await md.assemble(uuid, name, legs)
    else:
        await md.create(uuid, name, step.legs, step.copies, step.size_bytes)


async def _add_member(md: Md, refills: Refills, step: AddMember) -> None:
    superblock = await md.superblock(step.leg)
    uuid = array_uuid(step.volume, step.segment)
    fresh = superblock is None or superblock.array_uuid != uuid
    await refills.begin(step.extent, step.leg)
    await md.add(step.array, step.leg, fresh=fresh)


async def _end_writers(dm: DeviceMapper, step: EndWriters) -> None:
    try:
        killed = await dm.end_writers(step.dm_name)
    except NotFoundError:
        return
    if killed:
        log.error("%s is fenced: killed %s", step.dm_name, ", ".join(killed))
