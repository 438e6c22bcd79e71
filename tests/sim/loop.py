"""Virtual time: an event loop that never waits, and the clock over it.

When nothing is ready the loop jumps to its next timer. There are no threads, no files and no real
time in it, so that a run depends on its seed alone.
"""

import asyncio
import contextlib
import contextvars
import heapq
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
# So many timers that were cancelled are left lying.
CANCELLED_MOST = 100
UNSEEN_MOST = 5
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


class UnseenError(RuntimeError):
    """A task or a callback failed, and nobody heard of it."""


class _Handle(asyncio.Handle):
    """What is to be called next; made without what asyncio keeps for its debugging."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def __repr__(self) -> str:
        return f"<{self._callback!r}>"


class _Timer(_Handle, asyncio.TimerHandle):
    """What is to be called then. `_scheduled` until it is due."""

    __slots__ = ()

    def __init__(
        self,
        loop: "SimLoop",
        when_s: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        _Handle.__init__(self, callback, args, context)
        self._loop = loop
        self._when = when_s
        self._scheduled = True

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            if self._scheduled:
                self._loop.timer_cancelled()


class SimLoop(asyncio.BaseEventLoop):
    """An event loop whose time() is virtual and begins at 0. What is due at the same time is called
    in the order in which it was asked for."""

    def __init__(self, limit_s: float = VIRTUAL_TIME_MAX_S) -> None:
        super().__init__()
        self._stopping: bool  # asyncio's own
        self._now_s = 0.0
        self._limit_s = limit_s
        self._standing = 0
        self._window_ends_s = 0.0
        self._window_iterations = 0
        self._next: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Timer]] = []
        self._timer_number = 0
        self._timers_cancelled = 0
        # Frozen host → what it does next, once it goes on.
        self._frozen: dict[str, list[_Handle]] = {}
        self.unseen: list[str] = []
        """What nobody heard of: the first failures of them."""
        self.set_exception_handler(_note_unseen)

    def freeze(self, host: str) -> None:
        """Nothing runs on the host until it is thawed; time goes on."""
        kept = self._frozen.setdefault(host, [])
        for handle in list(self._next):
            if _host_of(handle) == host:
                self._next.remove(handle)
                kept.append(handle)

    def thaw(self, host: str) -> None:
        self._next.extend(self._frozen.pop(host, ()))

    def call_soon(
        self,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = _Handle(callback, args, context)
        if self._frozen and (host := _host_of(handle)) in self._frozen:
            self._frozen[host].append(handle)
        else:
            self._next.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = _Timer(self, when, callback, args, context)
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, timer))
        return timer

    def timer_cancelled(self) -> None:
        """Most are: a timeout seldom comes."""
        self._timers_cancelled += 1
        if self._timers_cancelled > CANCELLED_MOST and self._timers_cancelled * 2 > len(
            self._timers
        ):
            self._timers[:] = [entry for entry in self._timers if not entry[2].cancelled()]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    def time(self) -> float:
        return self._now_s

    def _run_once(self) -> None:
        """Until the loop is to stop: asyncio's own calls it no oftener than that. Each turn is of
        all that is ready when it begins."""
        ready, timers = self._next, self._timers
        while True:
            self._count_turn()
            if not ready and not self._stopping:
                self._advance()
            while timers and timers[0][0] <= self._now_s:
                timer = heapq.heappop(timers)[2]
                timer._scheduled = False
                if timer._cancelled:
                    self._timers_cancelled -= 1
                else:
                    ready.append(timer)
            for _ in range(len(ready)):
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio has it
                    message = f"exception in {handle!r}"
                    self.call_exception_handler({"message": message, "exception": error})
            if self._stopping:
                return

    def _advance(self) -> None:
        """To the next timer."""
        while self._timers:
            when_s, _, timer = self._timers[0]
            if not timer._cancelled:
                break
            heapq.heappop(self._timers)
            timer._scheduled = False
            self._timers_cancelled -= 1
        else:
            raise DeadlockError(f"at {self._now_s:.3f} s nothing is scheduled: {self._waiting()}")
        if when_s > self._now_s:
            self._now_s = when_s
            self._standing = 0
            if when_s > self._limit_s:
                raise LivelockError(f"not done after {self._limit_s} s: {self._waiting()}")

    def _count_turn(self) -> None:
        self._standing += 1
        self._window_iterations += 1
        if self._now_s >= self._window_ends_s:
            self._window_ends_s = self._now_s + BUSY_WINDOW_S
            self._window_iterations = 0
        elif self._window_iterations > BUSY_ITERATIONS_MAX:
            raise LivelockError(f"somebody spins at {self._now_s:.3f} s: {self._waiting()}")
        elif self._standing > ITERATIONS_MAX:
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

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def run_in_executor(self, *_: object, **__: object) -> NoReturn:
        raise RuntimeError("a thread in the simulation: its order would not be the seed's")


def _host_of(handle: _Handle) -> str:
    return handle._context.get(HOST, "")


def run(coro: Coroutine[Any, Any, T], limit_s: float = VIRTUAL_TIME_MAX_S) -> T:
    """Runs to its end in virtual time. The seed belongs to the World that `coro` makes."""
    loop = SimLoop(limit_s)
    try:
        result = loop.run_until_complete(coro)
        if loop.unseen:
            raise UnseenError("; ".join(loop.unseen))
        return result
    finally:
        _end_tasks(loop)
        loop.close()


def _note_unseen(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, SimLoop)
    if len(loop.unseen) < UNSEEN_MOST:
        who = context.get("future") or context.get("handle") or ""
        loop.unseen.append(f"{context['message']} {who} {context.get('exception')!r}")


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
        self._waiters: dict[asyncio.Future[bool], None] = {}

    def fire(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(True)

    async def wait(self) -> None:
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    async def wait_for(self, timeout_s: float) -> bool:
        """Whether it fired in time."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(timeout_s, _expire, waiter)
        self._waiters[waiter] = None
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


class SimClock:
    """ports.Clock. `skew_s` says how far this host's wall clock is off now."""

    def __init__(self, rng: random.Random, skew_s: Callable[[], float] = lambda: 0.0) -> None:
        self._rng = rng
        self._skew_s = skew_s
        self._loop: asyncio.AbstractEventLoop | None = None

    def now_s(self) -> float:
        return EPOCH_S + self.monotonic_s() + self._skew_s()

    def monotonic_s(self) -> float:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)

    def new_token(self, digits: int) -> str:
        return f"{self._rng.getrandbits(4 * digits):0{digits}x}"
