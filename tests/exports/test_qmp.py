"""The QMP client against servers of every kind of bad manners."""

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from vastskyd.core.errors import DeviceError, NotFoundError, UnreachableError
from vastskyd.exports import qmp as module
from vastskyd.exports.qmp import QmpError, QmpProtocolError, connect, listens

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'
TIMEOUT_S = 0.3


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[Path]:
    # pytest's own directories are longer than a socket's name may be.
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "qmp"

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                return
            finally:
                writer.close()

        listening = await asyncio.start_unix_server(once, path)
        try:
            yield path
        finally:
            listening.close()


def answering(*answers: bytes) -> Talk:
    """Greets, accepts capabilities, then gives these for the next command and waits."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        request = json.loads(await reader.readline())
        assert request["execute"] == "qmp_capabilities"
        writer.write(json.dumps({"return": {}, "id": request["id"]}).encode() + b"\r\n")
        await reader.readline()
        for answer in answers:
            writer.write(answer)
        await writer.drain()
        await reader.read()

    return talk


async def ask(path: Path) -> object:
    async with connect(path, TIMEOUT_S) as qmp:
        return await qmp.execute("query-block-exports", TIMEOUT_S)


async def test_an_answer_behind_events() -> None:
    event = b'{"event": "BLOCK_EXPORT_DELETED", "data": {}}\r\n'
    async with server(answering(event, event, b'{"id": 2, "return": [1]}\r\n')) as path:
        assert await ask(path) == [1]


async def test_an_answer_behind_a_greeting_meant_for_another() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING + GREETING)
        for number in (1, 2):
            await reader.readline()
            writer.write(b'{"id": %d, "return": [%d]}\r\n' % (number, number))

    async with server(talk) as path:
        assert await ask(path) == [2]


async def test_arguments_reach_the_server_with_hyphens() -> None:
    seen: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        for number in (1, 2):
            seen.append(await reader.readline())
            writer.write(b'{"id": %d, "return": {}}\r\n' % number)

    async with server(talk) as path, connect(path, TIMEOUT_S) as qmp:
        await qmp.execute("blockdev-del", TIMEOUT_S, node_name="x")
    assert json.loads(seen[1]) == {
        "execute": "blockdev-del",
        "id": 2,
        "arguments": {"node-name": "x"},
    }


async def test_a_refusal_keeps_qemus_words_and_class() -> None:
    answer = b'{"id": 2, "error": {"class": "GenericError", "desc": "Node is busy"}}\r\n'
    async with server(answering(answer)) as path:
        with pytest.raises(QmpError, match="refused query-block-exports: Node is busy") as caught:
            await ask(path)
    assert caught.value.kind == "GenericError"


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\r\n",
        b"[]\r\n",
        b"\xff\xfe\r\n",
        b'{"id": 3, "return": {}}\r\n',
        b'{"return": {}}\r\n',
        b'{"id": 2}\r\n',
        b'{"id": 2, "return": {}, "error": {}}\r\n',
        b'{"id": 2, "error": "no"}\r\n',
        b"[" * 100_000 + b"\r\n",
    ],
)
async def test_what_is_not_qmp_is_told(answer: bytes) -> None:
    async with server(answering(answer)) as path:
        with pytest.raises(QmpProtocolError):
            await ask(path)


async def test_a_line_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_MAX_BYTES", 1000)
    async with server(answering(b"x" * 100_000)) as path:
        with pytest.raises(QmpProtocolError, match="a line of more than"):
            await ask(path)


async def test_events_without_end_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVENTS_MAX", 10)
    async with server(answering(b'{"event": "X"}\r\n' * 50)) as path:
        with pytest.raises(QmpProtocolError, match="events and no answer"):
            await ask(path)


async def test_no_answer_and_half_an_answer_end_in_time() -> None:
    for answers in ((), (b'{"id": 2, "ret',)):
        async with server(answering(*answers)) as path:
            with pytest.raises(UnreachableError, match=r"within 0\.3 s"):
                await ask(path)


async def test_no_greeting_ends_in_time_and_the_server_is_still_seen() -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(silent) as path:
        with pytest.raises(UnreachableError, match="did not answer"):
            await ask(path)
        assert listens(path)


async def test_a_server_that_hangs_up() -> None:
    async def rude(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        return

    async with server(rude) as path:
        with pytest.raises(UnreachableError):
            await ask(path)


async def test_another_protocol() -> None:
    async def smtp(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"220": "ready"}\r\n')

    async with server(smtp) as path:
        with pytest.raises(QmpProtocolError, match="greeting"):
            await ask(path)


async def test_nobody_there_and_a_dead_servers_socket() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "qmp"
        assert not listens(path)
        with pytest.raises(NotFoundError):
            await ask(path)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        assert not listens(path)
        with pytest.raises(NotFoundError):
            await ask(path)


async def test_a_full_queue_is_waited_for_and_is_somebody() -> None:
    """Linux refuses a unix connection with EAGAIN while the queue is full."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as busy:
        path = Path(directory) / "qmp"
        busy.bind(str(path))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            assert listens(path)
            with pytest.raises(UnreachableError, match="did not answer"):
                await ask(path)


async def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        await ask(tmp_path / ("x" * 200))
