"""Reading a host's kernel into a Sight."""

from dataclasses import dataclass

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
from vastskyd.ports import (
    DmDevice,
    Kernel,
    LegStatus,
    MdArray,
    MemberState,
    NbdDevice,
    PathCondition,
)

# A local extent is a path of every epoch: what fences it is that its host takes it away.
LOCAL = -1


@dataclass(frozen=True)
class _Shown:
    """What the kernel says, as it says it. `legs` are those of `devices` that are one."""

    devices: tuple[DmDevice, ...]
    nbds: tuple[NbdDevice, ...]
    legs: dict[str, LegStatus]
    arrays: tuple[MdArray, ...]


class Observer:
    """Looks again and again: it is the same Sight as long as the kernel shows the same."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._last: tuple[_Shown, Sight] | None = None

    async def look(self) -> Sight:
        shown = await _read(self._kernel)
        if self._last is None or self._last[0] != shown:
            self._last = (shown, _sight(shown))
        return self._last[1]


async def observe(kernel: Kernel) -> Sight:
    """All stacks of ours. Never waits for held I/O."""
    return _sight(await _read(kernel))


async def _read(kernel: Kernel) -> _Shown:
    devices = await kernel.dm.devices()
    nbds = await kernel.nbd.devices()
    legs: dict[str, LegStatus] = {}
    for device in devices:
        leg = LegName.parse(device.uuid)
        if leg is not None:
            try:
                legs[device.uuid] = await kernel.dm.leg_status(leg)
            except NotFoundError:
                continue
    return _Shown(devices, nbds, legs, await kernel.md.arrays())


def _sight(shown: _Shown) -> Sight:
    paths = [
        SeenPath(d.device, d.path.extent, d.path.epoch, d.path.network, d.alive) for d in shown.nbds
    ]
    legs: dict[ExtentId, SeenLeg] = {}
    volumes: dict[VolumeId, SeenVolume] = {}
    wrecks: list[SeenVolume] = []
    for device in shown.devices:
        extent = parse_extent_uuid(device.uuid)
        if extent is not None:
            paths.append(SeenPath(device.device, extent, LOCAL, LOCAL, True))
        elif (name := VolumeDeviceName.parse(device.uuid)) is not None:
            if is_wreck(device.name):
                wrecks.append(_volume(name, device))
            else:
                volumes[name.volume] = _volume(name, device)
        elif (leg := LegName.parse(device.uuid)) is not None and device.uuid in shown.legs:
            legs[leg.extent] = _leg(leg, device, shown.legs[device.uuid])
    arrays = {}
    for array in shown.arrays:
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


def _leg(name: LegName, device: DmDevice, status: LegStatus) -> SeenLeg:
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
        array.sync_action == "frozen",
    )
