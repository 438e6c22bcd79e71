"""device-mapper: linear and leg devices. Implements ports.DeviceMapper.

A leg is dm-multipath with queue_if_no_path: an error of any kind fails the path, and with no path
left I/O waits in the device until its table or its hold changes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.sim.blocks import Bio, Block, IoError, KernelState, Op, grains
from tests.sim.fake_nbd import NbdBlock
from tests.sim.faults import Door
from tests.sim.loop import Signal
from vastskyd.core.errors import BusyError, ConflictError, DeviceError, NotFoundError
from vastskyd.core.names import UUID_PREFIX, LegName, VolumeDeviceName, wreck_dm_name
from vastskyd.core.units import GRAIN_BYTES
from vastskyd.ports import DmDevice, LegStatus, LinearTarget, PathCondition

REMOVE_TIMEOUT_S = 2.0
_REMOVE_RETRY_S = 0.25


@dataclass(frozen=True)
class LinearTable:
    """(device, first grain in it, number of grains), one after the other."""

    ranges: tuple[tuple[Block, int, int], ...]


@dataclass
class MultipathTable:
    paths: tuple[Block, ...]
    holds: bool = True
    failed: dict[str, None] = field(default_factory=dict)
    turn: int = 0
    _shown: tuple[object, LegStatus] | None = field(default=None, compare=False)

    def status(self) -> LegStatus:
        """Made anew only after a change."""
        now = (self.holds, tuple(self.failed))
        if self._shown is None or self._shown[0] != now:
            paths = tuple(
                (p.name, PathCondition.FAILED if p.name in self.failed else PathCondition.ACTIVE)
                for p in self.paths
            )
            self._shown = (now, LegStatus(paths, self.holds))
        return self._shown[1]

    def next_path(self) -> Block | None:
        """The good ones in turn, as the kernel's selectors have it: a dead one is met soon."""
        good = [path for path in self.paths if path.name not in self.failed]
        self.turn += 1
        return good[self.turn % len(good)] if good else None


_NO_LEG = LegStatus((), holds=False)


class ErrorTable:
    """Every I/O fails."""


Table = LinearTable | MultipathTable | ErrorTable


class DmBlock(Block):
    def __init__(self, kernel: KernelState, kernel_name: str, dm_name: str, uuid: str) -> None:
        super().__init__(kernel, kernel_name, 0)
        self.dm_name = dm_name
        self.uuid = uuid
        self.is_ours = uuid.startswith(UUID_PREFIX)
        self.table: Table = ErrorTable()
        self.written_bytes = 0
        # Of those with a write under way: what ends them.
        self.programs: dict[str, Callable[[], object]] = {}
        self._table_changed = Signal()
        self._shown: DmDevice | None = None

    def below(self) -> tuple[Block, ...]:
        """The devices of its table, each once."""
        if isinstance(self.table, LinearTable):
            return tuple(dict.fromkeys(block for block, _, _ in self.table.ranges))
        return self.table.paths if isinstance(self.table, MultipathTable) else ()

    def shown(self) -> DmDevice:
        """Made anew only after a change: it is looked at all the time."""
        users, seen = len(self.users), self._shown
        if seen is None or seen.open_count != users or seen.name != self.dm_name:
            seen = self._shown = DmDevice(
                name=self.dm_name,
                uuid=self.uuid,
                device=self.path,
                size_bytes=self.size_bytes,
                open_count=users,
                slaves=tuple(below.name for below in self.below()),
            )
        return seen

    def in_flight(self) -> "set[asyncio.Task[object]]":
        return set[asyncio.Task[object]]().union(*(block.in_flight() for block in self.below()))

    def load(self, table: Table, size_bytes: int) -> None:
        """Swaps the table; what is held goes to the new one."""
        old = self.below()
        self.table = table
        self.size_bytes = size_bytes
        self._shown = None
        for block in self.below():
            block.open(self.label)
        for block in old:
            block.close(self.label)
        self.woken()

    @property
    def label(self) -> str:
        return f"held by {self.name} ({self.dm_name})"

    def woken(self) -> None:
        self._table_changed.fire()
        self.kernel.notify()

    async def submit(self, bio: Bio) -> object:
        answer = await self._submit(bio)
        if bio.op is Op.WRITE:
            self.written_bytes += GRAIN_BYTES
        return answer

    async def _submit(self, bio: Bio) -> object:
        if not 0 <= bio.grain < self.size_bytes // (1 << 20):
            raise IoError(f"{self.dm_name}: beyond its end, grain {bio.grain}")
        while True:
            table = self.table
            if isinstance(table, LinearTable):
                return await self._linear(table, bio)
            if isinstance(table, ErrorTable):
                raise IoError(f"{self.dm_name}: error table")
            path = table.next_path()
            if path is None:
                if not table.holds:
                    raise IoError(f"{self.dm_name}: no path")
                await self._table_changed.wait()
                continue
            try:
                if not isinstance(path, NbdBlock):
                    await self.kernel.latency()
                return await path.submit(bio)
            except IoError:
                if path.name not in table.failed:
                    table.failed[path.name] = None
                    self.kernel.notify()

    async def _linear(self, table: LinearTable, bio: Bio) -> object:
        if bio.op is Op.FLUSH:
            for block in self.below():
                await block.submit(bio)
            return None
        start = 0
        for block, first, count in table.ranges:
            if bio.grain < start + count:
                return await block.submit(bio.at(first + bio.grain - start))
            start += count
        raise IoError(f"{self.dm_name}: no target for grain {bio.grain}")


class FakeDm:
    """ports.DeviceMapper."""

    def __init__(self, kernel: KernelState, door: Door) -> None:
        self._kernel = kernel
        self._door = door

    def _named(self, name: str) -> DmBlock | None:
        for block in self._kernel.blocks.values():
            if isinstance(block, DmBlock) and block.dm_name == name:
                return block
        return None

    def _own(self, name: str, uuid: str) -> DmBlock | None:
        block = self._named(name)
        if block is not None and block.uuid != uuid:
            raise ConflictError(f"the device {name} exists as {block.uuid}, not {uuid}")
        return block

    def _ensure(self, name: str, uuid: str, table: Table, size_bytes: int) -> str:
        block = self._own(name, uuid)
        if block is None:
            block = DmBlock(self._kernel, self._kernel.free_name("dm-"), name, uuid)
            self._kernel.blocks[block.name] = block
        block.load(table, size_bytes)
        return block.path

    async def devices(self) -> tuple[DmDevice, ...]:
        async with self._door.step("dm.devices"):
            return tuple(
                [
                    block.shown()
                    for block in self._kernel.blocks.values()
                    if isinstance(block, DmBlock) and block.is_ours
                ]
            )

    async def ensure_linear(
        self, name: str, uuid: str, targets: tuple[LinearTarget, ...], *, public: bool
    ) -> str:
        async with self._door.step("dm.ensure_linear"):
            ranges = []
            for target in targets:
                below = self._kernel.find(target.device)
                first, count = grains(target.offset_bytes), grains(target.length_bytes)
                if target.offset_bytes + target.length_bytes > below.size_bytes:
                    raise DeviceError(f"{name}: {target.device} is too small for its table")
                ranges.append((below, first, count))
            table = LinearTable(tuple(ranges))
            block = self._own(name, uuid)
            if block is not None and block.table == table:
                return block.path
            size_bytes = sum(target.length_bytes for target in targets)
            return self._ensure(name, uuid, table, size_bytes)

    async def ensure_leg(self, name: LegName, paths: tuple[str, ...], size_bytes: int) -> str:
        async with self._door.step("dm.ensure_leg"):
            blocks = tuple(self._kernel.find(path) for path in paths)
            if not blocks:
                raise DeviceError("a leg needs a path")
            for below in blocks:
                if below.size_bytes < size_bytes:  # an unconnected NBD device has no size
                    raise DeviceError(f"{name.dm_name()}: {below.name} is too small")
            block = self._own(name.dm_name(), name.dm_uuid())
            if block is not None and self._same_leg(block, blocks, size_bytes):
                return block.path
            return self._ensure(name.dm_name(), name.dm_uuid(), MultipathTable(blocks), size_bytes)

    @staticmethod
    def _same_leg(block: DmBlock, paths: tuple[Block, ...], size_bytes: int) -> bool:
        """Then failed paths stay failed: nothing is reloaded."""
        table = block.table
        same = isinstance(table, MultipathTable) and table.holds and table.paths == paths
        return same and block.size_bytes == size_bytes

    async def leg_status(self, name: LegName) -> LegStatus:
        async with self._door.step("dm.leg_status"):
            table = self._leg(name).table
            return table.status() if isinstance(table, MultipathTable) else _NO_LEG

    async def release_leg(self, name: LegName) -> None:
        async with self._door.step("dm.release_leg"):
            block = self._leg(name)
            if isinstance(block.table, MultipathTable):
                block.table.holds = False
                block.woken()

    async def retry_leg(self, name: LegName) -> None:
        async with self._door.step("dm.retry_leg"):
            block = self._leg(name)
            if isinstance(block.table, MultipathTable):
                block.table.failed.clear()
                block.woken()

    def _leg(self, name: LegName) -> DmBlock:
        block = self._own(name.dm_name(), name.dm_uuid())
        if block is None:
            raise NotFoundError(f"there is no device {name.dm_name()}")
        return block

    async def replace_with_error(self, name: str) -> None:
        async with self._door.step("dm.replace_with_error"):
            block = self._named(name)
            if block is None:
                raise NotFoundError(f"there is no device {name}")
            await self._local_io_done(block)
            block.load(ErrorTable(), block.size_bytes)

    async def _local_io_done(self, block: DmBlock) -> None:
        """A suspend waits for what a disk of this host has taken. What is on its way to other
        hosts it need not wait for: their fence is the export's end."""
        if left := block.in_flight():
            await asyncio.wait(left)

    async def end_writers(self, name: str) -> tuple[str, ...]:
        async with self._door.step("dm.end_writers"):
            block = self._named(name)
            if block is None:
                raise NotFoundError(f"there is no device {name}")
            killed = tuple(block.programs)
            for end in list(block.programs.values()):
                end()
            block.programs.clear()
            return killed

    async def abandon(self, name: str) -> None:
        async with self._door.step("dm.abandon"):
            block = self._named(name)
            volume = None if block is None else VolumeDeviceName.parse(block.uuid)
            if block is None or volume is None:
                raise NotFoundError(f"there is no volume {name}")
            block.load(ErrorTable(), block.size_bytes)
            block.dm_name = wreck_dm_name(volume.volume, volume.epoch)
            for user in [user for user in block.users if user.startswith("mounted on ")]:
                block.close(user)

    async def written_bytes(self, device: str) -> int:
        async with self._door.step("dm.written_bytes"):
            block = self._kernel.find(device)
            if not isinstance(block, DmBlock):
                raise DeviceError(f"{device} is not device-mapper's")
            return block.written_bytes

    async def remove(self, name: str) -> None:
        async with self._door.step("dm.remove"):
            deadline_s = asyncio.get_running_loop().time() + REMOVE_TIMEOUT_S
            while (block := self._named(name)) is not None:
                if not block.users:
                    block.load(ErrorTable(), 0)
                    del self._kernel.blocks[block.name]
                    return
                if asyncio.get_running_loop().time() >= deadline_s:
                    raise BusyError(f"{name} is in use: {', '.join(block.users)}")
                await asyncio.sleep(_REMOVE_RETRY_S)

    async def holders(self, name: str) -> tuple[str, ...]:
        async with self._door.step("dm.holders"):
            block = self._named(name)
            return () if block is None else tuple(block.users)
