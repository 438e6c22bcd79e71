"""A private bus and a service on it; no test may leave a task behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message

from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.private_bus import private_bus
from vastskyd.dbus.methods import BUS_NAME, INTERFACE, PATH
from vastskyd.dbus.server import DbusServer, serve

Call = Callable[..., Awaitable[Message]]


@pytest.fixture(scope="session")
def bus_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with private_bus(tmp_path_factory.mktemp("bus")) as address:
        yield address


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
async def server(bus_address: str, cluster: FakeCluster) -> AsyncIterator[DbusServer]:
    before = asyncio.all_tasks()
    running = await serve(cluster, bus_address)
    yield running
    await running.close()
    assert asyncio.all_tasks() <= before, "tasks leaked"


@pytest.fixture
async def call(bus_address: str, server: DbusServer) -> AsyncIterator[Call]:
    """`call(member, signature, body, interface=..., path=...)`: the reply, error or not."""
    bus = await MessageBus(bus_address).connect()

    async def ask(
        member: str, signature: str = "a{sv}", body: list[Any] | None = None,
        interface: str | None = INTERFACE, path: str = PATH,
    ) -> Message:  # fmt: skip
        message = Message(
            destination=BUS_NAME, path=path, interface=interface, member=member,
            signature=signature, body=[{}] if body is None else body,
        )  # fmt: skip
        reply = await asyncio.wait_for(bus.call(message), 5)
        assert reply is not None
        return reply

    yield ask
    bus.disconnect()  # type: ignore[no-untyped-call]
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
