"""Calls in flight: no user, nor all of them together, keep root from being answered."""

import asyncio
import subprocess
import sys
from contextlib import ExitStack

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message

from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.private_bus import private_bus
from tests.dbus.somebody_else import LIMIT_S, NOBODY, needs_root, reachable_directory
from vastskyd.core import api
from vastskyd.dbus.errors import ProtocolError
from vastskyd.dbus.inflight import (
    MAX_CALLS,
    MAX_CALLS_EACH,
    MAX_CALLS_USER,
    MAX_CALLS_USERS,
    InFlight,
)
from vastskyd.dbus.interfaces import JOB, MANAGER
from vastskyd.dbus.paths import BUS_NAME, ROOT, Kind, Place
from vastskyd.dbus.server import serve


def let_in(calls: InFlight, stack: ExitStack, uid: int, times: int) -> None:
    for _ in range(times):
        stack.enter_context(calls.of_user(uid, is_root=uid == 0))


def refused(calls: InFlight, uid: int) -> str:
    with pytest.raises(ProtocolError) as caught, calls.of_user(uid, is_root=uid == 0):
        pass
    assert caught.value.name == "org.freedesktop.DBus.Error.LimitsExceeded"
    return caught.value.message


def test_a_user_has_a_quarter() -> None:
    calls = InFlight()
    with ExitStack() as stack:
        let_in(calls, stack, 1000, MAX_CALLS_USER)
        assert "uid 1000" in refused(calls, 1000)
        assert "wait for jobs" in refused(calls, 1000)
        let_in(calls, stack, 1001, 1)
    let_in(calls, ExitStack(), 1000, MAX_CALLS_USER)  # those before have ended


def test_there_is_room_for_root_whatever_the_others_do() -> None:
    calls = InFlight()
    with ExitStack() as stack:
        for uid in range(1000, 1000 + MAX_CALLS_USERS // MAX_CALLS_USER):
            let_in(calls, stack, uid, MAX_CALLS_USER)
        assert "as root" in refused(calls, 2000)
        let_in(calls, stack, 0, MAX_CALLS - MAX_CALLS_USERS)
        assert "try again" in refused(calls, 0)


def test_root_alone_may_have_all() -> None:
    calls = InFlight()
    with ExitStack() as stack:
        let_in(calls, stack, 0, MAX_CALLS)
        refused(calls, 0)
        refused(calls, 1000)


def test_a_connection_has_a_bound_of_its_own() -> None:
    calls = InFlight()
    for _ in range(MAX_CALLS_EACH):
        calls.come(":1.7")
    with pytest.raises(ProtocolError, match="of this connection: wait"):
        calls.come(":1.7")
    calls.come(":1.8")
    calls.gone(":1.7")
    calls.come(":1.7")


# As in somebody_else. It prints how many calls were refused, when those that were not still wait.
_PROGRAM = """
import asyncio, os
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message
os.setgid({nobody}); os.setuid({nobody})
async def main():
    buses = [await MessageBus({address!r}).connect() for _ in range(8)]
    waiting = {{
        asyncio.ensure_future(bus.call(Message(destination={bus_name!r}, path={job!r},
            interface={interface!r}, member="Wait", signature="da{{sv}}", body=[30.0, {{}}])))
        for bus in buses for _ in range({each})
    }}
    refused = 0
    while len(waiting) > {left}:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            assert each.result().error_name == "org.freedesktop.DBus.Error.LimitsExceeded"
            refused += 1
    print(refused, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@needs_root
async def test_a_user_who_waits_on_all_connections_does_not_lock_root_out(
    cluster: FakeCluster,
) -> None:
    cluster.gate = asyncio.Event()
    with reachable_directory() as directory, private_bus(directory) as address:
        server = await serve(cluster, address)
        program = _PROGRAM.format(
            nobody=NOBODY, address=address, bus_name=BUS_NAME, each=MAX_CALLS_EACH,
            job=Place(Kind.JOB, "j1").path, interface=JOB.name, left=MAX_CALLS_USER,
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=subprocess.PIPE
        )
        bus = await MessageBus(address).connect()
        try:
            assert process.stdout is not None
            said = await asyncio.wait_for(process.stdout.readline(), LIMIT_S)
            assert int(said) == 8 * MAX_CALLS_EACH - MAX_CALLS_USER
            assert sum(isinstance(each, api.ShowJob) for each in cluster.asked) <= MAX_CALLS_USER
            cluster.gate.set()
            reply = await bus.call(
                Message(
                    destination=BUS_NAME, path=ROOT, interface=MANAGER.name, member="Status",
                    signature="a{sv}", body=[{}],
                )
            )  # fmt: skip
            assert reply is not None
            assert reply.message_type is MessageType.METHOD_RETURN
        finally:
            process.kill()
            await process.wait()
            bus.disconnect()  # type: ignore[no-untyped-call]
            await server.close()
