"""What only a real systemd can show; runs inside a guest of the lab, as the contract suite does."""

import asyncio
import dataclasses
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.exports_world import SystemdWorld, systemd_world
from tests.contract.test_exports import EXTENT1, HEAD1, HEAD2, export
from tests.exports.authority import Authority
from tests.exports.nbd_client import NbdClient, RefusedError
from vastskyd.core.model import Encryption
from vastskyd.kernel.process import run

pytestmark = pytest.mark.lab
UNIT = "vastsky-export@head1.service"


@pytest.fixture
async def world() -> AsyncIterator[SystemdWorld]:
    async with systemd_world() as found:
        yield found


def _greets(address: str, port: int) -> bool:
    """Does the server greet who comes from that address to that address?"""
    try:
        with socket.create_connection((address, port), 1.5, (address, 0)) as connection:
            return connection.recv(8) == b"NBDMAGIC"
    except OSError:
        return False


def _own_address() -> str:
    return subprocess.run(
        ["hostname", "-I"], check=True, capture_output=True, text=True
    ).stdout.split()[0]


async def test_only_admitted_addresses_reach_the_server(world: SystemdWorld) -> None:
    own = await asyncio.to_thread(_own_address)
    server = world.server(HEAD1)
    await world.exports.ensure_server(server)
    assert await asyncio.to_thread(_greets, "127.0.0.1", server.port)
    assert not await asyncio.to_thread(_greets, own, server.port)
    await world.exports.add(export(), world.devices()[0])
    await world.exports.ensure_server(dataclasses.replace(server, addresses=(own,)))
    assert await world.exports.exports() == (export(),)
    assert await asyncio.to_thread(_greets, own, server.port)
    assert not await asyncio.to_thread(_greets, "127.0.0.1", server.port)
    await world.exports.stop_server(HEAD1)
    await world.exports.ensure_server(server)
    assert await asyncio.to_thread(_greets, "127.0.0.1", server.port)
    assert not await asyncio.to_thread(_greets, own, server.port)


async def test_the_unit_is_whole_and_shut_in(world: SystemdWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    shown = (
        await run(
            ("systemctl", "show", UNIT, "-p", "OOMScoreAdjust,NoNewPrivileges,PartOf,Restart"), 10
        )
    ).output
    assert "OOMScoreAdjust=-900" in shown
    assert "NoNewPrivileges=yes" in shown
    assert "PartOf=\n" in shown or "PartOf" not in shown
    assert "Restart=no" in shown
    said = (
        await run(("systemd-analyze", "verify", "--man=no", f"/run/systemd/system/{UNIT}"), 60)
    ).output
    assert not said


async def test_a_device_that_is_not_device_mappers_is_out_of_reach(world: SystemdWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    with pytest.raises(Exception, match=r"not permitted|denied"):
        await world.exports.add(export(), "/dev/vda")


@pytest.fixture
def state() -> Iterator[None]:
    """What a manager has there, as far as this host lacks it."""
    directory = Path("/var/lib/vastsky")
    made = not directory.exists()
    for part in ("tls", "ca"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    yield
    if made:
        shutil.rmtree(directory)


def _seen_by(pid: str) -> tuple[set[str], set[str], set[str]]:
    """Of vastskyd's state, of what it has in /run, and of the sockets by which root commands."""
    top = Path(f"/proc/{pid}/root")
    sockets = ("run/dbus", "run/systemd/private")
    return (
        {path.name for path in (top / "var/lib/vastsky").iterdir()},
        {path.name for path in (top / "run/vastsky").iterdir()},
        {name for name in sockets if (top / name).exists()},
    )


@pytest.mark.usefixtures("state")
async def test_a_server_sees_certificates_and_nothing_else_of_the_cluster(
    world: SystemdWorld,
) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    shown = await run(("systemctl", "show", "-P", "MainPID", UNIT), 10)
    kept, running, sockets = await asyncio.to_thread(_seen_by, shown.output.strip())
    assert kept == {"tls"}
    assert running <= {"export", "tls"}
    assert not sockets


async def test_the_socket_directory_outlives_a_stopped_server(world: SystemdWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    await world.exports.add(export(), world.devices()[0])
    await world.exports.ensure_server(world.server(HEAD2))
    await world.exports.stop_server(HEAD2)
    assert await world.exports.exports() == (export(),)
    await world.exports.remove(HEAD1, EXTENT1)


async def test_tls_with_certificates_that_only_root_may_read(world: SystemdWorld) -> None:
    directory = Path("/run/vastsky/tls")
    shutil.rmtree(directory, ignore_errors=True)
    authority = Authority(directory)
    authority.issue("store1", "server")
    server = dataclasses.replace(world.server(HEAD1), encryption=Encryption.TLS)
    await world.exports.ensure_server(server)
    await world.exports.add(export(), world.devices()[0])
    for head, admitted in (("head1", True), ("head2", False)):
        connecting = asyncio.to_thread(
            NbdClient, server.port, export().name, authority.context(head)
        )
        if admitted:
            (await connecting).close()
        else:
            with pytest.raises(RefusedError):
                await connecting
