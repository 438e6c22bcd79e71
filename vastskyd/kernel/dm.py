"""device-mapper: extents, legs and volumes as devices. Implements ports.DeviceMapper.

Every state is asked of the kernel; nothing is remembered here. Tables are swapped by one ioctl:
resume with a loaded table suspends, swaps and resumes within the kernel (drivers/md/dm-ioctl.c,
do_resume), so a daemon that dies in between leaves no device suspended.
"""

import asyncio
import contextlib
import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from vastskyd.core.errors import BusyError, ConflictError, DeviceError, NotFoundError
from vastskyd.core.names import (
    UUID_PREFIX,
    LegName,
    VolumeDeviceName,
    volume_device,
    volume_dm_name,
    wreck_dm_name,
)
from vastskyd.core.units import SECTOR_BYTES
from vastskyd.kernel import dm_ioctl, dm_table, process, sysfs, users, writers
from vastskyd.kernel.calls import Calls
from vastskyd.kernel.dm_ioctl import Command, Flag, Target, UdevFlag
from vastskyd.ports import DmDevice, LegStatus, LinearTarget, PathCondition

T = TypeVar("T")

CALL_TIMEOUT_S = 10.0
REMOVE_TIMEOUT_S = 5.0
_REMOVE_RETRY_S = 0.1
LINK_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 30.0
UMOUNT_TIMEOUT_S = 20.0
_LINK_PAUSE_S = 0.05
_BY_SYSTEMD = ("systemd-run", "--quiet", "--collect", "--wait", "--")
_STAT_WRITTEN = 6  # sectors written: Documentation/block/stat.rst

# Held I/O must not stop a table swap: do not wait for it, and do not freeze a file system above.
_SWAP = Flag.NOFLUSH | Flag.SKIP_LOCKFS


class LinuxDeviceMapper:
    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        # One change at a time per device: two callers would load tables over each other.
        self._locks: dict[str, asyncio.Lock] = {}

    async def devices(self) -> tuple[DmDevice, ...]:
        return await self._ask("list devices", _devices)

    async def ensure_linear(
        self, name: str, uuid: str, targets: tuple[LinearTarget, ...], *, public: bool
    ) -> str:
        act = partial(_ensure_linear, name, uuid, targets, public=public)
        device = await self._change(name, "set up", act)
        if public:
            await _named_by_udev(name, device)
        return device

    async def ensure_leg(self, name: LegName, paths: tuple[str, ...], size_bytes: int) -> str:
        act = partial(_ensure_leg, name, paths, size_bytes)
        return await self._change(name.dm_name(), "set up", act)

    async def leg_status(self, name: LegName) -> LegStatus:
        return await self._ask(f"status of {name.dm_name()}", partial(_leg_status, name))

    async def release_leg(self, name: LegName) -> None:
        await self._change(name.dm_name(), "release", partial(_release_leg, name))

    async def retry_leg(self, name: LegName) -> None:
        await self._change(name.dm_name(), "retry", partial(_retry_leg, name))

    async def replace_with_error(self, name: str) -> None:
        await self._change(name, "replace with an error table", partial(_swap_for_error, name))

    async def end_writers(self, name: str) -> tuple[str, ...]:
        what = f"end the writers of {name}"
        act = partial(_speaking, what, partial(_end_writers, name))
        return await self._calls.call(act, KILL_TIMEOUT_S, what)

    async def abandon(self, name: str) -> None:
        for place in await self._change(name, "abandon", partial(_abandon, name)):
            # By systemd, since vastskyd has copies of the host's mounts, and may not unmount. It
            # lets go of what is busy later: a wreck's last user ends whenever he likes.
            umount = ("umount", "--lazy", "--", place)
            await process.run((*_BY_SYSTEMD, *umount), UMOUNT_TIMEOUT_S)

    async def written_bytes(self, device: str) -> int:
        counters = sysfs.attribute(sysfs.BLOCK / Path(device).name / "stat")
        if counters is None:
            raise NotFoundError(f"there is no device {device}")
        return int(counters.split()[_STAT_WRITTEN]) * SECTOR_BYTES

    async def remove(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + REMOVE_TIMEOUT_S
        while True:
            try:
                await self._change(name, "remove", partial(_remove, name))
            except NotFoundError:
                self._locks.pop(name, None)
                return
            except BusyError as error:
                # The last closer's work is deferred in the kernel, and udev may look at it.
                if loop.time() > deadline_s:
                    by = ", ".join(await self.holders(name)) or "somebody unknown"
                    raise BusyError(f"{name} is in use: {by}") from error
                await asyncio.sleep(_REMOVE_RETRY_S)
            else:
                self._locks.pop(name, None)
                return

    async def holders(self, name: str) -> tuple[str, ...]:
        try:
            return await self._ask(f"holders of {name}", partial(_holders, name))
        except NotFoundError:
            return ()

    async def _ask(self, what: str, act: Callable[[], T]) -> T:
        return await self._calls.call(partial(_speaking, what, act), CALL_TIMEOUT_S, what)

    async def _change(self, name: str, verb: str, act: Callable[[], T]) -> T:
        async with self._locks.setdefault(name, asyncio.Lock()):
            what = f"{verb} {name}"
            return await self._calls.call(
                partial(_speaking, what, act), CALL_TIMEOUT_S, what, lane=f"dm:{name}"
            )


async def _named_by_udev(name: str, device: str) -> None:
    """Until the volume has its name under /dev: who asked for it opens that next."""
    link = Path(volume_device(name.removeprefix(volume_dm_name(""))))
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + LINK_TIMEOUT_S
    while link.resolve() != Path(device):  # noqa: ASYNC240 - /dev is memory
        if loop.time() > deadline_s:
            raise DeviceError(
                f"udev has not made {link} within {LINK_TIMEOUT_S:g} s",
                hint="`journalctl -u systemd-udevd` says why",
            )
        await asyncio.sleep(_LINK_PAUSE_S)


def _speaking(what: str, act: Callable[[], T]) -> T:
    """The kernel's error numbers as errors by meaning."""
    try:
        return act()
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise NotFoundError(f"device-mapper: {what}: there is no such device") from error
        if error.errno == errno.EBUSY:
            raise BusyError(f"device-mapper: {what}: it is in use") from error
        raise DeviceError(
            f"device-mapper: {what}: {error.strerror}", hint="`journalctl -k` says more"
        ) from error


def _ensure_linear(name: str, uuid: str, targets: tuple[LinearTarget, ...], *, public: bool) -> str:
    table = dm_table.linear(
        tuple((sysfs.device_number(t.device), t.offset_bytes, t.length_bytes) for t in targets)
    )
    return _ensure(name, uuid, table, dm_ioctl.PUBLIC if public else dm_ioctl.INTERNAL)


def _ensure_leg(name: LegName, paths: tuple[str, ...], size_bytes: int) -> str:
    table = dm_table.leg(tuple(sysfs.device_number(path) for path in paths), size_bytes)
    return _ensure(name.dm_name(), name.dm_uuid(), table, dm_ioctl.INTERNAL)


def _leg_status(name: LegName) -> LegStatus:
    _own(name.dm_name(), name.dm_uuid())
    table = dm_table.read_leg(_table(name.dm_name()))
    return LegStatus(
        paths=tuple((sysfs.number_name(number), state) for number, state in _conditions(name)),
        holds=table is not None and table.holds,
    )


def _conditions(name: LegName) -> tuple[tuple[str, PathCondition], ...]:
    """Of its paths, by device number."""
    status = dm_ioctl.call(Command.TABLE_STATUS, name.dm_name(), flags=Flag.NOFLUSH)
    return dm_table.read_leg_status(status.targets)


def _release_leg(name: LegName) -> None:
    _own(name.dm_name(), name.dm_uuid())
    if dm_table.read_leg(_table(name.dm_name())) is not None:
        _release(name.dm_name())


def _retry_leg(name: LegName) -> None:
    _own(name.dm_name(), name.dm_uuid())
    for number, state in _conditions(name):
        if state is PathCondition.FAILED:
            message = f"reinstate_path {number}"
            dm_ioctl.call(Command.TARGET_MESSAGE, name.dm_name(), message=message)


def _swap_for_error(name: str) -> None:
    _swap(name, dm_table.error(dm_table.size_bytes(_table(name))), dm_ioctl.INTERNAL)


def _end_writers(name: str) -> tuple[str, ...]:
    return writers.end_writers(f"dm-{dm_ioctl.call(Command.DEV_STATUS, name).minor}")


def _abandon(name: str) -> tuple[str, ...]:
    """Where it is mounted."""
    answer = dm_ioctl.call(Command.DEV_STATUS, name)
    volume = VolumeDeviceName.parse(answer.uuid)
    if volume is None:
        raise ConflictError(f"the device {name} is no volume of ours")
    _swap_for_error(name)
    wreck = wreck_dm_name(volume.volume, volume.epoch)
    dm_ioctl.call(Command.DEV_RENAME, name, udev=dm_ioctl.INTERNAL, new_name=wreck)
    return users.mounted_at(f"dm-{answer.minor}")


def _holders(name: str) -> tuple[str, ...]:
    return users.but_lookers(users.of_device(f"dm-{dm_ioctl.call(Command.DEV_STATUS, name).minor}"))


def _ensure(name: str, uuid: str, table: tuple[Target, ...], udev: UdevFlag) -> str:
    """The device with this table, active. Whatever part of that is so already is left alone.

    A leg that was released differs by its missing queue_if_no_path, so it gets its table anew,
    and with it paths that count as good again.
    """
    try:
        answer = _own(name, uuid)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        answer = dm_ioctl.call(Command.DEV_CREATE, name, uuid=uuid)
    have = _table(name) if answer.flags & Flag.ACTIVE_PRESENT else ()
    if not dm_table.same(table, have):
        _swap(name, table, udev)
    elif answer.flags & Flag.SUSPEND:
        dm_ioctl.call(Command.DEV_SUSPEND, name, udev=udev)
    return f"/dev/dm-{answer.minor}"


def _own(name: str, uuid: str) -> dm_ioctl.Answer:
    """The device's state. ConflictError if the name belongs to something else: an attachment of
    another epoch, say."""
    answer = dm_ioctl.call(Command.DEV_STATUS, name)
    if answer.uuid != uuid:
        raise ConflictError(f"the device {name} exists as {answer.uuid or 'nobody'!r}, not {uuid}")
    return answer


def _table(name: str) -> tuple[Target, ...]:
    """Without waiting for I/O: a plain status flushes."""
    flags = Flag.STATUS_TABLE | Flag.NOFLUSH
    return dm_ioctl.call(Command.TABLE_STATUS, name, flags=flags).targets


def _swap(name: str, table: tuple[Target, ...], udev: UdevFlag) -> None:
    dm_ioctl.call(Command.TABLE_LOAD, name, table=table)
    dm_ioctl.call(Command.DEV_SUSPEND, name, flags=_SWAP, udev=udev)


def _release(name: str) -> None:
    dm_ioctl.call(Command.TARGET_MESSAGE, name, message="fail_if_no_path")


def _remove(name: str) -> None:
    """Removal itself does not wait for I/O in flight: it trusts that who closed the device has
    none. md (6.12) sends flushes that it does not count, and lets go of a failed member before
    they are back: removed then, a multipath table is freed under them (an oops in fail_path was
    seen). A flushing suspend waits; held I/O is failed first."""
    answer = dm_ioctl.call(Command.DEV_STATUS, name)
    quiet = answer.open_count == 0 and bool(answer.flags & Flag.ACTIVE_PRESENT)
    if quiet:
        if LegName.parse(answer.uuid) is not None:
            with contextlib.suppress(OSError):  # an error table: nothing is held
                _release(name)
        dm_ioctl.call(Command.DEV_SUSPEND, name, flags=Flag.SUSPEND | Flag.SKIP_LOCKFS)
    try:
        dm_ioctl.call(Command.DEV_REMOVE, name, udev=dm_ioctl.INTERNAL)
    except OSError:
        if quiet:
            public = VolumeDeviceName.parse(answer.uuid) is not None
            udev = dm_ioctl.PUBLIC if public else dm_ioctl.INTERNAL
            dm_ioctl.call(Command.DEV_SUSPEND, name, udev=udev)
        raise


def _devices() -> tuple[DmDevice, ...]:
    found = (_device(name) for name in sysfs.names(sysfs.BLOCK) if name.startswith("dm-"))
    return tuple(device for device in found if device is not None)


def _device(kernel_name: str) -> DmDevice | None:
    """None: it is not ours, or has just gone."""
    directory = sysfs.BLOCK / kernel_name
    uuid = sysfs.attribute(directory / "dm" / "uuid")
    name = sysfs.attribute(directory / "dm" / "name")
    if not uuid or not name or not uuid.startswith(UUID_PREFIX):
        return None
    try:
        answer = dm_ioctl.call(Command.DEV_STATUS, name)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return DmDevice(
        name=name,
        uuid=uuid,
        device=f"/dev/{kernel_name}",
        size_bytes=sysfs.size_bytes(directory),
        open_count=answer.open_count,
        slaves=sysfs.names(directory / "slaves"),
        suspended=bool(answer.flags & Flag.SUSPEND),
    )
