"""The shipped bus policy: root everything, others look."""

import asyncio
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.private_bus import private_bus
from vastskyd.dbus.methods import BUS_NAME, INTERFACE, METHODS, PATH
from vastskyd.dbus.server import serve

POLICY = Path(__file__).resolve().parents[2] / "packaging/org.vastsky.Vastsky1.conf"
NOBODY = 65534

# Loads all it needs before it becomes the other user, who may not see this tree.
_CALL = """
import asyncio, os
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message
os.setgid({nobody}); os.setuid({nobody})
async def main():
    bus = await MessageBus({address!r}).connect()
    for name, signature in {calls!r}:
        body = [dict() if kind == "a{{sv}}" else 1.0 if kind == "d" else 1 if kind == "t" else
                [] if kind == "as" else "x" for kind in signature]
        reply = await bus.call(Message(destination={bus_name!r}, path={path!r},
            interface={interface!r}, member=name, signature="".join(signature), body=body))
        print(name, reply.error_name or "ok", flush=True)
asyncio.run(main())
"""


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that other users can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="vastsky-bus-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def strict_bus(reachable: Path) -> Iterator[str]:
    with private_bus(reachable, POLICY) as address:
        yield address


@pytest.fixture
def open_bus(reachable: Path) -> Iterator[str]:
    with private_bus(reachable) as address:
        yield address


def test_it_opens_what_only_reads_and_nothing_else() -> None:
    default = ET.parse(POLICY).getroot().find("policy[@context='default']")
    assert default is not None
    opened = {
        rule.get("send_member")
        for rule in default.findall("allow")
        if rule.get("send_interface") == INTERFACE
    }
    assert opened == {method.name for method in METHODS if not method.changes}
    assert all(rule.get("send_destination") == BUS_NAME for rule in default)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be root and somebody else")
async def test_on_a_real_bus(strict_bus: str) -> None:
    cluster = FakeCluster()
    server = await serve(cluster, strict_bus)
    try:
        calls = [(m.name, tuple(kind for _, kind in m.takes)) for m in METHODS]
        program = _CALL.format(
            nobody=NOBODY, address=strict_bus, calls=calls, bus_name=BUS_NAME, path=PATH,
            interface=INTERFACE,
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        await server.close()
    answers = dict(line.split(" ") for line in said.decode().splitlines())
    for method in METHODS:
        denied = answers[method.name] == "org.freedesktop.DBus.Error.AccessDenied"
        assert denied == method.changes, (method.name, answers[method.name])
    assert len(answers) == len(METHODS)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be root and somebody else")
async def test_the_service_refuses_too(open_bus: str) -> None:
    """A bus without our policy lets everybody call; the service does not."""
    cluster = FakeCluster()
    server = await serve(cluster, open_bus)
    try:
        program = _CALL.format(
            nobody=NOBODY, address=open_bus, bus_name=BUS_NAME, path=PATH, interface=INTERFACE,
            calls=[("DeleteVolume", ("s", "a{sv}")), ("Status", ("a{sv}",))],
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=subprocess.PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), 20)
    finally:
        await server.close()
    assert said.decode().splitlines() == [
        "DeleteVolume org.vastsky.Vastsky1.Error.Denied",
        "Status ok",
    ]
    assert len(cluster.asked) == 1
