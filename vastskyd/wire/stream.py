"""One TLS connection as a stream of bounded frames, in both directions with time limits.

Everything that goes wrong below is told as an error by meaning: UnreachableError (lost, silent
or slow), DeniedError (the peer's certificate is not the right one), FrameError (junk).
"""

import asyncio
import ipaddress
import socket
import ssl
from typing import Final

from vastskyd.core.errors import DeniedError, UnreachableError
from vastskyd.core.ids import NodeId
from vastskyd.wire.framing import FrameDecoder
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.tls import peer_node

_CHUNK_BYTES: Final = 64 * 1024


class FrameStream:
    """`address` is the peer's IP address. `limit_bytes` bounds what is received; it starts as
    for a peer that has not said who it is."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: WireLimits
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._decoder = FrameDecoder(limits.unauthenticated_frame_bytes)
        self.address = peer_address(writer.get_extra_info("peername"))
        connection = writer.get_extra_info("socket")
        if connection is not None:
            set_socket_options(connection, limits)

    def trust(self) -> None:
        """The peer is a member of the cluster: larger frames are allowed from now on."""
        self._decoder.limit_bytes = self._limits.frame_bytes

    def peer_node(self) -> NodeId | None:
        """Whom the peer's verified certificate speaks for; None: it showed none."""
        tls: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return peer_node(tls.getpeercert() if tls is not None else None)

    async def receive(self, idle_s: float) -> bytes:
        """The next frame's content. The peer may be silent for `idle_s`, and take `frame_s` over
        one frame."""
        clock = asyncio.get_running_loop()
        began_s: float | None = None
        while (payload := self._decoder.next()) is None:
            if self._decoder.pending_bytes and began_s is None:
                began_s = clock.time()
            if began_s is not None and clock.time() - began_s > self._limits.frame_s:
                raise UnreachableError(
                    f"took longer than {self._limits.frame_s:g} s over one frame"
                )
            self._decoder.feed(await self._read(idle_s))
        return payload

    async def _read(self, idle_s: float) -> bytes:
        try:
            async with asyncio.timeout(idle_s):
                chunk = await self._reader.read(_CHUNK_BYTES)
        except TimeoutError as error:
            raise UnreachableError(f"was silent for {idle_s:g} s") from error
        except OSError as error:
            raise _lost(error) from error
        if not chunk:
            raise UnreachableError("closed the connection")
        return chunk

    async def send(self, frame: bytes) -> None:
        """Returns when the frame is with the kernel, or nearly."""
        try:
            async with asyncio.timeout(self._limits.drain_s):
                self._writer.write(frame)
                await self._writer.drain()
        except TimeoutError as error:
            raise UnreachableError(
                f"did not take a frame within {self._limits.drain_s:g} s"
            ) from error
        except OSError as error:
            raise _lost(error) from error

    def abort(self) -> None:
        """At once; what was not sent is lost."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """What was sent still leaves, if the peer takes it soon."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._limits.close_s):
                await self._writer.wait_closed()
        except OSError:  # TimeoutError too: either way nothing more will leave
            self.abort()
        except asyncio.CancelledError:
            self.abort()
            raise


def _lost(error: OSError) -> UnreachableError:
    return UnreachableError(f"the connection was lost: {error}")


async def open_stream(
    address: str, port: int, context: ssl.SSLContext, node: NodeId | None, limits: WireLimits
) -> FrameStream:
    """TCP and TLS to `node`. None goes only with a context that checks nothing."""
    where = at(address, port)
    try:
        async with asyncio.timeout(limits.connect_s):
            reader, writer = await asyncio.open_connection(
                address,
                port,
                ssl=context,
                server_hostname=node,
                ssl_handshake_timeout=limits.connect_s,
                ssl_shutdown_timeout=limits.close_s,
                limit=_CHUNK_BYTES,
            )
    except ssl.SSLCertVerificationError as error:
        raise DeniedError(
            f"{where} is not node {node} of this cluster: {error.verify_message}"
        ) from error
    except TimeoutError as error:
        raise UnreachableError(f"{where} did not answer in {limits.connect_s:g} s") from error
    except (OSError, ValueError) as error:
        raise UnreachableError(f"{where} cannot be reached: {error}") from error
    return FrameStream(reader, writer, limits)


async def accept_stream(
    connection: socket.socket, context: ssl.SSLContext, limits: WireLimits
) -> FrameStream:
    """TLS on an accepted connection, which is closed if that fails."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK_BYTES, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    try:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            connection,
            ssl=context,
            ssl_handshake_timeout=limits.connect_s,
            ssl_shutdown_timeout=limits.close_s,
        )
    except OSError as error:
        # asyncio: a peer that just goes away is an error without words.
        why = str(error) or "the connection was closed"
        raise UnreachableError(f"no TLS handshake: {why}") from error
    return FrameStream(reader, asyncio.StreamWriter(transport, protocol, reader, loop), limits)


def set_socket_options(connection: socket.socket, limits: WireLimits) -> None:
    """The kernel gives up on a peer as soon as the heartbeats would."""
    dead_after_ms = max(1, int(limits.dead_after_s * 1000))
    beat_s = max(1, int(limits.heartbeat_s))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, beat_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, beat_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, dead_after_ms)


def peer_address(name: object) -> str:
    """The IP address of a socket's peer name; an IPv4 address also if it came by IPv6."""
    if not isinstance(name, tuple) or not name:
        return "unknown"
    try:
        address = ipaddress.ip_address(str(name[0]).partition("%")[0])
    except ValueError:
        return str(name[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
