"""The listening side: every connection is counted from the moment it is accepted, has little
time to show what it is, and becomes a session, a host that joins, or nothing."""

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

from vastskyd.core.api import Join, Joined
from vastskyd.core.errors import (
    DeniedError,
    FailedError,
    InvalidError,
    UnreachableError,
    VastskyError,
)
from vastskyd.core.ids import NodeId, node_id
from vastskyd.core.model import Record
from vastskyd.core.reaching import PORT_MAX, own_address
from vastskyd.wire.framing import FrameError, Request, decode_message
from vastskyd.wire.hello import Identity, Peer, welcome
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.messages import (
    Ca,
    FetchCa,
    Purpose,
    decode_anonymous_request,
    encode_error,
    encode_result,
    is_anonymous_method,
)
from vastskyd.wire.once import OnceLog
from vastskyd.wire.stream import FrameStream, accept_stream, peer_address
from vastskyd.wire.tls import NodeTls

OnJoin = Callable[[Join, str], Awaitable[Joined]]


@dataclass(frozen=True)
class Reception:
    """How accepted connections are received: `tls` gives the current contexts, `admit` says
    whether a certified node is still a member, `adopt` takes over a stream after its hello.
    `on_join` is there on the manager only."""

    me: Identity
    limits: WireLimits
    log: OnceLog
    tls: Callable[[], NodeTls]
    admit: Callable[[NodeId], bool]
    adopt: Callable[[FrameStream, Peer], object]
    on_join: OnJoin | None


class Acceptor:
    """Listens from `open` to `close`."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._limits = reception.limits
        self._log = reception.log
        self._tasks: set[asyncio.Task[None]] = set()
        self._unauthenticated: Counter[str] = Counter()
        self._anonymous = 0
        self._listener: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self.port = 0

    def open(self, host: str, port: int) -> None:
        """`host` empty: all addresses, IPv6 and IPv4. OSError if the port is taken."""
        self._listener = _listen(host, port, self._limits.backlog)
        self.port = self._listener.getsockname()[1]
        self._resume(self._listener)

    async def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        if self._pause is not None:
            self._pause.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _resume(self, listener: socket.socket) -> None:
        # Not loop.sock_accept: cancelled at the wrong moment, it loses an accepted connection.
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, name = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it is gone already
            return
        except OSError as error:
            self._log.trouble("accept", "listener", f"cannot accept: {error}")
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._pause = loop.call_later(self._limits.accept_pause_s, self._resume, listener)
            return
        connection.setblocking(False)
        address = peer_address(name)
        if self._is_full(address):
            self._log.trouble("refused", address, "too many connections without a hello")
            connection.close()
            return
        self._unauthenticated[address] += 1
        self._spawn(self._receive(connection, address), f"receiving {address}")

    def _is_full(self, address: str) -> bool:
        if self._unauthenticated[address] >= self._limits.unauthenticated_per_address:
            return True
        return self._unauthenticated.total() >= self._limits.unauthenticated

    async def _receive(self, connection: socket.socket, address: str) -> None:
        """Ends when the connection is closed or has become a session."""
        try:
            stream = await accept_stream(connection, self._reception.tls().server, self._limits)
            adopted = False
            try:
                adopted = await self._introduce(stream)
            finally:
                if not adopted:
                    await stream.close()
        except VastskyError as error:
            self._log.trouble("refused", address, error.message)
        except Exception:  # noqa: BLE001 - told in the log; others must still be received
            self._log.bug("accept-bug", address, "receiving a connection failed")
        finally:
            self._unauthenticated[address] -= 1
            self._unauthenticated += Counter()  # drops the zeros: addresses must not pile up

    async def _introduce(self, stream: FrameStream) -> bool:
        """True: it has become a session."""
        certified = stream.peer_node()
        if certified is None:
            await self._serve_anonymous(stream)
            return False
        try:
            async with asyncio.timeout(self._limits.hello_s):
                request = await _receive_request(stream, self._limits.hello_s)
                peer, purpose = await welcome(
                    stream,
                    request,
                    self._reception.me,
                    certified,
                    self._reception.admit,
                    self._limits,
                )
        except TimeoutError as error:
            raise UnreachableError("said no hello in time") from error
        if purpose is Purpose.PROBE:
            return False
        self._reception.adopt(stream, peer)
        return True

    # --- hosts without a certificate ---

    async def _serve_anonymous(self, stream: FrameStream) -> None:
        if self._anonymous >= self._limits.anonymous:
            raise DeniedError("too many hosts without a certificate at once")
        self._anonymous += 1
        try:
            async with asyncio.timeout(self._limits.anonymous_s):
                await self._serve_anonymous_request(await self._request(stream), stream)
                for _ in range(self._limits.anonymous_requests - 1):
                    try:
                        request = await self._request(stream)
                    except UnreachableError:  # it has what it came for
                        return
                    await self._serve_anonymous_request(request, stream)
        except TimeoutError as error:
            raise UnreachableError("took too long without a certificate") from error
        finally:
            self._anonymous -= 1

    async def _request(self, stream: FrameStream) -> Request:
        return await _receive_request(stream, self._limits.anonymous_s)

    async def _serve_anonymous_request(self, request: Request, stream: FrameStream) -> None:
        limit_bytes = self._limits.frame_bytes
        try:
            if not is_anonymous_method(request.method):
                raise DeniedError(
                    f"{request.method} needs a certificate of this cluster",
                    hint="join the cluster first, with `vastskyctl join TOKEN`",
                )
            record = decode_anonymous_request(request.method, request.params)
            answer = await self._answer_anonymous(record, stream.address)
        except VastskyError as error:
            await stream.send(encode_error(request.id, error, limit_bytes))
            raise
        await stream.send(encode_result(request.id, answer, limit_bytes))

    async def _answer_anonymous(self, request: Record, address: str) -> Record:
        on_join = self._reception.on_join
        if on_join is None:
            raise DeniedError(
                "this node is not the manager",
                hint="make a new token, which names it: `vastskyctl cluster token`",
            )
        if isinstance(request, FetchCa):
            return Ca(ca_pem=self._reception.tls().ca_pem)
        if not isinstance(request, Join):
            raise TypeError(f"{type(request).__name__} is no anonymous request")
        _check_join(request)
        try:
            joined = await on_join(request, address)
        except VastskyError:
            raise
        except Exception as error:
            self._log.bug("join-bug", address, f"the join of {request.node} failed")
            raise FailedError(
                "internal error", hint="`journalctl -u vastskyd` on the manager says more"
            ) from error
        self._log.news("joined", address, f"joined as node {joined.node}")
        return joined


async def _receive_request(stream: FrameStream, idle_s: float) -> Request:
    message = decode_message(await stream.receive(idle_s))
    if not isinstance(message, Request):
        raise FrameError("something else than a request")
    return message


def _check_join(request: Join) -> None:
    node_id(request.node)
    if not request.addresses or not 1 <= request.port <= PORT_MAX:
        raise InvalidError("a node needs an address and a port")
    for address in request.addresses:
        own_address(address)


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=backlog)
    else:
        listener = _listen_everywhere(port, backlog)
    listener.setblocking(False)
    return listener


def _listen_everywhere(port: int, backlog: int) -> socket.socket:
    if not socket.has_dualstack_ipv6():
        return socket.create_server(("", port), backlog=backlog)
    return socket.create_server(
        ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
    )
