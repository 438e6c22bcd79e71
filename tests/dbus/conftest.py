"""A private bus and a service on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message

from tests.dbus.fake_cluster import VIEW, FakeCluster
from tests.dbus.private_bus import private_bus
from vastskyd.dbus.interfaces import MANAGER
from vastskyd.dbus.paths import BUS_NAME, ROOT
from vastskyd.dbus.server import DbusServer, serve

Call = Callable[..., Awaitable[Message]]


@pytest.fixture
def bus_address(tmp_path: Path) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        yield address


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than a test can."""
    monkeypatch.setattr("vastskyd.dbus.mirror.PAUSE_S", 0.01)
    monkeypatch.setattr("vastskyd.dbus.jobs.PAUSE_S", 0.01)
    monkeypatch.setattr("vastskyd.dbus.jobs.RETRY_S", 0.01)


@pytest.fixture
def cluster() -> FakeCluster:
    """As seen on a host that has a disk and an attachment."""
    there = FakeCluster()
    there.view = VIEW
    return there


@pytest.fixture
async def server(bus_address: str, cluster: FakeCluster) -> AsyncIterator[DbusServer]:
    running = await serve(cluster, bus_address)
    yield running
    await running.close()


@pytest.fixture
async def call(bus_address: str, server: DbusServer) -> AsyncIterator[Call]:
    """`call(member, signature, body, interface=..., path=...)`: the reply, error or not."""
    bus = await MessageBus(bus_address).connect()

    async def ask(
        member: str, signature: str = "a{sv}", body: list[Any] | None = None,
        interface: str = MANAGER.name, path: str = ROOT,
    ) -> Message:  # fmt: skip
        message = Message(
            destination=BUS_NAME, path=path, interface=interface or MANAGER.name, member=member,
            signature=signature, body=[{}] if body is None else body,
        )  # fmt: skip
        if not interface:
            message.interface = None  # type: ignore[assignment]
        reply = await asyncio.wait_for(bus.call(message), 5)
        assert reply is not None
        return reply

    yield ask
    bus.disconnect()  # type: ignore[no-untyped-call]
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
