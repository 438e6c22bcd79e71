"""Nodes on the loopback, and a peer that speaks the protocol by hand, well or badly."""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from vastskyd.core.answers import VolumeList
from vastskyd.core.api import Done, Join, Joined, ListVolumes
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import Record
from vastskyd.wire.ca import CertificateAuthority, NodeKey
from vastskyd.wire.framing import FrameDecoder, encode_frame
from vastskyd.wire.hello import Identity
from vastskyd.wire.hub import HubOptions, PeerHub
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.tls import NodeTls, unverified_context

T = TypeVar("T")

CLUSTER = ClusterId("c0ffee00c0ffee00")
NOW_S = time.time()
HOST = "127.0.0.1"
BOUND_S = 5.0

M1 = NodeId("m1")
S1 = NodeId("s1")
S2 = NodeId("s2")

# Short enough that a test of a time limit takes a moment, long enough for a busy machine.
QUICK = WireLimits(
    connect_s=2.0,
    hello_s=2.0,
    heartbeat_s=0.2,
    dead_after_s=2.0,
    drain_s=1.0,
    close_s=0.2,
    reconnect_first_s=0.02,
    reconnect_max_s=0.1,
    stagger_s=0.1,
)


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Waits for the condition, at most BOUND_S."""
    deadline_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < deadline_s, f"never came true: {what or condition}"
        await asyncio.sleep(0.005)


async def soon(work: Awaitable[T]) -> T:
    return await asyncio.wait_for(work, BOUND_S)


class Recorder(logging.Handler):
    """Log records of vastskyd.wire."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def events(self, event: str) -> list[logging.LogRecord]:
        return [record for record in self.records if vars(record).get("EVENT") == event]


@dataclass
class Node:
    """A hub, with a handler that counts and can be told what to do."""

    hub: PeerHub
    seen: list[tuple[NodeId, Record]] = field(default_factory=list)
    changes: list[tuple[NodeId, bool]] = field(default_factory=list)
    answer: Callable[[Record], Awaitable[Record]] | None = None

    async def handle(self, node: NodeId, request: Record) -> Record:
        self.seen.append((node, request))
        if self.answer is not None:
            return await self.answer(request)
        return VolumeList(volumes=()) if isinstance(request, ListVolumes) else Done()

    def changed(self, node: NodeId, connected: bool) -> None:
        self.changes.append((node, connected))


class Lab:
    def __init__(self, ca: CertificateAuthority, directory: Path) -> None:
        self.ca = ca
        self.directory = directory
        self.log = Recorder()
        self._nodes: list[Node] = []
        self._raws: list[Raw] = []
        logger = logging.getLogger("vastskyd.wire")
        logger.addHandler(self.log)
        logger.setLevel(logging.DEBUG)

    async def close(self) -> None:
        logging.getLogger("vastskyd.wire").removeHandler(self.log)
        for raw in self._raws:
            await raw.close()
        for node in self._nodes:
            await node.hub.stop()

    def enrol(
        self, node: NodeId, *, ca: CertificateAuthority | None = None, now_s: float = NOW_S
    ) -> Path:
        """The node's directory with a certificate."""
        directory = self.directory / f"{node}-{len(list(self.directory.iterdir()))}"
        authority = ca or self.ca
        key = NodeKey.create()
        issued = authority.issue(key.csr_pem(), node, (HOST,), now_s)
        key.save(directory, issued, authority.certificate_pem)
        return directory

    async def node(
        self,
        node: NodeId,
        *,
        port: int = 0,
        limits: WireLimits = QUICK,
        directory: Path | None = None,
        cluster: ClusterId = CLUSTER,
        admit: Callable[[NodeId], bool] = lambda _: True,
        on_join: Callable[[Join, str], Awaitable[Joined]] | None = None,
    ) -> Node:
        hub = PeerHub(
            HubOptions(
                identity=Identity(cluster, node, f"boot-{node}"),
                tls_directory=directory or self.enrol(node),
                port=port,
                host=HOST,
                limits=limits,
                admit=admit,
                on_join=on_join,
            )
        )
        built = Node(hub)
        hub.listen(built.handle, built.changed)
        await hub.start()
        self._nodes.append(built)
        return built

    async def pair(self, *, limits: WireLimits = QUICK) -> tuple[Node, Node]:
        """m1, and s1 with a session to it."""
        manager, storage = await self.node(M1, limits=limits), await self.node(S1, limits=limits)
        storage.hub.keep(M1, (HOST,), manager.hub.port)
        await until(lambda: S1 in manager.hub.connected() and M1 in storage.hub.connected())
        return manager, storage

    async def raw(self, to: Node, *, directory: Path | None, server: NodeId = M1) -> "Raw":
        """A TLS connection to the node; without a directory, an anonymous one."""
        context = unverified_context() if directory is None else NodeTls.load(directory).client
        raw = await soon(Raw.connect(to.hub.port, context, None if directory is None else server))
        self._raws.append(raw)
        return raw

    async def greeted(self, to: Node, node: NodeId = S1) -> "Raw":
        """A raw session after its hello."""
        raw = await self.raw(to, directory=self.enrol(node))
        answer = await raw.ask("hello", hello(node))
        assert answer[2] is None, answer
        await until(lambda: node in to.hub.connected())
        return raw


def hello(node: NodeId, /, **changes: Any) -> dict[str, Any]:
    members = {
        "versions": [1],
        "cluster": CLUSTER,
        "node": node,
        "boot_id": "raw",
        "purpose": "session",
    }
    return {**members, **changes}


class Raw:
    """A peer by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = FrameDecoder(2**24)
        self._last_id = 0

    @staticmethod
    async def connect(port: int, context: ssl.SSLContext | None, server: NodeId | None) -> "Raw":
        reader, writer = await asyncio.open_connection(
            HOST, port, ssl=context, server_hostname=server
        )
        return Raw(reader, writer)

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, message: Any) -> None:
        self.write(encode_frame(msgspec.msgpack.encode(message), 2**24))

    async def receive(self) -> Any:
        """The next message that is no heartbeat."""
        while True:
            while (payload := self._decoder.next()) is None:
                chunk = await soon(self.reader.read(65536))
                if not chunk:
                    raise ConnectionError("closed")
                self._decoder.feed(chunk)
            message = msgspec.msgpack.decode(payload)
            if message[:2] != [2, "heartbeat"]:
                return message

    async def ask(self, method: str, params: Any) -> Any:
        self._last_id += 1
        self.send([0, self._last_id, method, [params]])
        return await self.receive()

    async def is_cut(self) -> bool:
        """The other side ended the connection, within the bound."""
        try:
            while True:
                await self.receive()
        except OSError:
            return True

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def quick(**changes: Any) -> WireLimits:
    return replace(QUICK, **changes)
