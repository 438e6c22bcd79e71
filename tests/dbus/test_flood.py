"""Who may only look cannot keep vastskyd from its work: the loop that answers calls also hears
other hosts and holds the volumes."""

import asyncio
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable

import pytest
from dbus_next.aio.message_bus import MessageBus as CallersBus
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, Variant

from tests.dbus.conftest import Call
from tests.dbus.somebody_else import LIMIT_S
from vastskyd.dbus.messages import LENGTH_MAX_BYTES, BusType, MessageBus
from vastskyd.dbus.paths import BUS_NAME, ROOT

PEER = "org.freedesktop.DBus.Peer"
MANY = 500
# As in somebody_else: as another program sends it. It prints the error's name.
_LONG_CALL = """
import asyncio
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, Variant
async def main():
    bus = await MessageBus({address!r}).connect()
    long = [Variant("y", 1)] * {count}
    print(flush=True)
    reply = await bus.call(Message(destination={bus_name!r}, path={path}, interface={peer!r},
        member="Ping", signature="av", body=[long]))
    print(reply.error_name)
asyncio.run(main())
"""


class Turns:
    """How often the loop comes round, and how many messages came between two times."""

    def __init__(self) -> None:
        self.messages = 0
        self.most = 0
        self._task = asyncio.create_task(self._count())

    async def _count(self) -> None:
        before = self.messages
        while True:
            await asyncio.sleep(0)
            self.most = max(self.most, self.messages - before)
            before = self.messages

    def heard(self, message: Message) -> None:
        self.messages += message.message_type is MessageType.METHOD_CALL

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def test_a_flood_of_calls_leaves_time_for_all_else(bus_address: str) -> None:
    bus = await MessageBus(bus_address, BusType.SYSTEM).connect()
    caller = await CallersBus(bus_address).connect()
    turns = Turns()
    bus.add_message_handler(turns.heard)
    for _ in range(MANY):
        await caller.send(
            Message(
                destination=bus.unique_name or "", path=ROOT, interface=PEER, member="Ping",
                flags=MessageFlag.NO_REPLY_EXPECTED,
            )
        )  # fmt: skip
    async with asyncio.timeout(LIMIT_S):
        while turns.messages < MANY:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await turns.end()
    assert turns.most <= 2
    for each in (caller, bus):
        each.disconnect()  # type: ignore[no-untyped-call]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is read of variants."""
    found: list[object] = []

    def noted(kind: SignatureTree, given: object) -> Variant:
        found.append(given)
        return Variant(kind, given)

    monkeypatch.setattr("dbus_next._private.unmarshaller.Variant", noted)
    return found


def sent(address: str, path: str, count: int) -> Awaitable[Process]:
    program = _LONG_CALL.format(
        address=address, bus_name=BUS_NAME, peer=PEER, path=path, count=count
    )
    return asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)


async def test_a_call_that_is_too_long_is_refused_unread(
    call: Call, bus_address: str, read: list[object]
) -> None:
    process = await sent(bus_address, "'/'", 100_000)
    said, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert said.decode().split() == ["org.freedesktop.DBus.Error.LimitsExceeded"]
    assert len(read) < 100
    assert (await call("Ping", "", [], PEER)).body == []


async def test_of_a_header_that_is_too_long_nothing_is_read(
    call: Call, bus_address: str, read: list[object]
) -> None:
    process = await sent(bus_address, "'/' + 'x' * 3_000_000", 1)
    try:
        async with asyncio.timeout(LIMIT_S):
            assert process.stdout is not None
            await process.stdout.readline()
        for _ in range(10):
            assert (await call("Ping", "", [], PEER)).body == []
            await asyncio.sleep(0.1)
    finally:
        process.kill()
        await process.wait()
    assert len(read) < 1000
    assert all(len(str(each)) < LENGTH_MAX_BYTES for each in read)


async def test_the_longest_that_is_read(call: Call) -> None:
    reply = await call("Status", body=[{"x" * (LENGTH_MAX_BYTES // 2): Variant("b", True)}])
    assert reply.error_name == "org.vastsky.Vastsky1.Error.Invalid"


async def test_an_answer_may_be_as_long_as_it_is(bus_address: str) -> None:
    """It is of one who was asked."""
    bus = await MessageBus(bus_address, BusType.SYSTEM).connect()
    server = await CallersBus(bus_address).connect()
    long = "x" * (2 * LENGTH_MAX_BYTES)
    server.add_message_handler(lambda call: Message.new_method_return(call, "s", [long]))
    reply = await bus.call(
        Message(destination=server.unique_name or "", path="/", interface=PEER, member="Ping")
    )
    assert reply is not None
    assert reply.body == [long]
    for each in (server, bus):
        each.disconnect()  # type: ignore[no-untyped-call]
