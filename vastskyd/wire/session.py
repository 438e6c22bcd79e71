"""A session: two nodes that know each other, each calling the other, until one is lost.

One task reads, one writes, one more serves each request in flight. Whatever ends the session
ends it in one way, `_end`: the connection is cut, all that wait are told, the tasks finish.
"""

import asyncio
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vastskyd.core.api import ANSWERS, method_of
from vastskyd.core.errors import BusyError, FailedError, UnreachableError, VastskyError
from vastskyd.core.model import Record
from vastskyd.ports import Handler
from vastskyd.wire.framing import (
    MESSAGE_ID_MAX,
    FrameError,
    Notification,
    Request,
    Response,
    decode_message,
)
from vastskyd.wire.hello import Peer
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.messages import (
    HEARTBEAT_METHOD,
    decode_answer,
    decode_session_request,
    encode_error,
    encode_heartbeat,
    encode_request,
    encode_result,
)
from vastskyd.wire.once import OnceLog
from vastskyd.wire.sendqueue import SendQueue
from vastskyd.wire.stream import FrameStream


class RunState(enum.Enum):
    NEW = "new"
    RUNNING = "running"
    ENDING = "ending"  # cut; its tasks are finishing
    ENDED = "ended"


@dataclass(frozen=True)
class SessionContext:
    """What all sessions of a node share. `ended` is called once for each session, as soon as it
    is cut."""

    handler: Handler
    limits: WireLimits
    log: OnceLog
    ended: Callable[["Session"], None]


class Session:
    """After the hello; `start` sets it going."""

    def __init__(self, stream: FrameStream, peer: Peer, context: SessionContext) -> None:
        self.peer = peer
        self.state = RunState.NEW
        self.reason = ""
        self._stream = stream
        self._context = context
        self._limits = context.limits
        self._queue = SendQueue(self._limits.send_queue_frames, self._limits.send_queue_bytes)
        self._slots = asyncio.Semaphore(self._limits.requests_in_flight)
        self._waiting: dict[int, asyncio.Future[Response]] = {}
        self._serving: dict[int, int] = {}
        self._serving_bytes = 0
        self._last_id = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.state = RunState.RUNNING
        self._task = asyncio.create_task(self._run(), name=f"session with {self.peer.node}")

    def disconnect(self, reason: str) -> None:
        """Returns at once, and may be called from anywhere, a handler too."""
        self._end(reason)
        if self._task is not None:
            self._task.cancel()

    def add_finished_callback(self, callback: Callable[["Session"], None]) -> None:
        if self._task is not None:
            self._task.add_done_callback(lambda _: callback(self))

    async def finished(self) -> None:
        """Returns when the session has ended and left no task."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def call(self, request: Record, timeout_s: float) -> Record:
        """The peer's typed answer; raises what it answered with, or UnreachableError."""
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                return await self._ask(request)
        except TimeoutError as error:
            raise UnreachableError(
                f"node {self.peer.node} did not answer {method_of(type(request))} "
                f"within {timeout_s:g} s"
            ) from error

    async def _ask(self, request: Record) -> Record:
        if self.state is not RunState.RUNNING:
            raise UnreachableError(f"the session with node {self.peer.node} ended: {self.reason}")
        message_id = self._next_id()
        frame = encode_request(message_id, request, self._limits.frame_bytes)
        waiting: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[message_id] = waiting
        try:
            await self._queue.put(frame)
            response = await waiting
        finally:
            del self._waiting[message_id]
            if waiting.done() and not waiting.cancelled():
                waiting.exception()  # seen, even if put was what failed
        return decode_answer(type(request), response)

    def _next_id(self) -> int:
        self._last_id = (self._last_id + 1) & MESSAGE_ID_MAX
        return self._last_id

    # --- the tasks ---

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(self._read(group)), name="session reader")
                group.create_task(self._until_lost(self._write()), name="session writer")
        except* VastskyError as lost:
            self._end(str(lost.exceptions[0]))
        except* Exception:  # noqa: BLE001 - told in the log
            self._context.log.bug("session-bug", self.peer.node, "the session failed")
        finally:
            self._end("stopped")
            self.state = RunState.ENDED

    async def _until_lost(self, task: Awaitable[None]) -> None:
        """Ends the session at once; the group may still have to wait for handlers."""
        try:
            await task
        except FrameError as error:
            self._context.log.trouble("junk", self.peer.node, f"cut off: {error.message}")
            self._end(error.message)
            raise
        except VastskyError as error:
            self._end(error.message)
            raise

    def _end(self, reason: str) -> None:
        if self.state not in (RunState.NEW, RunState.RUNNING):
            return
        self.state, self.reason = RunState.ENDING, reason
        self._queue.close()
        self._stream.abort()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(
                    UnreachableError(f"lost the session with node {self.peer.node}: {reason}")
                )
        self._context.ended(self)

    async def _write(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._limits.heartbeat_s):
                    frame = await self._queue.get()
            except TimeoutError:
                frame = encode_heartbeat()
            await self._stream.send(frame)

    async def _read(self, group: asyncio.TaskGroup) -> None:
        while True:
            payload = await self._stream.receive(self._limits.dead_after_s)
            message = decode_message(payload)
            match message:
                case Request():
                    self._take(message, len(payload), group)
                case Response():
                    self._settle(message)
                case Notification() if message.method != HEARTBEAT_METHOD:
                    self._warn("unknown-notification", f"sent {message.method!r}; ignored")

    def _settle(self, response: Response) -> None:
        waiting = self._waiting.get(response.id)
        if waiting is None or waiting.done():
            # Nobody waits any more: its caller's time was up.
            self._context.log.detail("late-answer", self.peer.node, f"answer {response.id} is late")
            return
        waiting.set_result(response)

    # --- serving ---

    def _take(self, request: Request, size_bytes: int, group: asyncio.TaskGroup) -> None:
        """Serves the request in a task of its own, or refuses it at once: reading never waits."""
        if request.id in self._serving:
            raise FrameError(f"request {request.id} was sent twice")
        try:
            self._check_load(size_bytes)
            record = decode_session_request(request.method, request.params)
        except VastskyError as error:
            self._warn("bad-request", error.message)
            if not self._queue.offer(encode_error(request.id, error, self._limits.frame_bytes)):
                raise UnreachableError("does not take its answers") from error
            return
        self._serving[request.id] = size_bytes
        self._serving_bytes += size_bytes
        group.create_task(self._serve(request.id, record), name=f"serving {request.method}")

    def _check_load(self, size_bytes: int) -> None:
        busy = len(self._serving) >= self._limits.requests_in_flight
        if busy or self._serving_bytes + size_bytes > self._limits.requests_in_flight_bytes:
            raise BusyError("too many requests in flight", hint="wait for answers, then ask again")

    async def _serve(self, message_id: int, request: Record) -> None:
        try:
            frame = await self._answer(message_id, request)
        finally:
            self._serving_bytes -= self._serving.pop(message_id)
        try:
            await self._queue.put(frame)
        except UnreachableError as error:
            self._context.log.detail("answer-lost", self.peer.node, error.message)

    async def _answer(self, message_id: int, request: Record) -> bytes:
        limit_bytes = self._limits.frame_bytes
        try:
            return encode_result(message_id, await self._handle(request), limit_bytes)
        except VastskyError as error:
            return encode_error(message_id, error, limit_bytes)
        except Exception:  # noqa: BLE001 - told in the log, and to the peer by meaning
            self._context.log.bug(
                "handler-bug", self.peer.node, f"{method_of(type(request))} failed"
            )
            failed = FailedError(
                "internal error", hint="`journalctl -u vastskyd` on that node says more"
            )
            return encode_error(message_id, failed, limit_bytes)

    async def _handle(self, request: Record) -> Record:
        """InvalidError of an answer that is too large reaches the peer as the handler's error."""
        limit_s = self._limits.handler_s
        try:
            async with asyncio.timeout(limit_s) as limit:
                answer = await self._context.handler(self.peer.node, request)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise FailedError(f"{method_of(type(request))} took over {limit_s:g} s") from error
        expected = ANSWERS[type(request)]
        if type(answer) is not expected:
            raise TypeError(f"answered {type(answer).__name__} instead of {expected.__name__}")
        return answer

    def _warn(self, event: str, message: str) -> None:
        self._context.log.trouble(event, self.peer.node, message)
