"""mdadm and md's sysfs. Implements ports.Md."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tests.sim.blocks import (
    CALL_TIMEOUT_S,
    Bio,
    Block,
    IoError,
    KernelState,
    Op,
    Patch,
    grains,
    pieces,
)
from tests.sim.fake_array import (
    BITMAP_GRAIN,
    DATA_GRAIN,
    SUPER_GRAIN,
    FakeArray,
    LegBitmap,
    LegSuper,
    Member,
)
from tests.sim.fake_dm import DmBlock
from tests.sim.faults import Door
from vastskyd.core.errors import BusyError, ConflictError, DeviceError, NotFoundError
from vastskyd.core.names import LegName
from vastskyd.core.units import GRAIN_BYTES, KIB, MD_DATA_OFFSET_BYTES
from vastskyd.ports import CheckStatus, MdArray, MdMember, MemberState, Superblock

T = TypeVar("T")

BUSY_TIMEOUT_S = 3.0
BUSY_RETRY_S = 0.05
# md compares in pieces of this size.
MISMATCH_BYTES = 64 * KIB


@dataclass(frozen=True)
class _Found:
    block: Block
    super: LegSuper


class FakeMd:
    """ports.Md."""

    def __init__(self, kernel: KernelState, door: Door) -> None:
        self._kernel = kernel
        self._door = door
        self._making = asyncio.Lock()

    async def _change(self, array: FakeArray, what: str, work: Coroutine[Any, Any, T]) -> T:
        """Refused while an earlier one, whose caller has gone, has not come to its end."""
        return await self._kernel.call(what, work, CALL_TIMEOUT_S, lane=f"md:{array.path}")

    def _all(self) -> tuple[FakeArray, ...]:
        return tuple(b for b in self._kernel.blocks.values() if isinstance(b, FakeArray))

    def _by_uuid(self, uuid: str) -> FakeArray | None:
        return next((one for one in self._all() if one.uuid == uuid and one.running), None)

    def _array(self, device: str) -> FakeArray:
        block = self._kernel.find(device)
        if not isinstance(block, FakeArray):
            raise NotFoundError(f"{device} is not an array")
        return block

    async def arrays(self) -> tuple[MdArray, ...]:
        async with self._door.step("md.arrays"):
            return tuple(_describe(array) for array in self._all() if _is_ours(array))

    async def create(
        self, uuid: str, name: str, legs: tuple[str, ...], copies: int, size_bytes: int
    ) -> str:
        async with self._door.step("md.create"):
            if (running := self._by_uuid(uuid)) is not None:
                return running.path
            blocks = [self._kernel.find(leg) for leg in legs]
            for block in blocks:
                _must_fit(block, size_bytes)
                if block.users:
                    raise BusyError(f"{block.name} is in use: {block.users[0]}")
            grains(size_bytes)
            work = self._create(uuid, blocks, copies, size_bytes)
            return await self._make(f"create {name}", work)

    async def _make(self, what: str, work: Coroutine[Any, Any, str]) -> str:
        async with contextlib.AsyncExitStack() as making:
            try:
                await making.enter_async_context(self._making)
            except BaseException:
                work.close()
                raise
            return await self._kernel.call(what, work, CALL_TIMEOUT_S, a_process=True)

    async def _create(self, uuid: str, blocks: list[Block], copies: int, size_bytes: int) -> str:
        """As mdadm does it: the superblocks are on all legs before the kernel shows an array."""
        name = self._free_name()
        self._kernel.blocks[name] = Block(self._kernel, name, 0)
        array = FakeArray(self._kernel, name, uuid, size_bytes, copies)
        array.bits = array.all_bits()
        for slot, block in enumerate(blocks):
            array.join(Member(block, slot, slot, MemberState.IN_SYNC))
        try:
            await array.write_bitmap(array.working())
            await array.write_supers()
            faulty = any(member.state is MemberState.FAULTY for member in array.members)
            if faulty or None in [await _read_super(block) for block in blocks]:
                raise IoError("mdadm: failed to write the superblocks")
        except BaseException:
            self._kernel.blocks.pop(name, None)
            for member in list(array.members):
                array.members.remove(member)
                member.block.close(array.label)
            raise
        self._kernel.blocks[name] = array
        self._kernel.notify()
        return array.path

    def _free_name(self) -> str:
        number = 127
        while f"md{number}" in self._kernel.blocks:
            number -= 1
        return f"md{number}"

    async def assemble(self, uuid: str, name: str, legs: tuple[str, ...]) -> str:
        async with self._door.step("md.assemble"):
            if (running := self._by_uuid(uuid)) is not None:
                return running.path
            blocks = [self._kernel.find(leg) for leg in legs]
            work = self._assemble(uuid, name, blocks)
            return await self._make(f"assemble {name}", work)

    async def discard_unmade(self) -> None:
        async with self._door.step("md.discard_unmade"), self._making:
            for array in self._all():
                if not array.running and not array.members:
                    await self._stop(array)

    async def _assemble(self, uuid: str, name: str, blocks: list[Block]) -> str:
        found = []
        for block in blocks:
            if block.users:
                continue  # mdadm: "is busy - skipping"
            on_leg = await _read_super(block)
            if on_leg is not None and on_leg.array_uuid == uuid:
                found.append(_Found(block, on_leg))
        if not found:
            raise DeviceError(f"{name}: no leg has a superblock of the array")
        freshest = max(found, key=lambda leg: leg.super.events).super
        accepted = [leg for leg in found if _is_fresh(leg.super, freshest)]
        first = next((leg for leg in accepted if not leg.super.recovering), None)
        if first is None:
            raise DeviceError(f"{name}: not enough legs to start the array")
        bitmap = await first.block.submit(Bio(Op.READ_META, BITMAP_GRAIN))
        if not isinstance(bitmap, LegBitmap):
            raise DeviceError(f"{name}: {first.block.name} has no bitmap")
        array = FakeArray(
            self._kernel, self._free_name(), uuid, freshest.size_bytes, freshest.copies
        )
        array.events = freshest.events
        array.clean = freshest.clean
        array.bits = bitmap.bits
        array.events_cleared = bitmap.events_cleared
        array.need_resync = 0 if freshest.clean else bitmap.bits
        slots = dict(freshest.roles)
        array.running = False
        self._kernel.blocks[array.name] = array
        for leg in accepted:
            await self._kernel.rcu_grace()
            if self._kernel.blocks.get(array.name) is not array:
                raise DeviceError(f"{name}: {array.name} was stopped while it was put together")
            if leg.block.users:
                continue  # another mdadm was faster: the kernel gives a device to one array only
            todo = bitmap.bits if leg.super.by_bitmap else array.all_bits()
            state = MemberState.RECOVERING if leg.super.recovering else MemberState.IN_SYNC
            array.join(
                Member(
                    leg.block, leg.super.member, slots[leg.super.member], state,
                    todo if leg.super.recovering else 0, leg.super.by_bitmap,
                )
            )  # fmt: skip
        if not array.in_sync():
            for member in list(array.members):
                array.leave(member)
            del self._kernel.blocks[array.name]
            raise DeviceError(f"{name}: not enough legs to start the array")
        array.running = True
        self._kernel.notify()
        return array.path

    async def superblock(self, leg: str) -> Superblock | None:
        async with self._door.step("md.superblock"):
            block = self._kernel.find(leg)
            work = _read_super_or_fail(block)
            found = await self._kernel.call(f"superblock of {leg}", work, CALL_TIMEOUT_S)
            if found is None:
                return None
            in_array = found.member in dict(found.roles)
            return Superblock(found.array_uuid, found.events, in_array)

    async def make_writable(self, device: str) -> None:
        async with self._door.step("md.make_writable"):
            array = self._array(device)
            await self._change(array, "make writable", array.locked(array.make_writable))

    async def add(self, device: str, leg: str, *, fresh: bool) -> None:
        async with self._door.step("md.add"):
            array, block = self._array(device), self._kernel.find(leg)
            member = _member(array, block)
            if member is not None and member.state is MemberState.FAULTY:
                await self._remove(array, member)
            elif member is not None:
                return
            if block.users:
                raise BusyError(f"{leg} is in use: {block.users[0]}")
            _must_fit(block, array.size_bytes)
            work = self._add(array, block, fresh)
            await self._kernel.call(f"add {leg} to {device}", work, CALL_TIMEOUT_S, a_process=True)

    async def _add(self, array: FakeArray, block: Block, fresh: bool) -> None:
        """As mdadm does it. Killed meanwhile, it leaves the array frozen."""
        froze = await array.freeze()
        try:
            await self._join(array, block, fresh)
        except IoError:
            if froze:
                array.thaw()
            raise
        if froze:
            array.thaw()

    async def _join(self, array: FakeArray, block: Block, fresh: bool) -> None:
        known = await _read_super_or_fail(block)
        if known is not None and not fresh and _knows(array, known):
            slot: int | None = dict(known.roles)[known.member]
            number, by_bitmap, todo = known.member, True, array.bits
        else:
            slot = array.free_slot()
            used = [m.number for m in array.members]
            if known is not None and known.array_uuid == array.uuid:
                used += [known.member, *dict(known.roles)]
            number, by_bitmap, todo = max(used, default=-1) + 1, False, array.all_bits()
        state = MemberState.SPARE if slot is None else MemberState.RECOVERING
        member = Member(block, number, slot, state, todo, by_bitmap)
        await array.locked(partial(array.join, member))
        await array.write_bitmap([member])
        array.supers_changed()
        array.start_sync()

    async def fail(self, device: str, leg: str) -> None:
        async with self._door.step("md.fail"):
            array = self._array(device)
            member = _member(array, self._kernel.find(leg))
            if member is None or member.state is MemberState.FAULTY:
                return
            work = array.locked(partial(array.fault, member))
            if not await self._change(array, f"fail {leg}", work):
                raise ConflictError(f"{leg} is the last leg in sync of {device}: md keeps it")

    async def remove(self, device: str, leg: str) -> None:
        async with self._door.step("md.remove"):
            array = self._array(device)
            block = self._kernel.blocks.get(leg.removeprefix("/dev/"))
            member = None if block is None else _member(array, block)
            if member is None:
                return
            await self._change(array, f"remove {leg}", self._remove(array, member))

    async def _remove(self, array: FakeArray, member: Member) -> None:
        """md lets go of a failed leg only once its last I/O is done; and as the kernel does it,
        all that is under way on the array comes first, whichever leg it waits for
        (drivers/md/md.c: rdev_attr_store, mddev_suspend)."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + BUSY_TIMEOUT_S
        while member in array.members:
            if any(other.pending for other in array.members if other is not member):
                deadline_s = loop.time() + BUSY_TIMEOUT_S
                await asyncio.sleep(BUSY_RETRY_S)
            elif member.state in (MemberState.FAULTY, MemberState.SPARE) and not member.pending:
                await array.locked(partial(array.leave, member))
            elif loop.time() > deadline_s:
                raise BusyError(f"{member.block.name} is still used by {array.name}")
            else:
                await asyncio.sleep(BUSY_RETRY_S)

    async def resize(self, device: str, raid_devices: int) -> None:
        async with self._door.step("md.resize"):
            array = self._array(device)
            work = array.locked(partial(array.resize, raid_devices))
            if not await self._change(array, "resize", work):
                raise BusyError(f"{device}: something is copied, or it has more legs")

    async def thaw(self, device: str) -> None:
        async with self._door.step("md.thaw"):
            array = self._array(device)
            await self._change(array, "thaw", array.locked(array.thaw))

    async def set_sync_rate(self, device: str, min_kib_s: int, max_kib_s: int) -> None:
        async with self._door.step("md.set_sync_rate"):
            self._array(device).set_rate(max_kib_s)

    async def start_check(self, device: str) -> None:
        async with self._door.step("md.start_check"):
            array = self._array(device)
            work = array.locked(array.start_check)
            if not await self._kernel.call(f"check {device}", work, CALL_TIMEOUT_S):
                raise BusyError(f"{device}: something is being copied")

    async def check_status(self, device: str) -> CheckStatus:
        async with self._door.step("md.check_status"):
            array = self._array(device)
            running = array.sync_action == "check"
            done = array.sync_done if running else 0
            complete = array.checked and not running
            return CheckStatus(running, complete, done, array.mismatches * MISMATCH_BYTES)

    async def stop_check(self, device: str) -> None:
        async with self._door.step("md.stop_check"):
            array = self._kernel.blocks.get(device.removeprefix("/dev/"))
            if isinstance(array, FakeArray):
                array.stop_check()

    async def hold_writes(self, device: str, offset_bytes: int, length_bytes: int) -> None:
        async with self._door.step("md.hold_writes"):
            array = self._array(device)
            end = -(-(offset_bytes + length_bytes) // GRAIN_BYTES)
            work = array.hold(offset_bytes // GRAIN_BYTES, end)
            await self._kernel.call(f"hold writes to {device}", work, CALL_TIMEOUT_S)

    async def release_writes(self, device: str) -> None:
        async with self._door.step("md.release_writes"):
            array = self._kernel.blocks.get(device.removeprefix("/dev/"))
            if not isinstance(array, FakeArray):
                return
            if any(member.repairs for member in array.members):
                raise BusyError(f"{device}: a write to a leg is on its way")
            array.release()

    async def read_leg(self, leg: str, offset_bytes: int, length_bytes: int) -> bytes:
        async with self._door.step("md.read_leg"):
            work = self._read_leg(self._member_of(leg), offset_bytes, length_bytes)
            return await self._kernel.call(f"read {leg}", work, CALL_TIMEOUT_S)

    async def _read_leg(self, member: Member, offset_bytes: int, length_bytes: int) -> bytes:
        found = bytearray()
        for grain, at, length in pieces(offset_bytes, length_bytes):
            number = await member.block.submit(Bio(Op.READ, DATA_GRAIN + grain))
            if not isinstance(number, int):
                raise TypeError(f"grain {grain} reads as {number!r}")
            found += self._kernel.contents.of(number)[at : at + length]
        return bytes(found)

    async def write_leg(self, leg: str, offset_bytes: int, content: bytes) -> None:
        async with self._door.step("md.write_leg"):
            member = self._member_of(leg)
            member.repairs += 1
            work = self._write_leg(member, offset_bytes, content)
            await self._kernel.call(f"write {leg}", work, CALL_TIMEOUT_S)

    async def _write_leg(self, member: Member, offset_bytes: int, content: bytes) -> None:
        """It goes on if whoever began it dies."""
        done = 0
        try:
            for grain, at, length in pieces(offset_bytes, len(content)):
                piece = content[done : done + length]
                patch = Patch(partial(self._kernel.contents.patched, at, piece))
                await member.block.submit(Bio(Op.WRITE, DATA_GRAIN + grain, patch))
                done += length
        finally:
            member.repairs -= 1

    def _member_of(self, leg: str) -> Member:
        block = self._kernel.find(leg)
        for array in self._all():
            if (member := _member(array, block)) is not None:
                return member
        raise DeviceError(f"{leg} is not a leg of an array")

    async def stop(self, device: str) -> None:
        async with self._door.step("md.stop"):
            array = self._kernel.blocks.get(device.removeprefix("/dev/"))
            if not isinstance(array, FakeArray):
                return
            if array.users:
                raise BusyError(f"{device} is in use: {', '.join(array.users)}")
            await self._change(array, "stop", self._stop(array))

    async def _stop(self, array: FakeArray) -> None:
        await array.stop()
        self._kernel.blocks.pop(array.name, None)
        self._kernel.notify()


def _is_fresh(leg: LegSuper, freshest: LegSuper) -> bool:
    """One event behind is well: the power went between two superblock writes. One whom the
    freshest calls failed, or who calls the freshest failed, is not taken."""
    return (
        leg.events + 1 >= freshest.events
        and leg.member in dict(freshest.roles)
        and freshest.member in dict(leg.roles)
    )


def _knows(array: FakeArray, leg: LegSuper) -> bool:
    """Whether the bitmap has all that the leg lacks."""
    slot = dict(leg.roles).get(leg.member)
    return (
        leg.array_uuid == array.uuid
        and slot is not None
        and slot < array.copies
        and leg.events >= array.events_cleared
        and (not leg.recovering or leg.by_bitmap)
        and all(m.slot != slot and m.number != leg.member for m in array.members)
    )


def _must_fit(block: Block, size_bytes: int) -> None:
    if block.size_bytes < size_bytes + MD_DATA_OFFSET_BYTES:
        raise DeviceError(f"{block.name} is too small for {size_bytes} bytes and md's own")


def _member(array: FakeArray, block: Block) -> Member | None:
    return next((m for m in array.members if m.block is block), None)


async def _read_super_or_fail(block: Block) -> LegSuper | None:
    found = await block.submit(Bio(Op.READ_META, SUPER_GRAIN))
    return found if isinstance(found, LegSuper) else None


async def _read_super(block: Block) -> LegSuper | None:
    """As mdadm sees it: a leg that cannot be read has none."""
    try:
        return await _read_super_or_fail(block)
    except IoError:
        return None


def _is_ours(array: FakeArray) -> bool:
    return any(
        isinstance(m.block, DmBlock) and LegName.parse(m.block.uuid) is not None
        for m in array.members
    )


def _describe(array: FakeArray) -> MdArray:
    syncing = array.sync_action != "idle"
    return MdArray(
        device=array.path,
        uuid=array.uuid,
        members=tuple(MdMember(m.block.name, m.state) for m in array.members),
        running=array.running,
        raid_devices=array.copies,
        read_only=not array.writable,
        sync_action="frozen" if array.frozen else array.sync_action,
        sync_done_bytes=array.sync_done if syncing else 0,
        sync_total_bytes=array.sync_total if syncing else 0,
        writes_held=array.held != (0, 0),
    )
