"""Disks: media that survive everything but being failed, and ports.Disks over those of one host."""

import asyncio
import random
from dataclasses import dataclass, field

import msgspec

from tests.sim.blocks import CALL_TIMEOUT_S, Bio, Block, IoError, KernelState, Op, Patch, grains
from tests.sim.faults import Door
from tests.sim.write_cache import WriteCache
from vastskyd.core.errors import ConflictError, DeviceError, NotFoundError
from vastskyd.core.model import SmartHealth, SmartReading
from vastskyd.core.ondisk_layout import AREA_START_BYTES, SLOT_BYTES, SLOT_OFFSETS_BYTES
from vastskyd.core.pace import Activity
from vastskyd.core.units import GRAIN_BYTES
from vastskyd.ondisk.codec import MAGIC
from vastskyd.ports import BlockDevice, SlotBytes

SLOT_WRITE_S = 0.004
WIPE_S_PER_GRAIN = 0.001
WIPE_GRAINS_AT_ONCE = 64


WELL = SmartReading(
    health=SmartHealth.PASSED,
    model="Simulated disk",
    reallocated=0,
    pending=0,
    media_errors=0,
    wear_percent=1,
    temperature_c=35,
    power_on_h=1000,
)


FAILING = msgspec.structs.replace(
    WELL, health=SmartHealth.FAILING, reason="its reliability is degraded"
)


def empty_slots() -> list[bytes]:
    return [b""] * len(SLOT_OFFSETS_BYTES)


@dataclass
class FakeMedia:
    """A disk's platters. `data`: grain → tag; what is not there reads as 0. `meta`: md's own.

    `failed`: every access is an error. `bad`: those grains are, `unreadable` ones until they are
    written, and `unwritable` ones when they are. `slow_s`: how long each access takes. `found` is
    a foreign signature. `done` counts accesses. `cache`: None if all that is written is durable.
    `smart` is what it says of itself, unless it is `asleep`. `drive` and `file`: as of
    ports.BlockDevice.
    """

    serial: str
    size_bytes: int
    found: str = ""
    data: dict[int, int] = field(default_factory=dict)
    meta: dict[int, object] = field(default_factory=dict)
    slots: list[bytes] = field(default_factory=empty_slots)
    failed: bool = False
    bad: dict[int, None] = field(default_factory=dict)
    unreadable: dict[int, None] = field(default_factory=dict)
    unwritable: dict[int, None] = field(default_factory=dict)
    slow_s: float = 0.0
    done: int = 0
    cache: WriteCache | None = None
    smart: SmartReading = WELL
    asleep: bool = False
    drive: str = ""
    file: str = ""

    def _errs(self, bio: Bio) -> bool:
        reads = bio.op in (Op.READ, Op.READ_META)
        at_this = self.unreadable if reads else self.unwritable
        if not reads and bio.grain not in self.unwritable:
            self.unreadable.pop(bio.grain, None)  # the disk has put it elsewhere
        return self.failed or bio.grain in self.bad or bio.grain in at_this

    def access(self, bio: Bio) -> object:
        """At once. Raises IoError."""
        self.done += 1
        if self._errs(bio):
            raise IoError(f"{self.serial}: I/O error, grain {bio.grain}")
        if not 0 <= bio.grain < self.size_bytes // (1 << 20):
            raise IoError(f"{self.serial}: beyond its end, grain {bio.grain}")
        if self.cache is not None and bio.op in (Op.WRITE, Op.WRITE_META):
            self.cache.written(self, bio.grain)
        match bio.op:
            case Op.READ:
                return self.data.get(bio.grain, 0)
            case Op.WRITE:
                self.data[bio.grain] = self._written(bio)
                self.meta.pop(bio.grain, None)
            case Op.READ_META:
                return self.meta.get(bio.grain)
            case Op.WRITE_META:
                self.meta[bio.grain] = bio.value
                self.data.pop(bio.grain, None)
                self.flush()
            case Op.FLUSH:
                self.flush()
        return None

    def flush(self) -> None:
        if self.cache is not None:
            self.cache.flush()

    def power_cut(self, rng: random.Random) -> None:
        if self.cache is not None:
            self.cache.power_cut(self, rng)

    def _written(self, bio: Bio) -> int:
        if isinstance(bio.value, int):
            return bio.value
        if isinstance(bio.value, Patch):
            return bio.value.apply(self.data.get(bio.grain, 0))
        raise TypeError("a grain holds a number")

    def clear(self, grain: int) -> None:
        """Reads as zeros."""
        self.access(Bio(Op.WRITE, grain, 0))
        self.data.pop(grain, None)

    def is_member(self) -> bool:
        return any(content.startswith(MAGIC) for content in self.slots)


class DiskBlock(Block):
    """A medium in a host. It answers at once: I/O through it is one step that nothing divides. Only
    a slow medium lets one wait, and what waits is lost with the power."""

    def __init__(self, kernel: KernelState, name: str, media: FakeMedia) -> None:
        super().__init__(kernel, name, media.size_bytes)
        self.media = media
        self.pulled = False
        self.took_s = 0.0
        self._taken: dict[asyncio.Task[object], None] = {}
        # Slot writes on their way: a power cut loses, completes or tears them.
        self.writing: dict[int, bytes] = {}
        # As in kernel/direct.py: who writes, or reads slots, waits for who began before.
        self.order = asyncio.Lock()
        self.wipe_order = asyncio.Lock()

    @property
    def stable_path(self) -> str:
        return f"/dev/disk/by-id/{self.media.serial}"

    async def submit(self, bio: Bio) -> object:
        if not self.media.slow_s:
            return self._access(bio)
        # It is the disk's by now: whoever sent it may die or hang.
        task = self.kernel.spawn(self._slowly(bio))
        self._taken[task] = None
        task.add_done_callback(lambda _: self._taken.pop(task))
        await asyncio.wait((task,))
        if task.cancelled():
            raise IoError(f"{self.name}: its host lost power")
        return task.result()

    async def _slowly(self, bio: Bio) -> object:
        begun_s = asyncio.get_running_loop().time()
        await asyncio.sleep(self.media.slow_s)
        self.took_s += asyncio.get_running_loop().time() - begun_s
        return self._access(bio)

    def _access(self, bio: Bio) -> object:
        if self.pulled:
            raise IoError(f"{self.name}: the disk was pulled")
        return self.media.access(bio)

    def activity(self) -> Activity:
        return Activity(self.media.done, self.took_s, len(self._taken))

    def in_flight(self) -> set[asyncio.Task[object]]:
        return set(self._taken)

    def power_cut(self, rng: random.Random) -> None:
        for slot, content in self.writing.items():
            written = rng.choice((0, len(content), rng.randrange(len(content) + 1)))
            store_slot(self.media, slot, content[:written])
        self.writing.clear()
        self.media.power_cut(rng)


def store_slot(media: FakeMedia, slot: int, content: bytes) -> None:
    """As a write does it: what lay behind `content` stays."""
    media.slots[slot] = content + media.slots[slot][len(content) :]


def _look(block: DiskBlock) -> tuple[bool, str]:
    """(member, found): what uses the disk goes before what is written on it, which is then not
    looked at."""
    media = block.media
    used = [user for user in block.users if user.startswith("held by ")]
    if used:
        ours = any("(vastsky-extent-" in user for user in used)
        return ours, "vastsky member" if ours else f"in use: {used[0]}"
    if media.failed:
        return False, "unreadable: input/output error"
    return (True, "vastsky member") if media.is_member() else (False, media.found)


class FakeDisks:
    """ports.Disks of one host."""

    def __init__(self, kernel: KernelState, door: Door) -> None:
        self._kernel = kernel
        self._door = door

    async def list(self, *, anew: bool = False) -> tuple[BlockDevice, ...]:
        async with self._door.step("disks.list"):
            blocks = (b for b in self._kernel.blocks.values() if isinstance(b, DiskBlock))
            return tuple(self._describe(block) for block in blocks if not block.pulled)

    def _describe(self, block: DiskBlock) -> BlockDevice:
        media = block.media
        member, found = _look(block)
        names = [name for name in (block.stable_path, block.path) if self._kernel.has(name)]
        return BlockDevice(
            path=names[0],
            kernel_name=block.name,
            serial=media.serial,
            size_bytes=media.size_bytes,
            found=found,
            member=member,
            aliases=(*names[1:], *([media.file] if media.file else ())),
            drive=media.drive,
            file=media.file,
        )

    async def activity(self) -> dict[str, Activity]:
        async with self._door.step("disks.activity"):
            blocks = [b for b in self._kernel.blocks.values() if isinstance(b, DiskBlock)]
            return {block.name: block.activity() for block in blocks}

    async def read_slots(self, path: str) -> SlotBytes:
        async with self._door.step("disks.read_slots"):
            work = self._read_slots(self._usable(path))
            return await self._kernel.call("read of slots", work, CALL_TIMEOUT_S, lane=path)

    async def _read_slots(self, block: DiskBlock) -> SlotBytes:
        async with block.order:
            if block.media.slow_s:
                await asyncio.sleep(block.media.slow_s)
                block.took_s += block.media.slow_s
            self._usable(block.path)
            block.media.done += 1
            return SlotBytes(tuple(each.ljust(SLOT_BYTES, b"\0") for each in block.media.slots))

    async def write_slot(self, path: str, slot: int, content: bytes) -> None:
        async with self._door.step("disks.write_slot"):
            if len(content) > SLOT_BYTES:
                raise DeviceError(f"{len(content)} bytes do not fit a slot")
            block = self._usable(path)
            work = self._write_slot(block, slot, content)
            await self._kernel.call("write of a slot", work, CALL_TIMEOUT_S, lane=path)

    async def _write_slot(self, block: DiskBlock, slot: int, content: bytes) -> None:
        async with block.order:
            self._usable(block.path)
            block.writing[slot] = content
            await asyncio.sleep(SLOT_WRITE_S + block.media.slow_s)
            self._usable(block.path)
            store_slot(block.media, slot, content)
            block.writing.pop(slot, None)
            block.media.flush()

    async def remnants(self, path: str) -> str:
        async with self._door.step("disks.remnants"):
            block = self._usable(path)
            if block.users:
                return block.users[0]
            media = block.media
            first, last = AREA_START_BYTES // GRAIN_BYTES, media.size_bytes // GRAIN_BYTES - 1
            if media.is_member() or any(media.data.get(grain) for grain in range(first)):
                return "its first 4.0 MiB do not read as zeros"
            return "its last 1.0 MiB do not read as zeros" if media.data.get(last) else ""

    async def erase_signatures(self, path: str) -> None:
        async with self._door.step("disks.erase_signatures"):
            block = self._usable(path)
            if block.users:
                raise ConflictError(f"{path} is in use: {block.users[0]}")
            work = self._erase(block)
            await self._kernel.call("erase", work, CALL_TIMEOUT_S, lane=path)

    async def _erase(self, block: DiskBlock) -> None:
        """Both ends: the slots are before the area of the extents."""
        async with block.order:
            block.media.found = ""
            first_grains = range(AREA_START_BYTES // GRAIN_BYTES)
            for grain in (*first_grains, block.media.size_bytes // GRAIN_BYTES - 1):
                await self._clear(block, grain)
            block.media.slots = empty_slots()
            block.media.flush()

    async def wipe(self, path: str, offset_bytes: int, length_bytes: int) -> None:
        async with self._door.step("disks.wipe"):
            first, count = grains(offset_bytes), grains(length_bytes)
            work = self._wipe(self._usable(path), first, count)
            timeout_s = CALL_TIMEOUT_S + 2 * WIPE_S_PER_GRAIN * count
            await self._kernel.call("wipe", work, timeout_s, lane=f"wipe {path}")

    async def _wipe(self, block: DiskBlock, first: int, count: int) -> None:
        """Grain by grain: a power cut finds it half done."""
        async with block.wipe_order:
            for grain in range(first, first + count):
                await self._clear(block, grain)
            block.media.flush()

    async def _clear(self, block: DiskBlock, grain: int) -> None:
        await asyncio.sleep(WIPE_S_PER_GRAIN + block.media.slow_s / WIPE_GRAINS_AT_ONCE)
        if block.pulled:
            raise IoError("the disk was pulled")
        block.media.clear(grain)

    def _usable(self, path: str) -> DiskBlock:
        block = self._kernel.find(path)
        if not isinstance(block, DiskBlock) or block.pulled:
            raise NotFoundError(f"there is no disk {path}")
        if block.media.failed:
            raise DeviceError(f"{path}: input/output error")
        return block
