"""Extents wiped in the background: before their first use where need be, and when released."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from vastskyd.core.description import (
    DiskDescription,
    ExtentRecord,
    ExtentRecordState,
    with_deleted,
)
from vastskyd.core.documents import ExtentSpec
from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import DiskId, ExtentId
from vastskyd.core.units import MIB
from vastskyd.core.wishes import find, with_extents
from vastskyd.ports import Clock, Disks
from vastskyd.roles.members import Members

log = logging.getLogger(__name__)

# One wipe call; a disk's other work gets its turn between two of them.
_STEP_BYTES = 64 * MIB
# One that failed is tried again: what the disk cannot write today it may have remapped tomorrow.
_AGAIN_S = 60.0


@dataclass
class _Wipe:
    """Zeros being written in the background. `task` ends when they are, or when they fail."""

    task: asyncio.Task[None]
    done_bytes: int = 0


class Wipes:
    """`changed` is called when one comes forward or ends."""

    def __init__(
        self, members: Members, disks: Disks, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._members = members
        self._disks = disks
        self._clock = clock
        self._changed = changed
        self._running: dict[ExtentId, _Wipe] = {}
        self._failed: dict[ExtentId, str] = {}
        self._again_s: dict[ExtentId, float] = {}

    @property
    def busy(self) -> bool:
        """One is under way, or failed and is to be tried again."""
        return bool(self._failed) or any(not wipe.task.done() for wipe in self._running.values())

    def failed(self, extent: ExtentId) -> str:
        """Why it could not be wiped; empty: nothing failed."""
        return self._failed.get(extent, "")

    def done_bytes(self, extent: ExtentId) -> int:
        wipe = self._running.get(extent)
        return 0 if wipe is None else wipe.done_bytes

    async def stop(self) -> None:
        tasks = [wipe.task for wipe in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def keep(self, extents: Collection[ExtentId]) -> None:
        """Forgets what became of others: they have gone, or their disk has."""
        for extent in self._running.keys() - set(extents):
            if self._running[extent].task.done():
                del self._running[extent]
        for extent in self._again_s.keys() - set(extents):
            del self._again_s[extent]
            self._failed.pop(extent, None)

    def start(self, disk: DiskId, spec: ExtentSpec, record: ExtentRecord) -> None:
        """Unless it is under way, or failed a moment ago."""
        running = self._running.get(spec.id)
        if running is not None and not running.task.done():
            return
        if self._clock.monotonic_s() < self._again_s.get(spec.id, 0.0):
            return
        needed = record.state is ExtentRecordState.WIPING or spec.wipe_first
        task = asyncio.create_task(
            self._wipe(disk, spec.id, record, needed=needed), name=f"wipe {spec.id}"
        )
        self._running[spec.id] = _Wipe(task)

    async def _wipe(
        self, disk: DiskId, extent: ExtentId, record: ExtentRecord, *, needed: bool
    ) -> None:
        """Zeros, then the record's next state: ready, or gone."""
        try:
            while needed and self._running[extent].done_bytes < record.length_bytes:
                member = self._members.get(disk)
                if member is None:
                    return
                progress = self._running[extent]
                step_bytes = min(_STEP_BYTES, record.length_bytes - progress.done_bytes)
                await self._disks.wipe(
                    member.path, record.offset_bytes + progress.done_bytes, step_bytes
                )
                progress.done_bytes += step_bytes
                self._changed()
            await self._finish_wipe(disk, extent, record.state)
        except VastskyError as error:
            self._again_s[extent] = self._clock.monotonic_s() + _AGAIN_S
            if self._failed.get(extent) != error.message:
                log.error("wipe of extent %s: %s", extent, error.message)
            self._failed[extent] = error.message
        else:
            self._failed.pop(extent, None)
            self._again_s.pop(extent, None)
        finally:
            self._changed()

    async def _finish_wipe(
        self, disk: DiskId, extent: ExtentId, began_as: ExtentRecordState
    ) -> None:
        def finished(description: DiskDescription) -> DiskDescription:
            record = find(description, extent)
            if record is None or record.state is not began_as:
                return description  # released meanwhile: it is wiped for that
            rest = [other for other in description.extents if other.id != extent]
            if record.state is ExtentRecordState.PREPARING:
                rest.append(msgspec.structs.replace(record, state=ExtentRecordState.READY))
            elif record.deleted:
                description = with_deleted(description, record.volume)
            return with_extents(description, rest)

        if self._members.get(disk) is not None:
            await self._members.describe(disk, finished)
