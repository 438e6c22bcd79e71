"""Sessions between daemons. Implements ports.Peers.

Every manager has a session with each other node while both daemons listen and reach one another.
Messages keep their order within a session; requests and answers cross as MessagePack and are
checked against the types of core.api.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from tests.sim.fake_network import FakeNetwork
from tests.sim.faults import DaemonCrash, Door
from vastskyd.core.api import ANSWERS, BY_METHOD, method_of
from vastskyd.core.errors import (
    FailedError,
    InvalidError,
    UnreachableError,
    VastskyError,
    from_code,
)
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record
from vastskyd.ports import Handler

HEARTBEAT_TIMEOUT_S = 3.0
MESSAGE_DELAY_S = (0.0005, 0.01)
CONNECT_DELAY_S = (0.02, 0.5)


@dataclass(frozen=True)
class _Message:
    """`method` empty: an answer. `error`: code, message, hint."""

    number: int
    method: str
    body: bytes = b""
    error: tuple[str, str, str] | None = None


class SimPeers:
    """One daemon's end of its sessions. `failed` hears of bugs: a handler's exception, say."""

    def __init__(
        self, node: NodeId, door: Door, powered: Callable[[], bool], failed: Callable[[str], None]
    ) -> None:
        self.node = node
        self.door = door
        self._powered = powered
        self._failed = failed
        self._handler: Handler | None = None
        self._changed: Callable[[NodeId, bool], None] | None = None
        self._sessions: dict[NodeId, Session] = {}
        self._pending: dict[tuple[NodeId, int], asyncio.Future[_Message]] = {}
        self._number = 0
        self.listening: Callable[[], None] = lambda: None
        self.reaches: Callable[[NodeId], bool] = lambda _: False

    # --- ports.Peers ---------------------------------------------------------------------------

    async def call(self, node: NodeId, request: Record, timeout_s: float) -> Record:
        kind = type(request)
        if kind not in ANSWERS:
            raise InvalidError(f"{kind.__name__} is not a request")
        await self.door.point(f"peers.call:{method_of(kind)}")
        session = self._sessions.get(node)
        if session is None:
            raise UnreachableError(f"{node} is not connected")
        self._number += 1
        key = (node, self._number)
        future = self._pending[key] = asyncio.get_running_loop().create_future()
        body = msgspec.msgpack.encode(request)
        session.send(node, _Message(self._number, method_of(kind), body))
        try:
            async with asyncio.timeout(timeout_s):
                answer = await future
        except TimeoutError:
            raise UnreachableError(f"{node} did not answer within {timeout_s:g} s") from None
        finally:
            self._pending.pop(key, None)
        self.door.check()
        if answer.error is not None:
            raise from_code(*answer.error)
        return _decode(ANSWERS[kind], answer.body)

    def connected(self) -> frozenset[NodeId]:
        self.door.check()
        return frozenset(self._sessions)

    async def probe(self, node: NodeId, addresses: tuple[str, ...], port: int) -> bool:
        await self.door.point("peers.probe")
        await asyncio.sleep(MESSAGE_DELAY_S[1])
        self.door.check()
        return self.reaches(node)

    def listen(self, handler: Handler, changed: Callable[[NodeId, bool], None]) -> None:
        self.door.check()
        self._handler = handler
        self._changed = changed
        self.listening()

    # --- the session's side -----------------------------------------------------------------------

    def ready(self) -> bool:
        return self.alive() and self._handler is not None

    def alive(self) -> bool:
        return not self.door.closed

    def powered(self) -> bool:
        return self._powered()

    def session_up(self, other: NodeId, session: "Session") -> None:
        self._sessions[other] = session
        self._tell(other, True)

    def session_down(self, other: NodeId) -> None:
        self._sessions.pop(other, None)
        for (node, _), future in list(self._pending.items()):
            if node == other and not future.done():
                future.set_exception(UnreachableError(f"the session with {other} ended"))
        self._tell(other, False)

    def _tell(self, other: NodeId, up: bool) -> None:
        if self.alive() and self._changed is not None:
            self.door.context.copy().run(self._changed, other, up)

    def receive(self, sender: NodeId, session: "Session", message: _Message) -> None:
        if not self.alive():
            return
        if message.method:
            self.door.spawn(self._answer(sender, session, message))
            return
        future = self._pending.get((sender, message.number))
        if future is not None and not future.done():
            future.set_result(message)

    async def _answer(self, sender: NodeId, session: "Session", message: _Message) -> None:
        if self._handler is None:
            return
        answer = _Message(message.number, "")
        try:
            await self.door.point(f"peers.handle:{message.method}")
            request = _decode(BY_METHOD[message.method], message.body)
            result = await self._handler(sender, request)
            body = msgspec.msgpack.encode(result)
            _decode(ANSWERS[type(request)], body)
            answer = _Message(message.number, "", body)
        except VastskyError as error:
            answer = _Message(message.number, "", b"", (error.code, error.message, error.hint))
        except (asyncio.CancelledError, DaemonCrash):
            raise
        except Exception as error:  # noqa: BLE001 - a bug of the handler's: told, and crossed
            self._failed(f"{self.node}: {message.method}: {error!r}")
            answer = _Message(message.number, "", b"", (FailedError.code, repr(error), ""))
        if self.alive():
            session.send(sender, answer)


def _decode(kind: type[Record], body: bytes) -> Record:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidError(f"{kind.__name__}: {error}") from error


class Session:
    """Between two daemons, from its first message until both sides gave it up."""

    def __init__(
        self, network: FakeNetwork, rng: random.Random, one: SimPeers, two: SimPeers
    ) -> None:
        self._network = network
        self._rng = rng
        self._ends = (one, two)
        self._up = {one.node: False, two.node: False}
        self._queues: dict[NodeId, asyncio.Queue[tuple[float, _Message]]] = {
            one.node: asyncio.Queue(),
            two.node: asyncio.Queue(),
        }

    def send(self, to: NodeId, message: _Message) -> None:
        due_s = asyncio.get_running_loop().time() + self._rng.uniform(*MESSAGE_DELAY_S)
        self._queues[to].put_nowait((due_s, message))

    async def run(self) -> None:
        """Until it has ended on both sides."""
        one, two = self._ends
        pumps = [asyncio.create_task(self._pump(a, b)) for a, b in ((one, two), (two, one))]
        for end, other in ((one, two), (two, one)):
            self._up[end.node] = True
            end.session_up(other.node, self)
        try:
            await self._until_broken()
        finally:
            for pump in pumps:
                pump.cancel()

    def _through(self) -> bool:
        one, two = self._ends
        reached = self._network.control_ok(one.node, two.node)
        return reached and one.powered() and two.powered()

    async def _pump(self, sender: SimPeers, to: SimPeers) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, message = await self._queues[to.node].get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            while not self._through():
                await self._network.changed.wait()
            if self._up[to.node]:
                to.receive(sender.node, self, message)

    async def _until_broken(self) -> None:
        loop = asyncio.get_running_loop()
        silent_since_s: float | None = None
        while True:
            if self._through():
                if not all(end.alive() for end in self._ends):
                    break  # the dead one's kernel says so
                silent_since_s = None
                await self._network.changed.wait()
                continue
            if silent_since_s is None:
                silent_since_s = loop.time()
            left_s = silent_since_s + HEARTBEAT_TIMEOUT_S - loop.time()
            if left_s <= 0:
                break
            await self._network.changed.wait_for(left_s)
        for end, other in (self._ends, self._ends[::-1]):
            await asyncio.sleep(self._rng.uniform(*MESSAGE_DELAY_S))
            self._up[end.node] = False
            end.session_down(other.node)


async def keep_session(
    network: FakeNetwork,
    rng: random.Random,
    ends: Callable[[], tuple[SimPeers | None, SimPeers | None]],
) -> None:
    """Connects two hosts' daemons, whichever run at the moment, again and again."""

    def both() -> tuple[SimPeers, SimPeers] | None:
        one, two = ends()
        if one is None or two is None or not (one.ready() and two.ready()):
            return None
        reached = network.control_ok(one.node, two.node) and one.powered() and two.powered()
        return (one, two) if reached else None

    while True:
        if both() is None:
            await network.changed.wait()
            continue
        await asyncio.sleep(rng.uniform(*CONNECT_DELAY_S))
        pair = both()
        if pair is not None:
            await Session(network, rng, *pair).run()
