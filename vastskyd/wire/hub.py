"""All sessions of a node: the real side of `ports.Peers`."""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vastskyd.core.api import ANSWERS, method_of
from vastskyd.core.errors import BusyError, FailedError, UnreachableError, VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record
from vastskyd.ports import Handler
from vastskyd.wire.acceptor import Acceptor, OnJoin, Reception
from vastskyd.wire.dialer import backoff_s, first_stream
from vastskyd.wire.hello import Identity, Peer, greet
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.messages import Purpose
from vastskyd.wire.once import OnceLog
from vastskyd.wire.session import Session, SessionContext
from vastskyd.wire.stream import FrameStream, open_stream
from vastskyd.wire.tls import NodeTls

Changed = Callable[[NodeId, bool], None]


@dataclass(frozen=True)
class _Kept:
    """A node that a session is held with, and the task that dials it."""

    addresses: tuple[str, ...]
    port: int
    task: asyncio.Task[None]


@dataclass(frozen=True)
class HubOptions:
    """`host` empty: listen on all addresses. `admit` says whether a node with a valid certificate
    is (still) a member: certificates outlive removals. `on_join` is the manager's."""

    identity: Identity
    tls_directory: Path
    port: int
    host: str = ""
    admit: Callable[[NodeId], bool] = lambda _: True
    on_join: OnJoin | None = None
    limits: WireLimits = field(default_factory=WireLimits)
    draw: Callable[[], float] = secrets.SystemRandom().random


class PeerHub:
    """Call `listen`, then `start`. A call to the node itself goes to its own handler."""

    def __init__(self, options: HubOptions) -> None:
        self._options = options
        self._limits = options.limits
        self._me = options.identity
        self._log = OnceLog(
            logging.getLogger("vastskyd.wire"),
            window_s=options.limits.log_window_s,
            lines_per_window=options.limits.log_lines_per_window,
        )
        self._tls = NodeTls.load(options.tls_directory)
        self._context = SessionContext(self._handle, self._limits, self._log, self._ended)
        self._acceptor = Acceptor(
            Reception(
                me=self._me,
                limits=self._limits,
                log=self._log,
                tls=lambda: self._tls,
                admit=options.admit,
                adopt=self._adopt,
                on_join=options.on_join,
            )
        )
        self._handler: Handler | None = None
        self._changed: Changed | None = None
        self._sessions: dict[NodeId, Session] = {}
        self._ending: set[Session] = set()
        self._kept: dict[NodeId, _Kept] = {}
        self._dropped: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens, once started: the system's choice if the options say 0."""
        return self._acceptor.port

    async def start(self) -> None:
        """OSError if the port is taken."""
        self._acceptor.open(self._options.host, self._options.port)

    async def stop(self) -> None:
        """Ends all sessions; leaves no task and no socket."""
        await self._acceptor.close()
        for node in list(self._kept):
            self._stop_dialing(node)
        await asyncio.gather(*self._dropped, return_exceptions=True)
        for session in list(self._sessions.values()):
            session.disconnect("this node stops")
        for session in list(self._ending):
            await session.finished()

    def reload_tls(self) -> None:
        """New connections use what is in the directory now. On an error the old stays in use."""
        self._tls = NodeTls.load(self._options.tls_directory)

    # --- ports.Peers ---

    async def call(self, node: NodeId, request: Record, timeout_s: float) -> Record:
        if node == self._me.node:
            return await self._call_self(request, timeout_s)
        session = self._sessions.get(node)
        if session is None:
            raise UnreachableError(f"there is no session with node {node}")
        return await session.call(request, timeout_s)

    def connected(self) -> frozenset[NodeId]:
        return frozenset(self._sessions)

    def listen(self, handler: Handler, changed: Changed) -> None:
        self._handler = handler
        self._changed = changed
        for node in self._sessions:
            changed(node, True)

    # --- which sessions to keep ---

    def peer(self, node: NodeId) -> Peer | None:
        """What a connected node said of itself."""
        session = self._sessions.get(node)
        return None if session is None else session.peer

    def keep(self, node: NodeId, addresses: tuple[str, ...], port: int) -> None:
        """Hold a session with the node: dial it whenever there is none. Called again, it dials
        the new addresses from now on; a session that stands is left alone."""
        kept = self._kept.get(node)
        if kept is not None and (kept.addresses, kept.port) == (addresses, port):
            return
        self._stop_dialing(node)
        task = asyncio.create_task(self._keep(node, addresses, port), name=f"keeping {node}")
        self._kept[node] = _Kept(addresses, port, task)

    def forget(self, node: NodeId) -> None:
        """The end of `keep`, and of the session."""
        self._stop_dialing(node)
        self.disconnect(node, "no longer wanted")

    def disconnect(self, node: NodeId, reason: str) -> None:
        """Cuts the session, if there is one. The peer may come again unless `admit` refuses."""
        session = self._sessions.get(node)
        if session is not None:
            session.disconnect(reason)

    async def probe(self, node: NodeId, addresses: tuple[str, ...], port: int) -> bool:
        """Whether the node's vastskyd answers a hello now, at any of the addresses."""
        try:
            stream = await self._open(node, addresses, port)
            try:
                await greet(stream, self._me, node, Purpose.PROBE, self._limits)
            finally:
                stream.abort()
        except VastskyError as error:
            self._log.detail("probe", node, f"not reached: {error.message}")
            return False
        return True

    def _stop_dialing(self, node: NodeId) -> None:
        kept = self._kept.pop(node, None)
        if kept is not None:
            kept.task.cancel()
            self._dropped.add(kept.task)
            kept.task.add_done_callback(self._dropped.discard)

    async def _keep(self, node: NodeId, addresses: tuple[str, ...], port: int) -> None:
        loop = asyncio.get_running_loop()
        failures = turn = 0
        while True:
            began_s = loop.time()
            session = self._sessions.get(node)
            if session is None:
                # Another address first each time: one may answer TLS and yet be of no use.
                first = turn % max(1, len(addresses))
                session = await self._dial(node, addresses[first:] + addresses[:first], port)
                turn += 1
            if session is not None:
                await session.finished()
            lasted = session is not None and loop.time() - began_s > self._limits.dead_after_s
            await asyncio.sleep(
                backoff_s(0 if lasted else failures, self._limits, self._options.draw)
            )
            failures = 0 if lasted else failures + 1

    async def _dial(self, node: NodeId, addresses: tuple[str, ...], port: int) -> Session | None:
        try:
            stream = await self._open(node, addresses, port)
            try:
                peer = await greet(stream, self._me, node, Purpose.SESSION, self._limits)
                return self._adopt(stream, peer)
            except BaseException:
                stream.abort()
                raise
        except VastskyError as error:
            self._log.trouble("unreachable", node, error.message)
            return None

    async def _open(self, node: NodeId, addresses: tuple[str, ...], port: int) -> FrameStream:
        async def open_one(address: str) -> FrameStream:
            return await open_stream(address, port, self._tls.client, node, self._limits)

        return await first_stream(addresses, open_one, self._limits.stagger_s)

    # --- sessions come and go ---

    def _adopt(self, stream: FrameStream, peer: Peer) -> Session:
        """The newer session replaces the older: the peer would not have made it if the older
        were of use to it."""
        older = self._sessions.get(peer.node)
        if older is not None:
            older.disconnect("replaced by a newer session")
        elif len(self._sessions) >= self._limits.sessions:
            stream.abort()
            raise BusyError(f"there are {len(self._sessions)} sessions already")
        session = Session(stream, peer, self._context)
        self._sessions[peer.node] = session
        self._log.news("connected", peer.node, f"session from {peer.address}")
        session.start()
        self._tell(peer.node, True)
        return session

    def _ended(self, session: Session) -> None:
        node = session.peer.node
        self._ending.add(session)
        session.add_finished_callback(self._ending.discard)
        if self._sessions.get(node) is session:
            del self._sessions[node]
            self._log.news("disconnected", node, f"session ended: {session.reason}")
            self._tell(node, False)

    def _tell(self, node: NodeId, connected: bool) -> None:
        if self._changed is None:
            return
        try:
            self._changed(node, connected)
        except Exception:  # noqa: BLE001 - told in the log; the session must go on
            self._log.bug("changed-bug", node, "telling of a session failed")

    async def _handle(self, node: NodeId, request: Record) -> Record:
        if self._handler is None:
            raise BusyError("this node is starting", hint="ask again in a moment")
        return await self._handler(node, request)

    async def _call_self(self, request: Record, timeout_s: float) -> Record:
        method = method_of(type(request))
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._handle(self._me.node, request)
        except TimeoutError as error:
            raise UnreachableError(f"{method} was not answered within {timeout_s:g} s") from error
        if type(answer) is not ANSWERS.get(type(request)):
            raise FailedError(f"{method} was answered by {type(answer).__name__}")
        return answer
