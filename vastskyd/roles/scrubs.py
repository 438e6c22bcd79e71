"""A head's scrubs: md looks whether the copies of a segment differ; if so, it is found here where,
and which is right."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from vastskyd.core.documents import (
    HeadDocument,
    ScrubFact,
    ScrubState,
    SegmentSpec,
    VolumeFact,
    VolumeSpec,
)
from vastskyd.core.errors import BusyError, DeviceError, VastskyError
from vastskyd.core.guards import GUARD_BYTES
from vastskyd.core.ids import ExtentId, VolumeId
from vastskyd.core.majority import BLOCK_BYTES, Difference, differences, patches
from vastskyd.core.sight import SeenArray, Sight, kernel_name
from vastskyd.core.units import KIB, MIB, format_size
from vastskyd.ports import Clock, Md, MemberState

log = logging.getLogger(__name__)

REGION_BYTES = MIB
# Writes of the volume's users wait as long: they must not take it for a dead device.
_HOLD_MOST_S = 10.0
_LOOK_S = 1.0

_Key = tuple[VolumeId, int]


@dataclass(frozen=True)
class _Segment:
    """What is to be compared: the array's device, and its legs' by extent. Lengths and offsets
    are of the volume's data: md looks at the guards, too, but what differs there is nobody's."""

    array: str
    length_bytes: int
    legs: tuple[tuple[ExtentId, str], ...]


@dataclass
class _Scrub:
    fact: ScrubFact
    segment: _Segment
    task: asyncio.Task[None] | None = None

    def says(self, **what: object) -> None:
        self.fact = msgspec.structs.replace(self.fact, **what)


class Scrubs:
    """Remembers between looks. A restarted daemon begins an order's scrub anew, but for a check of
    md's that still runs. `changed` is called when a scrub ended."""

    def __init__(self, md: Md, clock: Clock, changed: Callable[[], None]) -> None:
        self._md = md
        self._clock = clock
        self._changed = changed
        self._scrubs: dict[_Key, _Scrub] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        # What is compared is in memory, of one segment at a time.
        self._comparing = asyncio.Semaphore(1)
        self._rate_kib_s = 0

    @property
    def restless(self) -> bool:
        return bool(self._ending) or any(
            scrub.fact.state is ScrubState.RUNNING for scrub in self._scrubs.values()
        )

    async def stop(self) -> None:
        """Writes that are held go on; a check of md's goes on as well. What cannot be let go within
        the time of a hold is left to the next start."""
        tasks = {scrub.task for scrub in self._scrubs.values() if scrub.task is not None}
        tasks |= set(self._ending.values())
        for _ in range(2):
            for task in tasks:
                task.cancel()
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=_HOLD_MOST_S)

    def look(self, document: HeadDocument, sight: Sight) -> None:
        """Begins what is ordered, ends what is no longer, and lets writes go on that a daemon which
        died had held."""
        self._ending = {what: task for what, task in self._ending.items() if not task.done()}
        # How busy the disks are cannot be seen from here: users' I/O goes before.
        self._rate_kib_s = max(1, min(document.sync_rate_min_kib_s, document.sync_rate_max_kib_s))
        orders = {
            (volume.id, segment.index): (volume, segment)
            for volume in document.volumes
            if volume.attached
            for segment in volume.segments
            if segment.scrub
        }
        for key, scrub in list(self._scrubs.items()):
            if key not in orders or orders[key][1].scrub != scrub.fact.order:
                self._withdraw(self._scrubs.pop(key))
        for key, (volume, segment) in orders.items():
            found = _find(volume, segment, sight)
            if key not in self._scrubs and found is not None and found.array not in self._ending:
                self._begin(key, segment.scrub, found)
        for key, array in sight.arrays.items():
            # A scrub that is at work lifts by itself what it holds; what was seen may be over.
            if array.writes_held and not self._at_work(key):
                self._end(array.device, partial(self._md.release_writes, array.device))

    def told(self, fact: VolumeFact) -> VolumeFact:
        """The fact with what the scrubs of its segments say."""
        if not any(volume == fact.id for volume, _ in self._scrubs):
            return fact
        segments = tuple(
            msgspec.structs.replace(segment, scrub=scrub.fact)
            if (scrub := self._scrubs.get((fact.id, segment.index))) is not None
            else segment
            for segment in fact.segments
        )
        return msgspec.structs.replace(fact, segments=segments)

    def _at_work(self, key: _Key) -> bool:
        scrub = self._scrubs.get(key)
        return scrub is not None and scrub.task is not None and not scrub.task.done()

    def _begin(self, key: _Key, order: int, segment: _Segment) -> None:
        scrub = _Scrub(ScrubFact(order=order, state=ScrubState.RUNNING), segment)
        scrub.task = asyncio.create_task(self._run(key, scrub), name=f"scrub {key[0]}")
        self._scrubs[key] = scrub

    def _withdraw(self, scrub: _Scrub) -> None:
        task, array = scrub.task, scrub.segment.array
        if task is None or task.done():
            return

        async def ended() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._md.stop_check(array)

        self._end(array, ended)

    def _end(self, array: str, act: Callable[[], Awaitable[None]]) -> None:
        if array not in self._ending:
            self._ending[array] = asyncio.create_task(self._tried(array, act), name=f"end {array}")

    async def _tried(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except VastskyError as error:
            log.warning("scrub of %s: %s", what, error.message)
        self._changed()

    async def _run(self, key: _Key, scrub: _Scrub) -> None:
        where = f"scrub of volume {key[0]}, segment {key[1]}"
        try:
            if await self._check(scrub):
                log.warning("%s: its copies differ; looking where", where)
                async with self._comparing:
                    await self._compare(scrub)
        except VastskyError as error:
            log.warning("%s: %s", where, error.message)
            scrub.says(
                state=ScrubState.FAILED,
                message=error.message,
                error_code=error.code,
                hint=error.hint,
            )
        else:
            scrub.says(state=ScrubState.DONE, done_bytes=scrub.segment.length_bytes, message="")
        self._changed()

    async def _check(self, scrub: _Scrub) -> bool:
        """Whether md found a difference."""
        array = scrub.segment.array
        while True:
            try:
                await self._md.start_check(array)
                break
            except BusyError as error:
                scrub.says(message=error.message)
                await self._clock.sleep(_LOOK_S)
        while (status := await self._md.check_status(array)).running:
            scrub.says(done_bytes=min(status.done_bytes, scrub.segment.length_bytes), message="")
            await self._clock.sleep(_LOOK_S)
        if not status.complete:
            raise DeviceError("md's check of the array was interrupted")
        return status.mismatch_bytes > 0

    # --- where, and what is right ---------------------------------------------------------

    async def _compare(self, scrub: _Scrub) -> None:
        segment = scrub.segment
        whole = format_size(segment.length_bytes)
        for offset in range(0, segment.length_bytes, REGION_BYTES):
            scrub.says(
                done_bytes=segment.length_bytes,
                message=f"its copies differ: {format_size(offset)} of {whole} searched",
            )
            length = min(REGION_BYTES, segment.length_bytes - offset)
            suspects = differences(await self._read(segment, offset, length))
            if suspects:
                first = suspects[0].offset_bytes
                end = suspects[-1].offset_bytes + BLOCK_BYTES
                await self._settle(scrub, offset + first, end - first)
            await self._clock.sleep(length / KIB / self._rate_kib_s)

    async def _read(self, segment: _Segment, offset: int, length: int) -> list[bytes]:
        return await asyncio.gather(
            *(self._md.read_leg(leg, GUARD_BYTES + offset, length) for _, leg in segment.legs)
        )

    async def _settle(self, scrub: _Scrub, offset: int, length: int) -> None:
        """Looks again while nobody writes there: what differed may just have been on its way."""
        try:
            async with asyncio.timeout(_HOLD_MOST_S):
                await self._md.hold_writes(scrub.segment.array, GUARD_BYTES + offset, length)
                found = differences(await self._read(scrub.segment, offset, length))
                await self._expect_whole(scrub.segment)
                await self._repair(scrub.segment, offset, found)
        except TimeoutError as error:
            raise DeviceError(f"not compared within {_HOLD_MOST_S:g} s") from error
        finally:
            await self._lift(scrub.segment.array)
        _count(scrub, offset, found)

    async def _expect_whole(self, segment: _Segment) -> None:
        """What was read counts only if it was the array's: a leg that md dropped is a thing of the
        past, and two of them would outvote the one that is right."""
        arrays = {array.device: array for array in await self._md.arrays()}
        array = arrays.get(segment.array)
        members = {} if array is None else {m.device: m.state for m in array.members}
        for _, leg in segment.legs:
            if members.get(kernel_name(leg)) is not MemberState.IN_SYNC:
                raise DeviceError("a leg was lost meanwhile")

    async def _repair(self, segment: _Segment, offset: int, found: tuple[Difference, ...]) -> None:
        for patch in patches(found):
            _, leg = segment.legs[patch.copy]
            at = GUARD_BYTES + offset + patch.offset_bytes
            await self._md.write_leg(leg, at, patch.content)

    async def _lift(self, array: str) -> None:
        """What is on its way to a leg goes first, however long that takes: nothing here goes on
        before it is done."""
        while True:
            try:
                return await self._md.release_writes(array)
            except VastskyError as error:
                log.warning("%s: writes to some of it still wait: %s", array, error.message)
            await self._clock.sleep(_LOOK_S)


def _find(volume: VolumeSpec, segment: SegmentSpec, sight: Sight) -> _Segment | None:
    """None: not all of its legs are in sync in an array that is written to."""
    array: SeenArray | None = sight.arrays.get((volume.id, segment.index))
    if array is None or not array.running or array.read_only or array.writes_held:
        return None
    legs = []
    for leg in segment.legs:
        seen = sight.legs.get(leg.extent)
        member = None if seen is None else array.members.get(kernel_name(seen.device))
        if seen is None or member is None or not member.in_sync:
            return None
        legs.append((leg.extent, seen.device))
    if len(legs) != volume.copies:
        return None
    return _Segment(array.device, segment.length_bytes, tuple(legs))


def _count(scrub: _Scrub, offset: int, found: tuple[Difference, ...]) -> None:
    fact = scrub.fact
    undecided = [difference for difference in found if difference.right is None]
    wrong = {copy for difference in found for copy in difference.wrong}
    first = fact.first_undecided_bytes
    if undecided and not fact.undecided_bytes:
        first = offset + undecided[0].offset_bytes
    scrub.says(
        repaired_bytes=fact.repaired_bytes + (len(found) - len(undecided)) * BLOCK_BYTES,
        undecided_bytes=fact.undecided_bytes + len(undecided) * BLOCK_BYTES,
        first_undecided_bytes=first,
        wrong=tuple(
            extent
            for index, (extent, _) in enumerate(scrub.segment.legs)
            if index in wrong or extent in fact.wrong
        ),
    )
