"""Reading a host's kernel into a Sight."""

from vastskyd.core.errors import NotFoundError
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.names import (
    LegName,
    VolumeDeviceName,
    is_wreck,
    parse_array_uuid,
    parse_extent_uuid,
)
from vastskyd.core.sight import (
    SeenArray,
    SeenLeg,
    SeenMember,
    SeenPath,
    SeenVolume,
    Sight,
)
from vastskyd.ports import DmDevice, Kernel, MdArray, MemberState, PathCondition

# A local extent is a path of every epoch: what fences it is that its host takes it away.
LOCAL = -1


async def observe(kernel: Kernel) -> Sight:
    """All stacks of ours. Never waits for held I/O."""
    devices = await kernel.dm.devices()
    paths = [
        SeenPath(d.device, d.path.extent, d.path.epoch, d.path.network, d.alive)
        for d in await kernel.nbd.devices()
    ]
    legs: dict[ExtentId, SeenLeg] = {}
    volumes: dict[VolumeId, SeenVolume] = {}
    wrecks: list[SeenVolume] = []
    for device in devices:
        extent = parse_extent_uuid(device.uuid)
        if extent is not None:
            paths.append(SeenPath(device.device, extent, LOCAL, LOCAL, True))
        elif (name := VolumeDeviceName.parse(device.uuid)) is not None:
            if is_wreck(device.name):
                wrecks.append(_volume(name, device))
            else:
                volumes[name.volume] = _volume(name, device)
        elif (leg := LegName.parse(device.uuid)) is not None:
            seen = await _leg(kernel, leg, device)
            if seen is not None:
                legs[leg.extent] = seen
    arrays = {}
    for array in await kernel.md.arrays():
        volume, segment = parse_array_uuid(array.uuid)
        arrays[volume, segment] = _array(volume, segment, array)
    return Sight(legs, arrays, volumes, tuple(paths), tuple(wrecks))


def _volume(name: VolumeDeviceName, device: DmDevice) -> SeenVolume:
    return SeenVolume(
        device.name,
        device.device,
        name.volume,
        name.epoch,
        device.open_count,
        broken_off=not device.slaves,
    )


async def _leg(kernel: Kernel, name: LegName, device: DmDevice) -> SeenLeg | None:
    try:
        status = await kernel.dm.leg_status(name)
    except NotFoundError:
        return None
    return SeenLeg(
        name,
        device.device,
        tuple(path for path, _ in status.paths),
        frozenset(path for path, state in status.paths if state is PathCondition.FAILED),
        status.holds,
    )


def _array(volume: VolumeId, segment: int, array: MdArray) -> SeenArray:
    members = {
        member.device: SeenMember(
            member.device,
            in_sync=member.state is MemberState.IN_SYNC,
            faulty=member.state is MemberState.FAULTY,
        )
        for member in array.members
    }
    return SeenArray(
        array.device,
        volume,
        segment,
        members,
        array.running,
        array.read_only,
        array.raid_devices,
        array.sync_done_bytes,
        array.sync_total_bytes,
        array.writes_held,
    )
