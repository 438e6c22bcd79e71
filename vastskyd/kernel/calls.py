"""Kernel calls that may sleep: made in a process apart, and waited for no longer than a bound.

What is to be called goes there as a pickle: a function of a module, with its arguments by
functools.partial.
"""

import asyncio
import itertools
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from vastskyd.core.errors import DeviceError, LateError
from vastskyd.kernel.apart import FRAME_MAX_BYTES, HEADER, Apart

T = TypeVar("T")

# More calls than this asleep in the kernel means that something is badly wrong: refuse, so that
# they do not grow without bound.
STUCK_MAX = 64

_REAP_PAUSES_S = (0, 0.01, 0.03, 0.1, 0.3)


class Calls(Protocol):
    async def call(self, act: Callable[[], T], timeout_s: float, what: str, *, lane: str = "") -> T:
        """`act()`, elsewhere. LateError naming `what` if it takes longer than `timeout_s`; it
        may still complete afterwards. Until it does, further calls in the same `lane` (a
        device's name, say) are refused, so that a device that is asked again and again does not
        collect sleeping calls."""
        ...

    def at_work(self, lane: str) -> bool:
        """Whether a call in the lane has not returned, be it that its caller has gone."""
        ...


@dataclass
class _Call:
    answer: "asyncio.Future[Any]"
    lane: str
    what: str
    late: bool = False


class CallsApart:
    """Calls by way of a process that was started for them. As a context, for as long as an event
    loop runs; the process ends with it."""

    def __init__(self, process: Apart) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._sleeping: dict[int, _Call] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._hearing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        reader, self._writer = await asyncio.open_connection(sock=self._process.channel)
        self._hearing = asyncio.create_task(self._hear(reader), name="kernel calls")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
        if self._writer is not None:
            self._writer.close()
        await self._reap()

    async def _reap(self) -> None:
        """Unless something sleeps there: then it is left to init."""
        for pause_s in _REAP_PAUSES_S:
            await asyncio.sleep(pause_s)
            if os.waitpid(self._process.pid, os.WNOHANG) != (0, 0):  # noqa: ASYNC222  # no waiting
                return

    async def ended(self) -> None:
        """DeviceError once the process has ended: without it nothing can be done here."""
        assert self._hearing is not None  # noqa: S101  # asked within the context
        await asyncio.shield(self._hearing)
        raise _gone()

    def at_work(self, lane: str) -> bool:
        return any(call.lane == lane for call in self._sleeping.values())

    def _late(self, lane: str) -> _Call | None:
        calls = self._sleeping.values()
        return next((call for call in calls if lane and call.late and call.lane == lane), None)

    async def call(self, act: Callable[[], T], timeout_s: float, what: str, *, lane: str = "") -> T:
        if (earlier := self._late(lane)) is not None:
            raise LateError(f"{what}: an earlier call has not returned: {earlier.what}")
        if len(self._sleeping) >= STUCK_MAX:
            raise DeviceError(f"{what}: {STUCK_MAX} earlier kernel calls have not returned")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        call = _Call(answer, lane, what)
        self._ask(act, call)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            if answer.done() and not answer.cancelled():
                raise  # the act's own TimeoutError
            call.late = True
            raise LateError(
                f"{what}: the kernel did not answer within {timeout_s:g} s",
                hint="I/O may be held below it: `vastskyctl status --local` says for what",
            ) from error

    def _ask(self, act: Callable[[], object], call: _Call) -> None:
        """The frame waits in this program, if need be, not the caller: there are few, and all are
        bounded."""
        if self._writer is None or self._hearing is None or self._hearing.done():
            raise _gone()
        frame = pickle.dumps(act)
        if len(frame) > FRAME_MAX_BYTES:
            raise DeviceError(f"a kernel call with {len(frame)} bytes is too long")
        number = next(self._numbers)
        self._sleeping[number] = call
        self._writer.write(HEADER.pack(number, len(frame)) + frame)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                number, length = HEADER.unpack(await reader.readexactly(HEADER.size))
                well, answer = pickle.loads(await reader.readexactly(length))  # noqa: S301  # ours
                self._returned(number, well, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            for number in list(self._sleeping):
                self._returned(number, False, _gone())

    def _returned(self, number: int, well: bool, answer: Any) -> None:
        call = self._sleeping.pop(number)
        if call.answer.done():
            return  # its caller has gone
        if well:
            call.answer.set_result(answer)
        else:
            call.answer.set_exception(answer)


def _gone() -> DeviceError:
    return DeviceError("the process that makes kernel calls has ended")
