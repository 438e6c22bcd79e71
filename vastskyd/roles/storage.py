"""The storage role: makes this host's disks, extents and exports what the document says."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from vastskyd.core.description import (
    DiskDescription,
    ExtentRecord,
    ExtentRecordState,
    with_deleted,
)
from vastskyd.core.documents import (
    ExtentCondition,
    ExtentFact,
    ExtentSpec,
    ExtentWish,
    StorageDocument,
    StorageReport,
)
from vastskyd.core.errors import BusyError, NotFoundError, UnreachableError, VastskyError
from vastskyd.core.ids import ClusterId, DiskId, ExtentId
from vastskyd.core.names import (
    LegName,
    export_key,
    export_name,
    extent_dm_name,
    extent_dm_uuid,
    parse_extent_uuid,
)
from vastskyd.core.units import MIB
from vastskyd.core.witness import ExportSighting, Introduction, ServerSighting
from vastskyd.ports import (
    Clock,
    Disks,
    DmDevice,
    Export,
    Exports,
    ExportServer,
    Kernel,
    LinearTarget,
    Smart,
)
from vastskyd.roles.members import Member, Members
from vastskyd.roles.paces import Paces
from vastskyd.roles.smarts import Smarts

log = logging.getLogger(__name__)

# One wipe call; a disk's other work gets its turn between two of them.
_WIPE_STEP_BYTES = 64 * MIB
# udev needs that long after boot, at most, to show all disks.
_SETTLE_S = 15.0
_RESCAN_S = 30.0
_RESCAN_PAUSE_S = 1.0
# A wipe that failed is tried again: what the disk cannot write today it may have remapped tomorrow.
_WIPE_AGAIN_S = 60.0


@dataclass
class _Wipe:
    """Zeros being written in the background. `task` ends when they are, or when they fail."""

    task: asyncio.Task[None]
    done_bytes: int = 0
    message: str = ""


class StorageRole:
    """`changed` is called when something finished in the background."""

    def __init__(
        self,
        cluster: ClusterId,
        cluster_name: str,
        kernel: Kernel,
        exports: Exports,
        disks: Disks,
        smart: Smart,
        clock: Clock,
        smart_interval_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._kernel = kernel
        self._exports = exports
        self._disks = disks
        self._clock = clock
        self._changed = changed
        self._smarts = Smarts(smart, clock, smart_interval_s, changed)
        self._members = Members(disks, cluster, cluster_name, self._smarts)
        self._wipes: dict[ExtentId, _Wipe] = {}
        self._failed: dict[ExtentId, str] = {}
        self._wipe_again_s: dict[ExtentId, float] = {}
        self._started_s = clock.monotonic_s()
        self._scanned_s = float("-inf")
        self._dirty = True
        self._paces = Paces()

    def disks_changed(self) -> None:
        """A block device came or went: look at all of them in the next pass."""
        self._dirty = True

    def set_smart_interval(self, interval_s: float) -> None:
        self._smarts.interval_s = interval_s
        self._changed()

    @property
    def restless(self) -> bool:
        """Disks are to be looked at again: time alone changes what is to be done."""
        return self._dirty

    async def stop(self) -> None:
        tasks = [wipe.task for wipe in self._wipes.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._smarts.stop(), return_exceptions=True)

    async def converge(self, document: StorageDocument | None) -> StorageReport:
        """One pass. Without a document (none received yet) nothing is changed."""
        now_s = self._clock.monotonic_s()
        age_s = now_s - self._scanned_s
        if age_s >= (_RESCAN_PAUSE_S if self._dirty else _RESCAN_S):
            self._dirty = False
            self._scanned_s = now_s
            await self._members.rescan()
        self._paces.look(await self._disks.activity(), now_s)
        if document is None:
            return StorageReport(candidates=self._members.candidates())
        self._members.name(document.disks)
        self._smarts.look(self._members.to_be_asked(document.disks))
        for disk in document.disks:
            if disk.enrol and self._members.get(disk.id) is None:
                await self._members.enrol(disk)
        await self._end_stuck_servers()
        await self._shed_exports(document)
        by_disk: dict[DiskId, list[ExtentSpec]] = {}
        for extent in document.extents:
            by_disk.setdefault(extent.disk, []).append(extent)
        for disk_id, extents in by_disk.items():
            member = self._members.get(disk_id)
            if member is not None:
                await self._converge_disk(disk_id, member, extents)
        await self._unmap_unknown(document)
        await self._serve(document)
        return await self._report(document)

    async def follow_servers(self) -> None:
        """Until cancelled: what a head reads from comes back before it gives the leg up."""
        while True:
            head = await self._exports.ended()
            log.error("the export server for %s ended by itself; it is started again", head)
            self._changed()

    # --- for a manager without records ---------------------------------------------------

    async def introduce(self, said: Introduction) -> Introduction:
        """The same, with what this host's disks and export servers show. BusyError: it has not
        looked at its disks yet."""
        if not self._members.looked:
            raise BusyError("this host has not looked at its disks yet", hint="ask again soon")
        servers = [
            ServerSighting(
                head=each.head, port=each.port, addresses=each.addresses, encryption=each.encryption
            )
            for each in await self._exports.running()
        ]
        exports = [
            ExportSighting(
                head=each.head,
                extent=each.extent,
                epoch=each.epoch,
                export_key=export_key(each.extent, each.name),
            )
            for each in await self._exports.exports()
        ]
        return msgspec.structs.replace(
            said,
            disks=self._members.sightings(),
            unreadable=self._members.foreign(),
            servers=tuple(servers),
            exports=tuple(exports),
        )

    def description(self, disk: DiskId) -> DiskDescription:
        """As it stands on the disk, also on one that has failed since."""
        member = self._members.all().get(disk)
        if member is None:
            raise NotFoundError(f"disk {disk} is not here any more")
        return member.description

    # --- exports ------------------------------------------------------------------------

    async def _end_stuck_servers(self) -> None:
        """A server that does not answer cannot be told to let go: it is ended, and with it its
        exports. `_serve` starts it anew."""
        try:
            await self._exports.exports()
        except UnreachableError as error:
            log.error("an export server is stuck: %s", error.message)
            for head in await self._exports.servers():
                await self._exports.stop_server(head)

    async def _shed_exports(self, document: StorageDocument) -> None:
        """Fencing comes first: exports of an older epoch, another head or no wish at all go, hard,
        before any epoch is written and before anything new is served."""
        wanted = {extent.id: extent for extent in document.extents}
        for export in await self._exports.exports():
            spec = wanted.get(export.extent)
            if spec is None or not _same(export, spec):
                await self._exports.remove(export.head, export.extent)
        heads = {server.head for server in document.servers}
        for head in await self._exports.servers():
            if head not in heads:
                await self._exports.stop_server(head)

    async def _serve(self, document: StorageDocument) -> None:
        for server in document.servers:
            try:
                await self._exports.ensure_server(
                    ExportServer(server.head, server.port, server.addresses, server.encryption)
                )
            except VastskyError as error:
                log.error("export server for %s: %s", server.head, error.message)
        served = {(export.head, export.extent) for export in await self._exports.exports()}
        there = await self._kernel.dm.devices()
        devices = {device.name: device.device for device in there}
        in_use = _local_legs(there)
        for spec in document.extents:
            device = devices.get(extent_dm_name(spec.id))
            if spec.head is None or (spec.head, spec.id) in served or device is None:
                continue
            if spec.id in in_use:
                continue  # by this host's own head, which takes it down first
            record = self._record(spec)
            if (
                record is None
                or record.state is not ExtentRecordState.READY
                or record.epoch != spec.epoch
            ):
                continue
            export = Export(spec.head, spec.id, spec.epoch, export_name(spec.id, spec.export_key))
            try:
                await self._exports.add(export, device)
            except VastskyError as error:
                log.error("export of %s to %s: %s", spec.id, spec.head, error.message)

    # --- extents ------------------------------------------------------------------------

    def _record(self, spec: ExtentSpec) -> ExtentRecord | None:
        member = self._members.get(spec.disk)
        if member is None:
            return None
        return _find(member.description, spec.id)

    async def _converge_disk(self, disk: DiskId, member: Member, extents: list[ExtentSpec]) -> None:
        try:
            await self._members.describe(disk, lambda now: _described(now, extents))
            await self._map_extents(member, extents)
        except VastskyError as error:
            log.error("disk %s: %s", member.path, error.message)
            self._dirty = True  # perhaps it was pulled out just now
            return
        for spec in extents:
            record = self._record(spec)
            if record is not None and record.state is not ExtentRecordState.READY:
                self._start_wipe(disk, spec, record)

    async def _map_extents(self, member: Member, extents: list[ExtentSpec]) -> None:
        mapped = {device.name: device.slaves for device in await self._kernel.dm.devices()}
        for spec in extents:
            name = extent_dm_name(spec.id)
            record = _find(member.description, spec.id)
            if record is not None and record.state is ExtentRecordState.READY:
                target = LinearTarget(member.path, record.offset_bytes, record.length_bytes)
                # Else it stands on a device that the disk was before it was pulled.
                if mapped.get(name) != (member.kernel_name,):
                    await self._kernel.dm.ensure_linear(
                        name, extent_dm_uuid(spec.id), (target,), public=False
                    )
            elif name in mapped:
                await self._kernel.dm.remove(name)

    async def _unmap_unknown(self, document: StorageDocument) -> None:
        """Extents of retired disks. What is on them, and in their description, stays."""
        known = {spec.id for spec in document.extents}
        for device in await self._kernel.dm.devices():
            extent = parse_extent_uuid(device.uuid)
            if extent is not None and extent not in known:
                try:
                    await self._kernel.dm.remove(device.name)
                except VastskyError as error:
                    log.error("extent %s: %s", extent, error.message)

    def _start_wipe(self, disk: DiskId, spec: ExtentSpec, record: ExtentRecord) -> None:
        running = self._wipes.get(spec.id)
        if running is not None and not running.task.done():
            return
        if self._clock.monotonic_s() < self._wipe_again_s.get(spec.id, 0.0):
            return
        needed = record.state is ExtentRecordState.WIPING or spec.wipe_first
        task = asyncio.create_task(
            self._wipe(disk, spec.id, record, needed=needed), name=f"wipe {spec.id}"
        )
        self._wipes[spec.id] = _Wipe(task)

    async def _wipe(
        self, disk: DiskId, extent: ExtentId, record: ExtentRecord, *, needed: bool
    ) -> None:
        """Zeros, then the record's next state: ready, or gone."""
        try:
            while needed and self._wipes[extent].done_bytes < record.length_bytes:
                member = self._members.get(disk)
                if member is None:
                    return
                progress = self._wipes[extent]
                step_bytes = min(_WIPE_STEP_BYTES, record.length_bytes - progress.done_bytes)
                await self._disks.wipe(
                    member.path, record.offset_bytes + progress.done_bytes, step_bytes
                )
                progress.done_bytes += step_bytes
                self._changed()
            await self._finish_wipe(disk, extent, record.state)
        except VastskyError as error:
            self._wipe_again_s[extent] = self._clock.monotonic_s() + _WIPE_AGAIN_S
            if self._failed.get(extent) != error.message:
                log.error("wipe of extent %s: %s", extent, error.message)
            self._failed[extent] = error.message
        else:
            self._failed.pop(extent, None)
            self._wipe_again_s.pop(extent, None)
        finally:
            self._changed()

    async def _finish_wipe(
        self, disk: DiskId, extent: ExtentId, began_as: ExtentRecordState
    ) -> None:
        def finished(description: DiskDescription) -> DiskDescription:
            record = _find(description, extent)
            if record is None or record.state is not began_as:
                return description  # released meanwhile: it is wiped for that
            rest = [other for other in description.extents if other.id != extent]
            if record.state is ExtentRecordState.PREPARING:
                rest.append(msgspec.structs.replace(record, state=ExtentRecordState.READY))
            elif record.deleted:
                description = with_deleted(description, record.volume)
            return _with_extents(description, rest)

        if self._members.get(disk) is not None:
            await self._members.describe(disk, finished)

    # --- report -------------------------------------------------------------------------

    async def _report(self, document: StorageDocument) -> StorageReport:
        served = {export.extent: export for export in await self._exports.exports()}
        devices = await self._kernel.dm.devices()
        mapped = {
            extent for device in devices if (extent := parse_extent_uuid(device.uuid)) is not None
        }
        in_use = _local_legs(devices)
        settled = self._clock.monotonic_s() - self._started_s >= _SETTLE_S
        facts = [
            fact
            for spec in document.extents
            if (fact := self._extent_fact(spec, served.get(spec.id), mapped, in_use)) is not None
        ]
        return StorageReport(
            disks=self._members.facts(document.disks, self._paces, settled=settled),
            candidates=self._members.candidates(),
            extents=tuple(facts),
        )

    def _extent_fact(
        self,
        spec: ExtentSpec,
        export: Export | None,
        mapped: set[ExtentId],
        in_use: dict[ExtentId, int],
    ) -> ExtentFact | None:
        if self._members.get(spec.disk) is None:
            return None
        record = self._record(spec)
        if record is None:
            gone = spec.wish is ExtentWish.RELEASE and spec.id not in mapped
            return ExtentFact(id=spec.id, condition=ExtentCondition.GONE, epoch=0) if gone else None
        wipe = self._wipes.get(spec.id)
        if spec.id in self._failed:
            condition = ExtentCondition.FAILED
        elif record.state is ExtentRecordState.READY and spec.id not in mapped:
            condition = ExtentCondition.PREPARING
        else:
            condition = _CONDITIONS[record.state]
        return ExtentFact(
            id=spec.id,
            condition=condition,
            # A stack of this host that is still built on it may write as long as it is there.
            epoch=min(record.epoch, in_use.get(spec.id, record.epoch)),
            set_revision=record.set_revision,
            exported_to=None if export is None else export.head,
            done_bytes=0 if wipe is None else wipe.done_bytes,
            message=self._failed.get(spec.id, ""),
        )


_CONDITIONS = {
    ExtentRecordState.PREPARING: ExtentCondition.PREPARING,
    ExtentRecordState.READY: ExtentCondition.READY,
    ExtentRecordState.WIPING: ExtentCondition.WIPING,
}


def _local_legs(devices: tuple[DmDevice, ...]) -> dict[ExtentId, int]:
    """The legs of stacks on this host, and the epochs of those."""
    legs = [leg for device in devices if (leg := LegName.parse(device.uuid)) is not None]
    return {leg.extent: leg.epoch for leg in legs}


def _same(export: Export, spec: ExtentSpec) -> bool:
    return (
        spec.wish is ExtentWish.KEEP
        and export.head == spec.head
        and export.epoch == spec.epoch
        and export.name == export_name(spec.id, spec.export_key)
    )


def _find(description: DiskDescription, extent: ExtentId) -> ExtentRecord | None:
    return next((record for record in description.extents if record.id == extent), None)


def _described(description: DiskDescription, extents: list[ExtentSpec]) -> DiskDescription:
    """The description with the document's wishes in it: one write for all of a disk's.

    An epoch never goes down, whatever a document says. Extents that the manager does not name are
    left alone: it may be the manager who forgot.
    """
    records = {record.id: record for record in description.extents}
    for spec in extents:
        record = records.get(spec.id)
        if spec.wish is ExtentWish.RELEASE:
            if record is not None:
                records[spec.id] = msgspec.structs.replace(
                    record,
                    state=ExtentRecordState.WIPING,
                    deleted=record.deleted or spec.hints.deleted,
                )
        else:
            records[spec.id] = _kept(spec, record)
    return _with_extents(description, records.values())


def _with_extents(description: DiskDescription, extents: Iterable[ExtentRecord]) -> DiskDescription:
    ordered = tuple(sorted(extents, key=lambda record: record.offset_bytes))
    return msgspec.structs.replace(description, extents=ordered)


def _kept(spec: ExtentSpec, record: ExtentRecord | None) -> ExtentRecord:
    state = ExtentRecordState.PREPARING if record is None else record.state
    epoch = spec.epoch if record is None else max(record.epoch, spec.epoch)
    return ExtentRecord(
        id=spec.id,
        offset_bytes=spec.offset_bytes,
        length_bytes=spec.length_bytes,
        volume=spec.volume,
        segment=spec.segment,
        state=state,
        epoch=epoch,
        segment_length_bytes=spec.hints.segment_length_bytes,
        initialised=spec.hints.initialised,
        leg_state=spec.hints.leg_state,
        volume_name=spec.hints.volume_name,
        volume_size_bytes=spec.hints.volume_size_bytes,
        copies=spec.hints.copies,
        layout=spec.hints.layout,
        encryption=spec.hints.encryption,
        segments=spec.hints.segments,
        set_revision=spec.hints.set_revision,
        legs=spec.hints.legs,
    )
