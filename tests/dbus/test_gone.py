"""Who waits for a job and goes away keeps no place; what was begun for him goes on."""

import asyncio
from typing import Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message

from tests.dbus.conftest import Call
from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.somebody_else import LIMIT_S
from vastskyd.core import api
from vastskyd.dbus.interfaces import JOB, MANAGER
from vastskyd.dbus.paths import BUS_NAME, ROOT, Kind, Place
from vastskyd.dbus.server import DbusServer

WAITS = 20


def call_of(path: str, interface: str, member: str, signature: str, body: list[Any]) -> Message:
    return Message(
        destination=BUS_NAME, path=path, interface=interface, member=member, signature=signature,
        body=body,
    )  # fmt: skip


async def disconnect(bus: MessageBus, calls: list[asyncio.Task[Any]]) -> None:
    for each in calls:
        each.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    bus.disconnect()  # type: ignore[no-untyped-call]
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


async def until_idle(server: DbusServer) -> None:
    async with asyncio.timeout(LIMIT_S):
        while server._in_flight._users.total():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_wait_ends_with_its_caller(
    bus_address: str, server: DbusServer, cluster: FakeCluster, call: Call
) -> None:
    cluster.gate = asyncio.Event()  # never set
    bus = await MessageBus(bus_address).connect()
    wait = (Place(Kind.JOB, "j1").path, JOB.name, "Wait", "da{sv}", [30.0, {}])
    calls = [asyncio.create_task(bus.call(call_of(*wait))) for _ in range(WAITS)]
    await cluster.has_been_asked(api.ShowJob, WAITS)
    await disconnect(bus, calls)
    await until_idle(server)
    assert (await call("Ping", "", [], "org.freedesktop.DBus.Peer")).body == []


async def test_what_is_to_be_changed_is_not_left_half_done(
    bus_address: str, server: DbusServer, cluster: FakeCluster
) -> None:
    done = asyncio.Event()
    gate = asyncio.Event()

    async def init(request: api.InitCluster) -> None:
        cluster.asked.append(request)
        await gate.wait()
        done.set()
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "init", init)
        bus = await MessageBus(bus_address).connect()
        init_call = call_of(ROOT, MANAGER.name, "InitCluster", "sa{sv}", ["demo", {}])
        calls = [asyncio.create_task(bus.call(init_call))]
        await cluster.has_been_asked(api.InitCluster)
        await disconnect(bus, calls)
        await asyncio.sleep(0.2)
        gate.set()
        await asyncio.wait_for(done.wait(), LIMIT_S)
        await until_idle(server)


async def test_nobody_else_says_who_is_gone(
    bus_address: str, server: DbusServer, cluster: FakeCluster
) -> None:
    cluster.gate = asyncio.Event()
    bus = await MessageBus(bus_address).connect()
    wait = call_of(Place(Kind.JOB, "j1").path, JOB.name, "Wait", "da{sv}", [30.0, {}])
    calls = [asyncio.create_task(bus.call(wait))]
    await cluster.has_been_asked(api.ShowJob)
    liar = await MessageBus(bus_address).connect()
    lie = Message.new_signal(
        "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss",
        [bus.unique_name, bus.unique_name, ""],
    )  # fmt: skip
    lie.destination = BUS_NAME
    await liar.send(lie)
    await asyncio.sleep(0.2)
    cluster.gate.set()
    reply = await asyncio.wait_for(calls[0], LIMIT_S)
    assert reply is not None
    assert not reply.error_name
    for each in (liar, bus):
        each.disconnect()  # type: ignore[no-untyped-call]
