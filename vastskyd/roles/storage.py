"""The storage role: makes this host's disks, extents and exports what the document says."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from vastskyd.core.description import (
    DiskDescription,
    ExtentRecord,
    ExtentRecordState,
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
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, NodeId
from vastskyd.core.names import (
    LegName,
    export_key,
    export_name,
    extent_dm_name,
    extent_dm_uuid,
    parse_extent_uuid,
)
from vastskyd.core.wishes import described, find
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
from vastskyd.roles.progress import Step, unwatched
from vastskyd.roles.smarts import Smarts
from vastskyd.roles.wipes import Wipes

log = logging.getLogger(__name__)

# udev needs that long after boot, at most, to show all disks.
_SETTLE_S = 15.0
_RESCAN_S = 30.0
# Between two looks at all disks while events come: a disk is noticed within a second.
_RESCAN_PAUSE_S = 0.5
# Clocks are rounded: the time to wait for must not come out as none.
_REST_LEAST_S = 0.01


@dataclass(frozen=True)
class _Sight:
    """What serves this host's extents."""

    exports: tuple[Export, ...]
    servers: tuple[NodeId, ...]
    devices: tuple[DmDevice, ...]


@dataclass(frozen=True)
class _Settled:
    """What a pass reported that found nothing to do."""

    document: StorageDocument
    sight: _Sight
    report: StorageReport


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
        auto_enroll: tuple[str, ...] = (),
    ) -> None:
        self._kernel = kernel
        self._exports = exports
        self._disks = disks
        self._clock = clock
        self._changed = changed
        self._smarts = Smarts(smart, clock, smart_interval_s, changed)
        self._members = Members(disks, cluster, cluster_name, self._smarts)
        self._members.auto_enroll = auto_enroll
        self._wipes = Wipes(self._members, disks, clock, changed)
        self._started_s = clock.monotonic_s()
        self._scanned_s = float("-inf")
        self._dirty = True
        self._settled: _Settled | None = None
        self._troubled = False
        self._paces = Paces()
        self._tries: dict[DiskId, asyncio.Task[None]] = {}

    def disks_changed(self) -> None:
        """A block device came or went: look at all of them in the next pass."""
        self._dirty = True

    def set_smart_interval(self, interval_s: float) -> None:
        self._smarts.interval_s = interval_s
        self._changed()

    def set_auto_enroll(self, patterns: tuple[str, ...]) -> None:
        self._members.auto_enroll = patterns
        self._changed()

    def rest_s(self, most_s: float) -> float:
        """For how long there is nothing to do if nothing happens, `most_s` at the most."""
        if not self._dirty:
            return most_s
        left_s = self._look_due_s() - self._clock.monotonic_s()
        return 0.0 if left_s <= 0 else min(most_s, max(_REST_LEAST_S, left_s))

    def _look_due_s(self) -> float:
        return self._scanned_s + (_RESCAN_PAUSE_S if self._dirty else _RESCAN_S)

    async def stop(self) -> None:
        tasks = list(self._tries.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(
            *tasks, self._wipes.stop(), self._smarts.stop(), return_exceptions=True
        )

    async def converge(
        self, document: StorageDocument | None, step: Step = unwatched
    ) -> StorageReport:
        """One pass. Without a document (none received yet) nothing is changed."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._look_due_s():
            self._dirty = False
            self._scanned_s = now_s
            self._settled = None
            await self._members.rescan(step)
            step()
        self._paces.look(await self._disks.activity(), now_s)
        self._try_idle()
        if document is None:
            return StorageReport(candidates=self._members.candidates())
        self._members.name(document.disks)
        enrolling = [disk.id for disk in document.disks if disk.enrol]
        self._smarts.look(self._members.to_be_asked(document.disks), enrolling)
        if (settled := await self._still_settled(document)) is not None:
            report = self._with_disks(document, settled.report)
            self._settled = _Settled(document, settled.sight, report)
            return report
        self._settled = None
        self._troubled = False
        for disk in document.disks:
            if disk.enrol and self._members.get(disk.id) is None:
                await self._members.enrol(disk, step)
                step()
        await self._end_stuck_servers(step)
        self._wipes.keep({spec.id for spec in document.extents})
        before = await self._sight()
        await self._shed_exports(document, step)
        by_disk: dict[DiskId, list[ExtentSpec]] = {}
        for extent in document.extents:
            by_disk.setdefault(extent.disk, []).append(extent)
        for disk_id, extents in by_disk.items():
            member = self._members.get(disk_id)
            if member is not None:
                await self._converge_disk(disk_id, member, extents, step)
                step()
        await self._unmap_unknown(document, step)
        await self._serve(document, step)
        step()
        after = await self._sight()
        report = self._report(document, after)
        if before == after and not self._is_busy(document):
            self._settled = _Settled(document, after, report)
        return report

    def _is_busy(self, document: StorageDocument) -> bool:
        """Something is under way, or was not done and is to be tried again."""
        return (
            self._troubled
            or self._dirty
            or self._wipes.busy
            or any(disk.enrol for disk in document.disks)
        )

    async def _still_settled(self, document: StorageDocument) -> _Settled | None:
        """If nothing is new since a pass that found nothing to do. Every look at all disks is
        followed by a whole pass."""
        settled = self._settled
        if settled is None or settled.document is not document or self._is_busy(document):
            return None
        try:
            sight = await self._sight()
        except UnreachableError:
            return None  # a whole pass ends the server that is stuck
        return settled if sight == settled.sight and self._settled is settled else None

    async def _sight(self) -> _Sight:
        return _Sight(
            await self._exports.exports(),
            await self._exports.servers(),
            await self._kernel.dm.devices(),
        )

    def _try_idle(self) -> None:
        """A disk that was slow and is not used any more is read from, or it would be called slow
        for ever. In the background: it may still be."""
        for disk, member in self._members.all().items():
            running = self._tries.get(disk)
            if self._paces.in_doubt(member.kernel_name) and (running is None or running.done()):
                self._tries[disk] = asyncio.create_task(self._try(member.path), name=f"try {disk}")

    async def _try(self, path: str) -> None:
        try:
            await self._disks.read_slots(path)
        except VastskyError as error:
            log.info("%s was slow: %s", path, error.message)

    async def follow_servers(self) -> None:
        """Until cancelled: what a head reads from comes back before it gives the leg up."""
        while True:
            head = await self._exports.ended()
            log.error("the export server for %s ended by itself; it is started again", head)
            self._settled = None
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

    async def _end_stuck_servers(self, step: Step) -> None:
        """A server that does not answer cannot be told to let go: it is ended, and with it its
        exports. `_serve` starts it anew. The others serve on, if it can be told which it is."""
        try:
            await self._exports.exports()
        except UnreachableError as error:
            log.error("an export server is stuck: %s", error.message)
            servers = await self._exports.servers()
            answering = {server.head for server in await self._exports.running()}
            stuck = tuple(head for head in servers if head not in answering)
            for head in stuck or servers:
                await self._exports.stop_server(head)
                step()

    async def _shed_exports(self, document: StorageDocument, step: Step) -> None:
        """Fencing comes first: exports of an older epoch, another head or no wish at all go, hard,
        before any epoch is written and before anything new is served."""
        wanted = {extent.id: extent for extent in document.extents}
        for export in await self._exports.exports():
            spec = wanted.get(export.extent)
            if spec is None or not _same(export, spec):
                await self._exports.remove(export.head, export.extent)
                step()
        heads = {server.head for server in document.servers}
        for head in await self._exports.servers():
            if head not in heads:
                await self._exports.stop_server(head)
                step()

    async def _serve(self, document: StorageDocument, step: Step) -> None:
        for server in document.servers:
            step()
            try:
                await self._exports.ensure_server(
                    ExportServer(server.head, server.port, server.addresses, server.encryption)
                )
            except VastskyError as error:
                log.error("export server for %s: %s", server.head, error.message)
                self._troubled = True
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
                self._troubled = True
            step()

    # --- extents ------------------------------------------------------------------------

    def _record(self, spec: ExtentSpec) -> ExtentRecord | None:
        member = self._members.get(spec.disk)
        if member is None:
            return None
        return find(member.description, spec.id)

    async def _converge_disk(
        self, disk: DiskId, member: Member, extents: list[ExtentSpec], step: Step
    ) -> None:
        try:
            await self._members.describe(disk, lambda now: described(now, extents))
            await self._map_extents(member, extents, step)
        except VastskyError as error:
            log.error("disk %s: %s", member.path, error.message)
            self._dirty = True  # perhaps it was pulled out just now
            return
        for spec in extents:
            record = self._record(spec)
            if record is not None and record.state is not ExtentRecordState.READY:
                self._wipes.start(disk, spec, record)

    async def _map_extents(self, member: Member, extents: list[ExtentSpec], step: Step) -> None:
        mapped = {device.name: device.slaves for device in await self._kernel.dm.devices()}
        for spec in extents:
            step()
            name = extent_dm_name(spec.id)
            record = find(member.description, spec.id)
            if record is not None and record.state is ExtentRecordState.READY:
                target = LinearTarget(member.path, record.offset_bytes, record.length_bytes)
                # Else it stands on a device that the disk was before it was pulled.
                if mapped.get(name) != (member.kernel_name,):
                    await self._kernel.dm.ensure_linear(
                        name, extent_dm_uuid(spec.id), (target,), public=False
                    )
            elif name in mapped:
                await self._kernel.dm.remove(name)

    async def _unmap_unknown(self, document: StorageDocument, step: Step) -> None:
        """Extents of retired disks. What is on them, and in their description, stays."""
        known = {spec.id for spec in document.extents}
        for device in await self._kernel.dm.devices():
            extent = parse_extent_uuid(device.uuid)
            if extent is not None and extent not in known:
                try:
                    await self._kernel.dm.remove(device.name)
                except VastskyError as error:
                    log.error("extent %s: %s", extent, error.message)
                    self._troubled = True
                step()

    # --- report -------------------------------------------------------------------------

    def _report(self, document: StorageDocument, sight: _Sight) -> StorageReport:
        served = {export.extent: export for export in sight.exports}
        found = (parse_extent_uuid(device.uuid) for device in sight.devices)
        mapped = {extent for extent in found if extent is not None}
        in_use = _local_legs(sight.devices)
        facts = [
            fact
            for spec in document.extents
            if (fact := self._extent_fact(spec, served.get(spec.id), mapped, in_use)) is not None
        ]
        return self._with_disks(document, StorageReport(extents=tuple(facts)))

    def _with_disks(self, document: StorageDocument, report: StorageReport) -> StorageReport:
        """The same, with what there is to say of disks now."""
        settled = self._clock.monotonic_s() - self._started_s >= _SETTLE_S
        disks = self._members.facts(document.disks, self._paces, settled=settled)
        candidates = self._members.candidates()
        if (disks, candidates) == (report.disks, report.candidates):
            return report
        return msgspec.structs.replace(report, disks=disks, candidates=candidates)

    def _extent_fact(
        self,
        spec: ExtentSpec,
        export: Export | None,
        mapped: set[ExtentId],
        in_use: dict[ExtentId, int],
    ) -> ExtentFact | None:
        member = self._members.get(spec.disk)
        if member is None:
            return None
        record = self._record(spec)
        if record is None:
            released = spec.wish is ExtentWish.RELEASE and spec.id not in mapped
            gone = released and not member.unsure
            return ExtentFact(id=spec.id, condition=ExtentCondition.GONE, epoch=0) if gone else None
        if why := self._wipes.failed(spec.id):
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
            done_bytes=self._wipes.done_bytes(spec.id),
            message=why,
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
