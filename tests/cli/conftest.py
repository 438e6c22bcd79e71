"""vastskyctl against a service on a private bus, in a thread of its own."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.private_bus import private_bus
from vastskyd.cli.main import main
from vastskyd.dbus.server import serve

Run = Callable[..., Result]
START_S = 10


def runner() -> CliRunner:
    """One that keeps stderr apart; click before 8.2 has to be told."""
    apart: dict[str, Any] = {"mix_stderr": False}
    known = inspect.signature(CliRunner).parameters
    return CliRunner(**{name: value for name, value in apart.items() if name in known})


@pytest.fixture
def bus_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address


@pytest.fixture
def cluster(bus_address: str) -> Iterator[FakeCluster]:
    """What answers; the tests change it while it does."""
    answering = FakeCluster()
    stop = asyncio.Event()
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        server = await serve(answering, bus_address)
        ready.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(START_S)
    yield answering
    loop.call_soon_threadsafe(stop.set)
    thread.join(START_S)
    assert not thread.is_alive()
    loop.close()


@pytest.fixture
def run(cluster: FakeCluster) -> Run:
    """`run("volume", "list")`: as a command in a pipe."""

    def invoke(*arguments: str, typed: str = "") -> Result:
        return runner().invoke(main, arguments, input=typed)

    return invoke


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than a test can."""
    monkeypatch.setattr("vastskyd.cli.jobs.PAUSE_S", 0.01)
    monkeypatch.setattr("vastskyd.cli.jobs.PATIENCE_S", 0.0)
    monkeypatch.setattr("vastskyd.dbus.mirror.FIRST_LOOK_S", 3600.0)  # it asks nothing itself
    monkeypatch.setattr("vastskyd.dbus.jobs.PAUSE_S", 0.01)
    monkeypatch.setattr("vastskyd.dbus.jobs.RETRY_S", 0.01)
    monkeypatch.setenv("TZ", "UTC")
