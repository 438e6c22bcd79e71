"""One running md raid1: its members, superblocks, bitmap, and the copying between legs.

Ordered as the kernel orders it: the bitmap's bit and the "not clean" flag reach all legs before
the data does; a failed leg is recorded on the others before the write that met it is acknowledged.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.sim.blocks import Bio, Block, IoError, KernelState, Op, grains
from tests.sim.loop import Signal
from vastskyd.core.units import GRAIN_BYTES, KIB, MD_DATA_OFFSET_BYTES
from vastskyd.ports import MemberState

T = TypeVar("T")

DATA_GRAIN = MD_DATA_OFFSET_BYTES // GRAIN_BYTES
SUPER_GRAIN = 0
BITMAP_GRAIN = 1
SAFE_MODE_DELAY_S = 5.0
BITMAP_DELAY_S = 10.0
DEFAULT_RATE_KIB_S = 200_000


@dataclass(frozen=True)
class LegSuper:
    """md's superblock on one leg. `roles`: (member number, slot) of those the array goes on with;
    `recovering` and `by_bitmap` are the leg's own."""

    array_uuid: str
    size_bytes: int
    copies: int
    events: int
    clean: bool
    member: int
    roles: tuple[tuple[int, int], ...]
    recovering: bool
    by_bitmap: bool


@dataclass(frozen=True)
class LegBitmap:
    """One bit a grain. A leg whose events are below `events_cleared` needs a whole copy."""

    bits: int
    events_cleared: int


@dataclass
class Member:
    """`todo`: grains that it still lacks while RECOVERING. `repairs`: writes behind md's back that
    are on their way."""

    block: Block
    number: int
    slot: int | None
    state: MemberState
    todo: int = 0
    by_bitmap: bool = False
    pending: int = 0
    repairs: int = 0


class FakeArray(Block):
    def __init__(
        self, kernel: KernelState, name: str, uuid: str, size_bytes: int, copies: int
    ) -> None:
        super().__init__(kernel, name, size_bytes)
        self.uuid = uuid
        self.copies = copies
        self.grain_count = grains(size_bytes)
        self.members: list[Member] = []
        self.running = True
        self.events = 0
        self.clean = True
        self.writable = False
        self.bits = 0
        self.events_cleared = 0
        self.need_resync = 0
        self.rate_kib_s = DEFAULT_RATE_KIB_S
        self.sync_action = "idle"
        self.frozen = False
        self.sync_done = 0
        self.sync_total = 0
        self._super_wanted = 0
        self._super_done = 0
        self._lock = asyncio.Lock()
        self._bitmap_lock = asyncio.Lock()
        self._grain_locks: dict[int, asyncio.Lock] = {}
        self._in_flight = 0
        self._writes = 0
        self._wrote_s = 0.0
        self._turn = 0
        self._idle_task: asyncio.Task[None] | None = None
        self._sync_task: asyncio.Task[None] | None = None
        self._rate_changed = Signal()
        self.held: tuple[int, int] = (0, 0)
        self._held_changed = Signal()
        self.checked = False
        self.mismatches = 0
        self._writing: dict[int, int] = {}
        self._check_task: asyncio.Task[None] | None = None

    @property
    def label(self) -> str:
        return f"held by {self.name}"

    def all_bits(self) -> int:
        return (1 << self.grain_count) - 1

    def in_sync(self) -> list[Member]:
        return [m for m in self.members if m.state is MemberState.IN_SYNC]

    def working(self) -> list[Member]:
        return [m for m in self.members if m.state is not MemberState.FAULTY]

    def degraded(self) -> bool:
        return len(self.in_sync()) < self.copies

    def free_slot(self) -> int | None:
        taken = [m.slot for m in self.members]
        return next((slot for slot in range(self.copies) if slot not in taken), None)

    def resize(self, copies: int) -> bool:
        """As raid1_reshape does it: slots are closed up when there are fewer."""
        copying = self.sync_action != "idle" or bool(self.need_resync)
        placed = [m for m in self.members if m.slot is not None]
        if copying or not self.writable or len(placed) > copies:
            return copies == self.copies
        if copies < self.copies:
            for slot, member in enumerate(sorted(placed, key=lambda m: m.slot or 0)):
                member.slot = slot
        self.copies = copies
        self._promote_spare()
        self.supers_changed()
        return True

    def join(self, member: Member) -> None:
        """From now on every write goes to it too."""
        self.members.append(member)
        member.block.open(self.label)
        self.kernel.notify()

    def leave(self, member: Member) -> None:
        if member not in self.members:
            return
        self.members.remove(member)
        member.block.close(self.label)
        self.supers_changed()

    def fault(self, member: Member) -> bool:
        """Whether md stopped using it: it never stops using the last whole one."""
        if member.state is MemberState.FAULTY:
            return True
        if self.in_sync() == [member]:
            return False
        member.state = MemberState.FAULTY
        member.slot = None
        self.stop_check()
        self._promote_spare()
        self.supers_changed()
        return True

    def _promote_spare(self) -> None:
        for member in self.members:
            slot = self.free_slot()
            if member.state is MemberState.SPARE and slot is not None:
                member.slot, member.todo = slot, self.all_bits()
                member.state = MemberState.RECOVERING
                self.start_sync()

    def supers_changed(self) -> None:
        """The superblocks are written anew, in the background; no write is acknowledged before."""
        self.kernel.notify()
        self._write_anew()

    def _now_clean(self, clean: bool) -> None:
        """The kernel tells nobody: it turns with every pause in the writes."""
        self.clean = clean
        self._write_anew()

    def _write_anew(self) -> None:
        self._super_wanted += 1
        self.kernel.spawn(self.flush_supers())

    async def flush_supers(self) -> None:
        while self._super_done < self._super_wanted:
            async with self._lock:
                wanted = self._super_wanted
                if self._super_done >= wanted:
                    return
                if self.writable:
                    self.events += 1
                    await self.write_supers()
                self._super_done = wanted

    async def write_supers(self) -> None:
        roles = tuple((m.number, m.slot) for m in self.members if m.slot is not None)

        def content(member: Member) -> Bio:
            recovering = member.state is not MemberState.IN_SYNC
            value = LegSuper(
                self.uuid, self.size_bytes, self.copies, self.events, self.clean,
                member.number, roles, recovering, member.by_bitmap,
            )  # fmt: skip
            return Bio(Op.WRITE_META, SUPER_GRAIN, value)

        await self._to_all(self.working(), content)

    async def write_bitmap(self, members: list[Member]) -> None:
        bio = Bio(Op.WRITE_META, BITMAP_GRAIN, LegBitmap(self.bits, self.events_cleared))
        await self._send(members, bio)

    async def _to_all(self, members: list[Member], bio: Callable[[Member], Bio]) -> list[Member]:
        """Those that answered without an error; the others are faulted."""
        tasks = [self.kernel.spawn(self._try(m, bio(m))) for m in members]
        done = await asyncio.gather(*tasks)
        for member, well in zip(members, done, strict=True):
            if not well:
                self.fault(member)
        return [m for m, well in zip(members, done, strict=True) if well]

    async def _send(self, members: list[Member], bio: Bio) -> list[Member]:
        return await self._to_all(members, lambda _: bio)

    async def _try(self, member: Member, bio: Bio) -> bool:
        member.pending += 1
        try:
            await member.block.submit(bio)
        except IoError:
            return False
        else:
            return True
        finally:
            member.pending -= 1

    async def submit(self, bio: Bio) -> object:
        if not 0 <= bio.grain < self.grain_count:
            raise IoError(f"{self.name}: beyond its end, grain {bio.grain}")
        if bio.op is Op.READ:
            return await self._read(bio.grain)
        if bio.op is Op.FLUSH:
            await self._flush()
            return None
        if bio.op is not Op.WRITE:
            raise IoError(f"{self.name}: md on md is not modelled")
        if not self.writable:
            raise IoError(f"{self.name}: read-only")
        while bio.grain in range(*self.held):
            await self._held_changed.wait()
        self._in_flight += 1
        self._writing[bio.grain] = self._writing.get(bio.grain, 0) + 1
        try:
            async with self._grain_lock(bio.grain):
                await self._write(bio)
        finally:
            self._in_flight -= 1
            self._writing[bio.grain] -= 1
            self._held_changed.fire()
            self._writes += 1
            self._wrote_s = asyncio.get_running_loop().time()
            if not self.kernel.dead:
                self._poke()
        return None

    def _grain_lock(self, grain: int) -> asyncio.Lock:
        """Copying and writing keep apart; overlapping writes have an order."""
        return self._grain_locks.setdefault(grain, asyncio.Lock())

    async def _write(self, bio: Bio) -> None:
        if self.clean:
            self._now_clean(False)
        await self._set_bit(bio.grain)
        await self.flush_supers()
        down = bio.at(DATA_GRAIN + bio.grain)
        targets = [m for m in self.working() if m.state is not MemberState.SPARE]
        whole = self.in_sync()
        written = await self._send(targets, down)
        await self.flush_supers()
        if not any(member in whole for member in written):
            raise IoError(f"{self.name}: no leg took the write")
        if not self.degraded():
            self.events_cleared = max(self.events_cleared, self.events)

    async def _flush(self) -> None:
        targets = [m for m in self.working() if m.state is not MemberState.SPARE]
        if not await self._send(targets, Bio(Op.FLUSH, 0)):
            raise IoError(f"{self.name}: no leg took the flush")
        await self.flush_supers()

    async def _set_bit(self, grain: int) -> None:
        if self.bits >> grain & 1:
            return
        async with self._bitmap_lock:
            if self.bits >> grain & 1:
                return
            wanted = self.bits | 1 << grain
            value = LegBitmap(wanted, self.events_cleared)
            await self._send(self.working(), Bio(Op.WRITE_META, BITMAP_GRAIN, value))
            self.bits = wanted  # not before: nobody may rely on it unwritten

    async def _read(self, grain: int) -> object:
        while True:
            whole = self.in_sync()
            self._turn += 1
            pending = self.need_resync >> grain & 1
            member = whole[0] if pending else whole[self._turn % len(whole)]
            try:
                return await member.block.submit(Bio(Op.READ, DATA_GRAIN + grain))
            except IoError:
                if not self.fault(member):
                    raise

    def _poke(self) -> None:
        if self._idle_task is None or self._idle_task.done():
            self._idle_task = self.kernel.spawn(self._when_idle())

    async def _when_idle(self) -> None:
        """Marks the array clean, and later its bitmap."""
        loop = asyncio.get_running_loop()
        while True:
            if self._in_flight:
                return  # the end of that write comes back here
            seen = self._writes
            left_s = self._wrote_s + SAFE_MODE_DELAY_S - loop.time()
            if left_s > 1e-6:
                await asyncio.sleep(left_s)
                continue
            if not self.need_resync and not self.clean:
                self._now_clean(True)
            await asyncio.sleep(BITMAP_DELAY_S)
            if seen == self._writes and not self._in_flight:
                await self._clear_bits()
                return

    async def _clear_bits(self) -> None:
        async with self._bitmap_lock:
            busy = self._in_flight or self._super_done < self._super_wanted
            if busy or self.degraded() or self.need_resync or not self.writable:
                return
            self.bits = 0
            self.events_cleared = self.events
            await self.write_bitmap(self.working())

    async def locked(self, act: Callable[[], T]) -> T:
        """Whoever changes the array waits for the superblocks that are being written: md keeps
        its lock meanwhile (drivers/md/md.c, md_update_sb)."""
        async with self._lock:
            return act()

    def make_writable(self) -> None:
        if not self.writable:
            self.writable = True
            self.supers_changed()
        self.start_sync()

    def set_rate(self, kib_s: int) -> None:
        self.rate_kib_s = max(1, kib_s)
        self._rate_changed.fire()

    async def freeze(self) -> bool:
        """What is copied ends, once what is under way is done. False: it was frozen before, or is
        being checked."""
        if self.frozen or self.sync_action == "check":
            return False
        self.frozen = True
        self._rate_changed.fire()
        self.kernel.notify()
        if self._sync_task is not None:
            await asyncio.wait((self._sync_task,))
        return True

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            self.start_sync()
            self.kernel.notify()

    def start_sync(self) -> None:
        """What is to be copied shows at once: nobody may take the array for whole before."""
        if self.frozen:
            return
        if self.need_resync or self._recovering():
            self.stop_check()
        if self.writable and (self._sync_task is None or self._sync_task.done()):
            if self.need_resync:
                self._begin("resync")
            elif self._recovering():
                self._begin("recover")
            self._sync_task = self.kernel.spawn(self._sync())

    def _begin(self, action: str) -> None:
        """The total is the array's size, however little of it the bitmap calls for."""
        self.sync_action = action
        self.sync_done, self.sync_total = 0, self.size_bytes

    async def _sync(self) -> None:
        while not self.frozen:
            if self.need_resync:
                if not await self._copy("resync", self.need_resync, self._resync_targets):
                    break
                self.need_resync = 0
            elif recovering := self._recovering():
                todo = 0
                for member in recovering:
                    todo |= member.todo
                copied = await self._copy("recover", todo, lambda: recovering)
                for member in recovering if copied else ():
                    if member.state is MemberState.RECOVERING:
                        member.state = MemberState.IN_SYNC
                        member.todo = 0
            else:
                break
            self.supers_changed()
        self.sync_action = "idle"
        self.kernel.notify()
        self._poke()

    # --- scrubs -----------------------------------------------------------------------------

    def start_check(self) -> bool:
        """Whether one runs now: not while anything else is copied, or is to be."""
        if self.sync_action == "check":
            return True
        if self.sync_action != "idle" or self.need_resync or self._recovering():
            return False
        self.checked, self.mismatches = False, 0
        self._begin("check")
        self._check_task = self.kernel.spawn(self._check())
        self.kernel.notify()
        return True

    def stop_check(self) -> None:
        if self.sync_action != "check":
            return
        self.sync_action = "idle"
        self.kernel.notify()
        task = self._check_task
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _check(self) -> None:
        """As md does it: what is not the same counts, and nobody writes there meanwhile."""
        for grain in range(self.grain_count):
            self.sync_done = grain * GRAIN_BYTES
            found = set()
            async with self._grain_lock(grain):
                for member in self.in_sync():
                    try:
                        bio = Bio(Op.READ, DATA_GRAIN + grain)
                        found.add(await member.block.submit(bio))
                    except IoError:
                        self.fault(member)
            self.mismatches += len(found) > 1
            await self._pace()
            if self.sync_action != "check":
                return
        self.checked = True
        self.stop_check()

    async def hold(self, first: int, end: int) -> None:
        self.held = (first, end)
        self.kernel.notify()
        while any(self._writing.get(grain) for grain in range(first, end)):
            await self._held_changed.wait()

    def release(self) -> None:
        self.held = (0, 0)
        self._held_changed.fire()
        self.kernel.notify()

    def _resync_targets(self) -> list[Member]:
        return self.in_sync()[1:]

    def _recovering(self) -> list[Member]:
        return [m for m in self.members if m.state is MemberState.RECOVERING]

    async def _copy(self, action: str, mask: int, targets: Callable[[], list[Member]]) -> bool:
        """False: nothing is left to read from."""
        self._begin(action)
        self.kernel.notify()
        for grain in range(self.grain_count):
            self.sync_done = grain * GRAIN_BYTES
            if not mask >> grain & 1:
                continue
            receivers = [m for m in targets() if m.state is not MemberState.FAULTY]
            if not receivers:
                return True
            async with self._grain_lock(grain):
                try:
                    value = await self._read_first(grain)
                except IoError:
                    if action == "recover":
                        for member in receivers:
                            self.fault(member)
                    return False
                bio = Bio(Op.WRITE, DATA_GRAIN + grain, value)
                await self._send(receivers, bio)
                await self.flush_supers()
                if action == "resync":
                    self.need_resync &= ~(1 << grain)
            await self._pace()
            if self.frozen:
                return False
        return True

    async def _read_first(self, grain: int) -> object:
        while True:
            source = self.in_sync()[0]
            try:
                return await source.block.submit(Bio(Op.READ, DATA_GRAIN + grain))
            except IoError:
                if not self.fault(source):
                    raise

    async def _pace(self) -> None:
        """The time that one grain takes at the rate, which may change meanwhile."""
        loop = asyncio.get_running_loop()
        left_kib = GRAIN_BYTES / KIB
        while left_kib > 1e-3 and not self.frozen:
            began_s, rate = loop.time(), self.rate_kib_s
            await self._rate_changed.wait_for(left_kib / rate)
            left_kib -= (loop.time() - began_s) * rate

    async def stop(self) -> None:
        """Clean, if nothing is left to resync."""
        self.stop_check()
        tasks = [t for t in (self._idle_task, self._sync_task) if t is not None and not t.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.sync_action = "idle"
        if self.writable and not self._in_flight:
            self.clean = not self.need_resync
            self._super_wanted += 1
            await self.flush_supers()
            await self._clear_bits()
            await self.flush_supers()
        self.running = False
        while self.members:  # one after the other, for all to see
            self.members.pop(0).block.close(self.label)
            await self.kernel.rcu_grace()
