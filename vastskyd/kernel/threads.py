"""Blocking kernel calls, away from the event loop and with a bound.

An ioctl, an open or a sysfs write may sleep in the kernel for as long as a leg's I/O is held. It
then sleeps in a daemon thread: the caller gets DeviceError after the bound, and neither the loop
nor the program's exit waits. (A ThreadPoolExecutor would be joined at exit.)
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from vastskyd.core.errors import DeviceError

T = TypeVar("T")

# More calls than this asleep in the kernel means that something is badly wrong: refuse, so that
# the daemon does not grow without bound.
STUCK_MAX = 64

_running = threading.Semaphore(STUCK_MAX)
_counting = threading.Lock()
_late: dict[str, str] = {}  # lane: what still sleeps there
_at_work: Counter[str] = Counter()  # lane: calls that have not returned


def at_work(lane: str) -> bool:
    """Whether a call in the lane has not returned, be it that its caller has gone."""
    return _at_work[lane] > 0


async def call(act: Callable[[], T], timeout_s: float, what: str, *, lane: str = "") -> T:
    """`act()` in a thread of its own. DeviceError naming `what` if it takes longer than
    `timeout_s`; it may still complete afterwards. Until it does, further calls in the same
    `lane` (a device's name, say) are refused, so that a device that is asked again and again
    does not collect sleeping threads."""
    if lane in _late:
        raise DeviceError(f"{what}: an earlier call has not returned: {_late[lane]}")
    running = _running
    if not running.acquire(blocking=False):
        raise DeviceError(f"{what}: {STUCK_MAX} earlier kernel calls have not returned")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    ended = threading.Event()

    def work() -> None:
        try:
            value = act()
        except BaseException as error:  # noqa: BLE001  # handed to the caller whatever it is
            settle = partial(answer.set_exception, error)
        else:
            settle = partial(answer.set_result, value)
        ended.set()
        _late.pop(lane, None)
        leave()  # first: who has the answer may count on it
        _settle(loop, answer, settle)

    def leave() -> None:
        with _counting:
            _at_work.subtract([lane])
            if not _at_work[lane]:
                del _at_work[lane]
        running.release()

    with _counting:
        _at_work[lane] += 1
    try:
        threading.Thread(target=work, name=f"kernel: {what}", daemon=True).start()
    except RuntimeError as error:
        leave()
        raise DeviceError(f"{what}: no thread can be started: {error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            return await answer
    except TimeoutError as error:
        if answer.done() and not answer.cancelled():
            raise  # the act's own TimeoutError
        if lane:
            _late[lane] = what
            if ended.is_set():  # it returned in this very moment
                _late.pop(lane, None)
        raise DeviceError(
            f"{what}: the kernel did not answer within {timeout_s:g} s",
            hint="I/O may be held below it: look at its legs",
        ) from error


def _settle(
    loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[T]", settle: Callable[[], None]
) -> None:
    def unless_gone() -> None:
        if not answer.done():
            settle()

    try:
        loop.call_soon_threadsafe(unless_gone)
    except RuntimeError:
        # The loop was closed while the kernel had the call; nobody is left to hear of it.
        return
