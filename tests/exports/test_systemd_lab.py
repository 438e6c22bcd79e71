"""What only a real systemd can show; runs inside a guest of the lab, as the contract suite does."""

import asyncio
import dataclasses
import os
import pwd
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.exports_world import SystemdWorld, systemd_world
from tests.contract.test_exports import EXTENT1, HEAD1, HEAD2, export
from tests.exports.nbd_client import NbdClient, RefusedError
from vastskyd.core.errors import DeviceError
from vastskyd.core.model import Encryption
from vastskyd.exports import qsd
from vastskyd.kernel.process import run

pytestmark = pytest.mark.lab
UNIT = "vastsky-export@head1.service"
CREDENTIALS = ("ca-cert.pem", "server-cert.pem", "server-key.pem", "dh-params.pem")


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


async def test_a_device_that_is_no_extent_is_out_of_reach(
    world: SystemdWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """device-mapper's as it is: a volume of LVM, say. Its owner keeps it shut."""
    await run(("dmsetup", "create", "somebodys", "--table", "0 8 zero"), 10)
    try:
        await world.exports.ensure_server(world.server(HEAD1))
        monkeypatch.setattr(qsd, "OPEN_TIMEOUT_S", 0.5)
        with pytest.raises(DeviceError, match=r"Permission denied after 0\.5 s") as caught:
            await world.exports.add(export(), "/dev/mapper/somebodys")
        assert "udevadm trigger" in str(caught.value.hint)
    finally:
        await run(("dmsetup", "remove", "--retry", "somebodys"), 30)


def _seen_by(pid: str, place: str) -> set[str]:
    """What is no directory, for that process."""
    top = Path(f"/proc/{pid}/root{place}")
    return {
        str(path.relative_to(top))
        for path in top.rglob("*")
        if not path.is_dir() or path.is_symlink()
    }


@pytest.fixture
def record() -> Iterator[None]:
    """A file such as vastskyd keeps, if this guest has none."""
    directory = Path("/var/lib/vastsky")
    directory.mkdir(exist_ok=True)
    file = directory / "a-record"
    file.touch()
    yield
    file.unlink()


@pytest.mark.usefixtures("record")
async def test_a_server_has_a_user_of_its_own_and_sees_nothing_of_the_cluster(
    world: SystemdWorld,
) -> None:
    """Of all that is in /run its own socket and its credentials, and no other server's."""
    for head in (HEAD1, HEAD2):
        await world.exports.ensure_server(world.server(head))
    pid = (await run(("systemctl", "show", "-P", "MainPID", UNIT), 10)).output.strip()
    user = pwd.getpwnam("vastsky-export")
    process = os.stat(f"/proc/{pid}")
    assert (process.st_uid, process.st_gid) == (user.pw_uid, user.pw_gid)
    keys = {f"credentials/{UNIT}/{name}" for name in CREDENTIALS}
    assert _seen_by(pid, "/run") == {"vastsky/export/head1/qmp", *keys}
    assert _seen_by("self", "/var/lib/vastsky")
    assert not _seen_by(pid, "/var/lib/vastsky")


async def test_a_server_leaves_no_directory_and_no_other_server_minds(world: SystemdWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    await world.exports.add(export(), world.devices()[0])
    await world.exports.ensure_server(world.server(HEAD2))
    await world.exports.stop_server(HEAD2)
    assert await asyncio.to_thread(os.listdir, "/run/vastsky/export") == ["head1"]
    assert await world.exports.exports() == (export(),)
    await world.exports.remove(HEAD1, EXTENT1)
    await world.crash(HEAD1)
    assert await asyncio.to_thread(os.listdir, "/run/vastsky/export") == []


async def test_tls_with_certificates_that_only_root_may_read(world: SystemdWorld) -> None:
    server = dataclasses.replace(world.server(HEAD1), encryption=Encryption.TLS)
    await world.exports.ensure_server(server)
    await world.exports.add(export(), world.devices()[0])
    for head, admitted in (("head1", True), ("head2", False)):
        context = world.authority.context(head)
        connecting = asyncio.to_thread(NbdClient, server.port, export().name, context)
        if admitted:
            (await connecting).close()
        else:
            with pytest.raises(RefusedError):
                await connecting
