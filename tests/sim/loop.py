"""Virtual time: an event loop that never waits, and the clock over it.

When nothing is ready the loop jumps to its next timer. There are no threads, no files and no real
time in it, so that a run depends on its seed alone.
"""

import asyncio
import contextlib
import contextvars
import random
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_S = 1_750_000_000.0
ITERATIONS_MAX = 100_000
# In so short a time no cluster has so much to do.
BUSY_WINDOW_S = 10.0
BUSY_ITERATIONS_MAX = 200_000
VIRTUAL_TIME_MAX_S = 30 * 24 * 3600.0

# The host that a task runs on; the tests' own have none.
HOST: contextvars.ContextVar[str] = contextvars.ContextVar("host")


def context_of(host: str) -> contextvars.Context:
    """An empty one, but for the host."""
    context = contextvars.Context()
    context.run(HOST.set, host)
    return context


class DeadlockError(RuntimeError):
    """Nothing is ready and nothing is scheduled: whoever waits does so for ever."""


class LivelockError(RuntimeError):
    """The loop turns and turns, and time stands still; or it never ends."""


class _NeverBlocks:
    """Stands where asyncio has its selector: the one place that waits."""

    def __init__(self, advance: Callable[[float | None], None]) -> None:
        self._advance = advance

    def select(self, timeout: float | None) -> list[object]:
        self._advance(timeout)
        return []

    def close(self) -> None:
        """Nothing to close."""


class SimLoop(asyncio.BaseEventLoop):
    """An event loop whose time() is virtual and begins at 0."""

    def __init__(self, limit_s: float = VIRTUAL_TIME_MAX_S) -> None:
        super().__init__()
        self._ready: deque[asyncio.Handle]  # asyncio's own
        self._now_s = 0.0
        self._limit_s = limit_s
        self._standing = 0
        self._window_ends_s = 0.0
        self._window_iterations = 0
        self._clock_resolution = 1e-6
        self._selector = _NeverBlocks(self._advance)
        # Frozen host → what it does next, once it goes on.
        self._frozen: dict[str, list[asyncio.Handle]] = {}

    def freeze(self, host: str) -> None:
        """Nothing runs on the host until it is thawed; time goes on."""
        kept = self._frozen.setdefault(host, [])
        for handle in list(self._ready):
            if _host_of(handle) == host:
                self._ready.remove(handle)
                kept.append(handle)

    def thaw(self, host: str) -> None:
        self._ready.extend(self._frozen.pop(host, ()))

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        if self._frozen and _host_of(handle) in self._frozen:
            self._ready.remove(handle)
            self._frozen[_host_of(handle)].append(handle)
        return handle

    def time(self) -> float:
        return self._now_s

    def _advance(self, timeout: float | None) -> None:
        if timeout is None:
            raise DeadlockError(f"at {self._now_s:.3f} s nothing is scheduled: {self._waiting()}")
        self._window_iterations += 1
        if self._now_s >= self._window_ends_s:
            self._window_ends_s = self._now_s + BUSY_WINDOW_S
            self._window_iterations = 0
        elif self._window_iterations > BUSY_ITERATIONS_MAX:
            raise LivelockError(f"somebody spins at {self._now_s:.3f} s: {self._waiting()}")
        if timeout > 0:
            self._now_s += timeout
            self._standing = 0
            if self._now_s > self._limit_s:
                raise LivelockError(f"not done after {self._limit_s} s: {self._waiting()}")
            return
        self._standing += 1
        if self._standing > ITERATIONS_MAX:
            raise LivelockError(f"time stands still at {self._now_s:.6f} s: {self._waiting()}")

    def forgive(self) -> None:
        """Forgets how long time stood still and how late it is: the tasks are being ended."""
        self._standing = 0
        self._window_ends_s = self._limit_s = float("inf")
        self._window_iterations = -(10**9)
        for host in list(self._frozen):
            self.thaw(host)

    def _waiting(self) -> str:
        names = (repr(task.get_coro()) for task in asyncio.all_tasks(self))
        return "; ".join(sorted(names)[:20]) or "no task"

    def _process_events(self, event_list: list[object]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def run_in_executor(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("a thread in the simulation: its order would not be the seed's")


def _host_of(handle: asyncio.Handle) -> str:
    context: contextvars.Context | None = getattr(handle, "_context", None)
    return "" if context is None else context.get(HOST, "")


def run(coro: Coroutine[Any, Any, T], limit_s: float = VIRTUAL_TIME_MAX_S) -> T:
    """Runs to its end in virtual time. The seed belongs to the World that `coro` makes."""
    loop = SimLoop(limit_s)
    try:
        return loop.run_until_complete(coro)
    finally:
        _end_tasks(loop)
        loop.close()


def _end_tasks(loop: SimLoop) -> None:
    loop.forgive()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        with contextlib.suppress(DeadlockError, LivelockError):
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))


class Signal:
    """Wakes all who wait now. One who comes later waits for the next."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    def fire(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    async def wait_for(self, timeout_s: float) -> bool:
        """Whether it fired in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait()
        except TimeoutError:
            return False
        return True


class SimClock:
    """ports.Clock. `skew_s` says how far this host's wall clock is off now."""

    def __init__(self, rng: random.Random, skew_s: Callable[[], float] = lambda: 0.0) -> None:
        self._rng = rng
        self._skew_s = skew_s

    def now_s(self) -> float:
        return EPOCH_S + self.monotonic_s() + self._skew_s()

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)

    def new_token(self, digits: int) -> str:
        return f"{self._rng.getrandbits(4 * digits):0{digits}x}"
