"""Whatever a member of the cluster sends, its session ends cleanly and nothing else happens."""

import asyncio
import logging
import socket
import struct

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.lab import HOST, S1, quick, soon
from vastskyd.core.api import ANSWERS, BY_METHOD
from vastskyd.core.errors import BusyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record
from vastskyd.wire.hello import Peer
from vastskyd.wire.once import OnceLog
from vastskyd.wire.session import RunState, Session, SessionContext
from vastskyd.wire.stream import FrameStream

LIMITS = quick(log_window_s=60.0)

keys = st.text(max_size=6) | st.sampled_from(["volume", "job", "node", "port"])
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | keys
values = st.recursive(
    leaves | st.binary(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
methods = st.sampled_from([*BY_METHOD, "hello", "heartbeat", "no_such_thing"])
numbers = st.integers(0, 3)
messages = st.one_of(
    st.tuples(st.just(0), numbers, methods, st.lists(values, max_size=2)),
    st.tuples(st.just(1), numbers, values, values),
    st.tuples(st.just(2), methods, values),
    values,
)


def frame(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload


chunks = st.one_of(
    messages.map(lambda message: frame(msgspec.msgpack.encode(message))),
    st.binary(max_size=20).map(frame),
    st.binary(max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(chunks, max_size=8))
async def test_any_input_ends_a_session_cleanly(sent: list[bytes]) -> None:
    with socket.create_server((HOST, 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    reader, writer = await asyncio.open_connection(sock=ours)
    log = CountingLog()
    ended: list[Session] = []
    context = SessionContext(answer, LIMITS, log, ended.append)
    stream = FrameStream(reader, writer, LIMITS)
    stream.trust()
    session = Session(stream, Peer(S1, "boot", 1, "local"), context)
    session.start()
    with theirs:
        theirs.sendall(b"".join(sent))
        theirs.shutdown(socket.SHUT_WR)
        await soon(session.finished())
    assert ended == [session]
    assert session.state is RunState.ENDED
    assert log.bugs == []


async def answer(_: NodeId, request: Record) -> Record:
    assert type(request) in ANSWERS
    raise BusyError("not now")


class CountingLog(OnceLog):
    def __init__(self) -> None:
        super().__init__(logging.Logger("fuzz"), window_s=60, lines_per_window=100)
        self.bugs: list[str] = []

    def bug(self, event: str, peer: str, message: str) -> None:
        self.bugs.append(message)
