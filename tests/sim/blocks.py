"""One boot of a host's kernel: its block devices, its own tasks, and its changes.

I/O is counted in grains of 1 MiB that hold one small number each. What md writes for itself (its
superblock, its bitmap) is a value in a grain too, so that it takes the same way and the same time.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

import msgspec

from tests.sim.contents import Contents
from tests.sim.loop import Signal, context_of
from vastskyd.core.errors import DeviceError, LateError, NotFoundError
from vastskyd.core.units import GRAIN_BYTES

T = TypeVar("T")

CALL_TIMEOUT_S = 10.0


class IoError(Exception):
    """EIO."""


class PowerLostError(Exception):
    """The host went dark before the answer: nothing was acknowledged."""


class Op(Enum):
    READ = auto()
    WRITE = auto()
    READ_META = auto()
    WRITE_META = auto()  # flushed before, and durable, as md's own writes are
    FLUSH = auto()


@dataclass(frozen=True)
class Patch:
    """A write of less than a grain: the number that the grain then holds, of the one before."""

    apply: Callable[[int], int]


class Bio(msgspec.Struct, frozen=True):
    """One read or write of one grain; `value` is what to write: a number, or a Patch."""

    op: Op
    grain: int
    value: object = None

    def at(self, grain: int) -> "Bio":
        return Bio(self.op, grain, self.value)


def grains(size_bytes: int) -> int:
    """DeviceError if it is not on the grid: the model knows nothing smaller than a grain."""
    if size_bytes % GRAIN_BYTES:
        raise DeviceError(f"{size_bytes} bytes is not on the grid of {GRAIN_BYTES}")
    return size_bytes // GRAIN_BYTES


def pieces(offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, int]]:
    """The range, cut at the grains' ends: (grain, where in the grain, length)."""
    end = offset_bytes + length_bytes
    while offset_bytes < end:
        grain, at = divmod(offset_bytes, GRAIN_BYTES)
        length = min(GRAIN_BYTES - at, end - offset_bytes)
        yield grain, at, length
        offset_bytes += length


class Block:
    """A block device. `users` are those that hold it open, in words for people."""

    def __init__(self, kernel: "KernelState", name: str, size_bytes: int) -> None:
        self.kernel = kernel
        self.name = name
        self.size_bytes = size_bytes
        self.users: list[str] = []

    @property
    def path(self) -> str:
        return f"/dev/{self.name}"

    def open(self, by: str) -> None:
        self.users.append(by)

    def close(self, by: str) -> None:
        self.users.remove(by)
        self.kernel.notify()

    def in_flight(self) -> "set[asyncio.Task[object]]":
        """What disks of this host have taken and not answered."""
        return set()

    async def submit(self, bio: Bio) -> object:
        """What was read. Raises IoError; may wait for ever, as held I/O does."""
        raise NotImplementedError


class KernelState:
    """What a power cut ends. Registration order is the only order there is."""

    def __init__(self, host: str, boot_id: str, rng: random.Random, contents: Contents) -> None:
        self.host = host
        self.boot_id = boot_id
        self.rng = rng
        self.contents = contents
        self.dead = False
        self.blocks: dict[str, Block] = {}
        self.links: dict[str, str] = {}
        self.pulled: list[Block] = []
        self.changes = 0
        self.changed = Signal()
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._late: dict[asyncio.Task[Any], tuple[str, str]] = {}
        self._context = context_of(host)

    def notify(self) -> None:
        self.changes += 1
        self.changed.fire()

    def find(self, path: str) -> Block:
        block = self.blocks.get(self.links.get(path, path.removeprefix("/dev/")))
        if block is None:
            raise NotFoundError(f"{self.host}: there is no {path}")
        return block

    def has(self, path: str) -> bool:
        return self.links.get(path, path.removeprefix("/dev/")) in self.blocks

    def free_name(self, prefix: str) -> str:
        number = 0
        while f"{prefix}{number}" in self.blocks:
            number += 1
        return f"{prefix}{number}"

    def spawn(self, coro: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task of the kernel: it outlives the daemon that caused it, and ends with the power."""
        if self.dead:
            coro.close()
            raise asyncio.CancelledError
        task = asyncio.get_running_loop().create_task(coro, context=self._context)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    async def call(
        self,
        what: str,
        coro: Coroutine[Any, Any, T],
        timeout_s: float,
        *,
        lane: str = "",
        a_process: bool = False,
    ) -> T:
        """For port methods: what the kernel does is not undone if the caller goes away, and a
        caller does not wait for ever. Raises DeviceError for EIO, and LateError after `timeout_s`
        and in a `lane` with a call that is late. A process that takes longer is killed, wherever
        it is."""
        for late_lane, earlier in self._late.values():
            if late_lane == lane:
                coro.close()
                raise LateError(f"{what}: an earlier call has not returned: {earlier}")
        task = self.spawn(coro)
        try:
            done, _ = await asyncio.wait((task,), timeout=timeout_s)
        except asyncio.CancelledError:
            if a_process:  # it goes with the unit that started it
                task.cancel()
            raise
        if not done:
            if a_process:
                task.cancel()
            elif lane:
                self._late[task] = (lane, what)
            raise LateError(f"{self.host}: {what}: not done within {timeout_s:g} s")
        if task.cancelled():
            raise PowerLostError(self.host)
        try:
            return task.result()
        except IoError as error:
            raise DeviceError(f"{self.host}: {what}: {error}") from error

    async def latency(self) -> None:
        await asyncio.sleep(self.rng.uniform(0.0002, 0.002))

    async def rcu_grace(self) -> None:
        """What md waits for at each member that it takes in or lets go of."""
        await asyncio.sleep(self.rng.uniform(0.005, 0.05))

    def die(self) -> None:
        self.dead = True
        for task in list(self._tasks):
            task.cancel()
        self.blocks.clear()
        self.links.clear()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        self._late.pop(task, None)
        if not task.cancelled():
            task.exception()  # a caller that gave up waiting does not fetch it
