"""Two nodes, and one node with a peer that misbehaves."""

import asyncio
import resource
import socket
import struct
from typing import Any

import pytest

from tests.wire.lab import BOUND_S, HOST, M1, S1, S2, Lab, Raw, hello, quick, soon, until
from vastskyd.core.answers import VolumeList
from vastskyd.core.api import CreateToken, Done, Join, ListVolumes, Ping, ShowStatus, Token
from vastskyd.core.errors import (
    BY_CODE,
    FailedError,
    InvalidError,
    UnreachableError,
    VastskyError,
    from_code,
)
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record, Role

# --- calls ---


async def test_each_side_calls_the_other(lab: Lab) -> None:
    manager, storage = await lab.pair()
    assert await manager.hub.call(S1, Ping(), BOUND_S) == Done()
    assert await storage.hub.call(M1, ListVolumes(volume="v"), BOUND_S) == VolumeList(volumes=())
    assert storage.seen == [(M1, Ping())]
    assert manager.seen == [(S1, ListVolumes(volume="v"))]
    peer = manager.hub.peer(S1)
    assert peer is not None
    assert (peer.node, peer.boot_id, peer.version, peer.address) == (S1, "boot-s1", 1, HOST)


async def test_large_messages_pass(lab: Lab) -> None:
    manager, storage = await lab.pair()

    async def echo(request: Record) -> Record:
        assert isinstance(request, ListVolumes)
        return Token(token=request.volume)

    async def long_token(_: Record) -> Record:
        return Token(token="x" * 3_000_000)

    manager.answer = long_token
    answer = await storage.hub.call(M1, CreateToken(roles=(Role.HEAD,)), BOUND_S)
    assert answer == Token(token="x" * 3_000_000)
    with pytest.raises(InvalidError, match="bytes"):
        await storage.hub.call(M1, ListVolumes(volume="x" * 5_000_000), BOUND_S)
    manager.answer = echo  # an answer of the wrong type
    with pytest.raises(FailedError, match="internal error"):
        await storage.hub.call(M1, ListVolumes(volume="v"), BOUND_S)
    assert M1 in storage.hub.connected()


async def test_an_answer_that_is_too_large_is_told(lab: Lab) -> None:
    manager, storage = await lab.pair()

    async def too_long(_: Record) -> Record:
        return Token(token="x" * 5_000_000)

    manager.answer = too_long
    with pytest.raises(InvalidError, match="bytes"):
        await storage.hub.call(M1, CreateToken(roles=(Role.HEAD,)), BOUND_S)
    assert M1 in storage.hub.connected()


@pytest.mark.parametrize("code", BY_CODE)
async def test_errors_arrive_by_meaning(lab: Lab, code: str) -> None:
    manager, storage = await lab.pair()

    async def refuse(_: Record) -> Record:
        raise from_code(code, "so it is", "do that")

    manager.answer = refuse
    with pytest.raises(BY_CODE[code]) as caught:
        await storage.hub.call(M1, Ping(), BOUND_S)
    assert (caught.value.message, caught.value.hint) == ("so it is", "do that")


async def test_a_bug_of_the_handler_shows_none_of_its_insides(lab: Lab) -> None:
    manager, storage = await lab.pair()

    async def broken(_: Record) -> Record:
        raise ValueError("secret insides")

    manager.answer = broken
    for _ in range(3):
        with pytest.raises(FailedError) as caught:
            await storage.hub.call(M1, Ping(), BOUND_S)
        assert "secret" not in caught.value.message + caught.value.hint
    (record,) = lab.log.events("handler-bug")
    assert record.exc_info is not None
    assert vars(record)["PEER"] == S1


async def test_a_call_without_session_or_answer_is_unreachable(lab: Lab) -> None:
    manager, storage = await lab.pair()
    with pytest.raises(UnreachableError):
        await storage.hub.call(S2, Ping(), BOUND_S)

    async def never(_: Record) -> Record:
        await asyncio.Event().wait()
        return Done()

    manager.answer = never
    with pytest.raises(UnreachableError, match="did not answer ping"):
        await storage.hub.call(M1, Ping(), 0.05)
    manager.answer = None
    assert await storage.hub.call(M1, Ping(), BOUND_S) == Done()


async def test_a_handler_that_never_ends_is_ended(lab: Lab) -> None:
    manager, storage = await lab.pair(limits=quick(handler_s=0.05))

    async def never(_: Record) -> Record:
        await asyncio.Event().wait()
        return Done()

    manager.answer = never
    with pytest.raises(FailedError, match="took over"):
        await storage.hub.call(M1, Ping(), BOUND_S)


async def test_who_waits_is_told_when_the_session_is_lost(lab: Lab) -> None:
    manager, storage = await lab.pair()
    began = asyncio.Event()

    async def never(_: Record) -> Record:
        began.set()
        await asyncio.Event().wait()
        return Done()

    manager.answer = never
    call = asyncio.ensure_future(storage.hub.call(M1, Ping(), 60))
    await soon(began.wait())
    await manager.hub.stop()
    with pytest.raises(UnreachableError, match="lost the session"):
        await soon(call)


async def test_a_handler_may_disconnect_its_own_peer(lab: Lab) -> None:
    manager, storage = await lab.pair()

    async def throw_out(_: Record) -> Record:
        manager.hub.disconnect(S1, "thrown out")
        return Done()

    manager.answer = throw_out
    with pytest.raises(UnreachableError):
        await soon(storage.hub.call(M1, Ping(), BOUND_S))
    await until(lambda: manager.changes[:2] == [(S1, True), (S1, False)])


async def test_a_call_to_the_node_itself_reaches_its_handler(lab: Lab) -> None:
    manager = await lab.node(M1)
    assert await manager.hub.call(M1, Ping(), BOUND_S) == Done()
    assert manager.seen == [(M1, Ping())]
    assert manager.hub.connected() == frozenset()
    with pytest.raises(FailedError):
        await manager.hub.call(M1, ShowStatus(), BOUND_S)

    async def never(_: Record) -> Record:
        await asyncio.Event().wait()
        return Done()

    manager.answer = never
    with pytest.raises(UnreachableError):
        await manager.hub.call(M1, Ping(), 0.02)


# --- bounds ---


async def test_the_caller_keeps_to_the_bound_of_requests_in_flight(lab: Lab) -> None:
    manager, storage = await lab.pair(limits=quick(requests_in_flight=4))
    release, serving, most = asyncio.Event(), 0, 0

    async def count(_: Record) -> Record:
        nonlocal serving, most
        serving += 1
        most = max(most, serving)
        await release.wait()
        serving -= 1
        return Done()

    manager.answer = count
    calls = [asyncio.ensure_future(storage.hub.call(M1, Ping(), BOUND_S)) for _ in range(20)]
    await until(lambda: serving == 4)
    release.set()
    assert await soon(asyncio.gather(*calls)) == [Done()] * 20
    assert most == 4


async def test_a_peer_that_exceeds_the_bound_is_told_busy(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(requests_in_flight=4))
    release = asyncio.Event()

    async def wait(_: Record) -> Record:
        await release.wait()
        return Done()

    manager.answer = wait
    raw = await lab.greeted(manager)
    for number in range(1, 6):
        raw.send([0, 100 + number, "ping", [{}]])
    kind, number, error, _ = await raw.receive()
    assert (kind, number, error[0]) == (1, 105, "Busy")
    release.set()
    assert {(await raw.receive())[1] for _ in range(4)} == {101, 102, 103, 104}


async def test_the_bytes_of_requests_in_flight_are_bounded(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(requests_in_flight_bytes=1000))
    raw = await lab.greeted(manager)
    answer = await raw.ask("list_volumes", {"volume": "x" * 2000})
    assert answer[2][0] == "Busy"
    assert (await raw.ask("ping", {}))[2] is None


async def test_a_peer_that_does_not_read_is_cut(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(drain_s=0.2))

    async def long_token(_: Record) -> Record:
        return Token(token="x" * 3_000_000)

    manager.answer = long_token
    raw = await lab.greeted(manager)
    raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(20):
        raw.send([0, 100 + number, "create_token", [{"roles": ["head"]}]])
    await until(lambda: not manager.hub.connected())
    assert "did not take a frame" in lab.log.events("disconnected")[0].getMessage()


async def test_a_peer_that_floods_and_takes_no_answers_is_cut(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(send_queue_frames=4))
    raw = await lab.greeted(manager)
    for number in range(1000):
        raw.send([0, number, "no_such_thing", [{}]])
    assert await raw.is_cut()
    await until(lambda: not manager.hub.connected())
    assert len(lab.log.events("bad-request")) == 1


# --- bad peers ---


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("no_such_thing", [{}]),
        ("join", [{}]),
        ("fetch_ca", [{}]),
        ("hello", [{}]),
        ("ping", {}),
        ("ping", [{"more": 1}]),
        ("list_volumes", [{"volume": 7}]),
        ("show_job", [{"job": "j", "wait_s": "long"}]),
    ],
)
async def test_a_wrong_request_is_answered_and_the_session_goes_on(
    lab: Lab, method: str, params: Any
) -> None:
    manager = await lab.node(M1)
    raw = await lab.greeted(manager)
    for number in (101, 102, 103):
        raw.send([0, number, method, params])
        kind, answered, error, result = await raw.receive()
        assert (kind, answered, error[0], result) == (1, number, "Invalid", None)
    assert (await raw.ask("ping", {}))[2] is None
    assert manager.seen == [(S1, Ping())]
    assert len(lab.log.events("bad-request")) == 1


JUNK = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\0\0\0\0",
    struct.pack(">I", 4 * 2**20 + 1),
    struct.pack(">I", 3) + b"\xc1\xc1\xc1",
    struct.pack(">I", 1) + b"\xc0",
    struct.pack(">I", 5000) + b"\x91" * 5000,
]


@pytest.mark.parametrize("junk", JUNK)
async def test_junk_ends_a_session_and_is_logged_once(lab: Lab, junk: bytes) -> None:
    manager = await lab.node(M1)
    raw = await lab.greeted(manager)
    raw.write(junk)
    assert await raw.is_cut()
    await until(lambda: manager.changes == [(S1, True), (S1, False)])
    (record,) = lab.log.events("junk")
    assert (record.levelname, vars(record)["PEER"], record.exc_info) == ("WARNING", S1, None)


@pytest.mark.parametrize("junk", JUNK)
async def test_junk_instead_of_a_hello_ends_the_connection(lab: Lab, junk: bytes) -> None:
    manager = await lab.node(M1)
    for directory in (lab.enrol(S1), None):
        raw = await lab.raw(manager, directory=directory)
        raw.write(junk)
        assert await raw.is_cut()
    await until(lambda: len(lab.log.events("refused")) == 1)
    assert manager.changes == []


async def test_a_request_sent_twice_ends_the_session(lab: Lab) -> None:
    manager = await lab.node(M1)

    async def wait(_: Record) -> Record:
        await asyncio.Event().wait()
        return Done()

    manager.answer = wait
    raw = await lab.greeted(manager)
    raw.send([0, 7, "ping", [{}]])
    raw.send([0, 7, "ping", [{}]])
    assert await raw.is_cut()


async def test_answers_and_notifications_nobody_asked_for_do_nothing(lab: Lab) -> None:
    manager = await lab.node(M1)
    raw = await lab.greeted(manager)
    raw.send([1, 77, None, {}])
    raw.send([2, "no_such_thing", [{}]])
    assert (await raw.ask("ping", {}))[2] is None


@pytest.mark.parametrize("answer", [[7, None], [None, {"x": 1}], [["Busy"], None], [None, None]])
async def test_a_wrong_answer_is_a_failure_of_the_call_only(lab: Lab, answer: list[Any]) -> None:
    manager = await lab.node(M1)
    raw = await lab.greeted(manager)
    call = asyncio.ensure_future(manager.hub.call(S1, Ping(), BOUND_S))
    request = await raw.receive()
    raw.send([1, request[1], *answer])
    with pytest.raises(FailedError):
        await soon(call)
    assert S1 in manager.hub.connected()


async def test_a_session_that_asks_to_join_is_refused(lab: Lab) -> None:
    manager, storage = await lab.pair()
    request = Join(
        secret="",
        node=S2,
        roles=(),
        addresses=(),
        port=1,
        rack="",
        csr_pem="",
    )
    with pytest.raises(InvalidError):
        await storage.hub.call(M1, request, BOUND_S)
    assert manager.seen == []


# --- the hello ---


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node": "s2"}, "Denied"),
        ({"cluster": "another"}, "Conflict"),
        ({"versions": [2, 3]}, "Conflict"),
        ({"versions": []}, "Conflict"),
        ({"versions": "1"}, "Invalid"),
        ({"purpose": "fun"}, "Invalid"),
    ],
)
async def test_a_wrong_hello_is_refused(lab: Lab, changes: dict[str, Any], code: str) -> None:
    manager = await lab.node(M1)
    raw = await lab.raw(manager, directory=lab.enrol(S1))
    answer = await raw.ask("hello", hello(S1, **changes))
    assert answer[2][0] == code
    assert await raw.is_cut()
    assert manager.changes == []


async def test_a_later_hello_with_more_members_is_understood(lab: Lab) -> None:
    manager = await lab.node(M1)
    raw = await lab.raw(manager, directory=lab.enrol(S1))
    answer = await raw.ask("hello", hello(S1, versions=[1, 2], compression="zstd"))
    assert answer[3]["version"] == 1


async def test_nothing_comes_before_the_hello(lab: Lab) -> None:
    manager = await lab.node(M1)
    raw = await lab.raw(manager, directory=lab.enrol(S1))
    assert (await raw.ask("ping", {}))[2][0] == "Denied"
    assert await raw.is_cut()
    assert manager.seen == []


async def test_frames_before_the_hello_are_small(lab: Lab) -> None:
    manager = await lab.node(M1)
    raw = await lab.raw(manager, directory=lab.enrol(S1))
    raw.send([0, 1, "hello", [hello(S1, boot_id="x" * 20_000)]])
    assert await raw.is_cut()


async def test_a_removed_node_is_not_let_in(lab: Lab) -> None:
    members: set[NodeId] = {S1}
    manager = await lab.node(M1, admit=members.__contains__)
    raw = await lab.greeted(manager)
    members.clear()
    manager.hub.disconnect(S1, "removed")
    assert await raw.is_cut()
    again = await lab.raw(manager, directory=lab.enrol(S1))
    assert (await again.ask("hello", hello(S1)))[2][0] == "Denied"


# --- silence ---


async def test_heartbeats_keep_an_idle_session(lab: Lab) -> None:
    manager, storage = await lab.pair(limits=quick(heartbeat_s=0.02, dead_after_s=0.3))
    loop = asyncio.get_running_loop()
    end_s = loop.time() + 0.7
    await until(lambda: loop.time() > end_s)
    assert manager.changes == [(S1, True)]
    assert storage.changes == [(M1, True)]


async def test_a_silent_peer_is_dead(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(dead_after_s=0.2))
    raw = await lab.greeted(manager)
    assert await raw.is_cut()
    await until(lambda: manager.changes == [(S1, True), (S1, False)])
    assert "was silent" in lab.log.events("disconnected")[0].getMessage()


async def test_a_peer_that_beats_but_never_ends_its_frame_is_cut(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(frame_s=0.2))
    raw = await lab.greeted(manager)
    raw.write(struct.pack(">I", 10_000))
    cut = asyncio.ensure_future(raw.is_cut())
    for _ in range(1000):
        raw.write(b"x")
        done, _ = await asyncio.wait({cut}, timeout=0.02)
        if done:
            break
    assert cut.result()


async def test_half_open_connections_are_cut(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(connect_s=0.2, hello_s=0.2, anonymous_s=0.2))
    silent = await Raw.connect(manager.hub.port, None, None)
    assert await silent.is_cut()
    await silent.close()
    for directory in (lab.enrol(S1), None):
        assert await (await lab.raw(manager, directory=directory)).is_cut()
    again = await lab.greeted(manager)
    assert (await again.ask("ping", {}))[2] is None


async def test_half_open_connections_are_counted(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(unauthenticated_per_address=3))
    silent = [await Raw.connect(manager.hub.port, None, None) for _ in range(3)]
    refused = await Raw.connect(manager.hub.port, None, None)
    assert await refused.is_cut()
    for raw in silent:
        await raw.close()
    raw = await until_greeted(lab, manager)
    assert (await raw.ask("ping", {}))[2] is None
    await refused.close()


async def until_greeted(lab: Lab, node: Any) -> Raw:
    """A session, as soon as the node has noticed that its other connections are gone."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + BOUND_S
    while True:
        try:
            return await lab.greeted(node)
        except (OSError, VastskyError):
            assert loop.time() < deadline_s


async def test_sessions_are_counted(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(sessions=1))
    first = await lab.greeted(manager)
    second = await lab.raw(manager, directory=lab.enrol(S2))
    await second.ask("hello", hello(S2))
    assert await second.is_cut()
    assert manager.hub.connected() == {S1}
    newer = await lab.greeted(manager)  # in place of the first
    assert await first.is_cut()
    assert (await newer.ask("ping", {}))[2] is None


async def test_accepting_goes_on_after_the_system_ran_out_of_descriptors(lab: Lab) -> None:
    manager = await lab.node(M1, limits=quick(accept_pause_s=0.05))
    loop = asyncio.get_running_loop()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
            await loop.sock_connect(client, (HOST, manager.hub.port))
            await until(lambda: bool(lab.log.events("accept")))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    raw = await until_greeted(lab, manager)
    assert (await raw.ask("ping", {}))[2] is None
