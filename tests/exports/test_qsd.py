"""QemuExports beyond the contract: TLS, admitted addresses, stuck and half-made servers, data."""

import asyncio
import dataclasses
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.exports_world import QemuWorld, free_port, qemu_world
from tests.exports.authority import Authority
from tests.exports.nbd_client import NbdClient, RefusedError
from vastskyd.core.errors import DamagedError, DeviceError, InvalidError, UnreachableError
from vastskyd.core.ids import ExtentId, NodeId
from vastskyd.core.model import Encryption
from vastskyd.exports import commands, qsd
from vastskyd.exports.qmp import connect
from vastskyd.ports import Export, ExportServer

HEAD1 = NodeId("head1")
UNIT = "vastsky-export@head1.service"
EXPORT = Export(HEAD1, ExtentId("1" * 16), 3, "1" * 16 + "-" + "a" * 32)


@pytest.fixture
async def world() -> AsyncIterator[QemuWorld]:
    async with qemu_world() as found:
        yield found


def socket_of(world: QemuWorld) -> Path:
    return world.systemd.run_directory / "vastsky" / "export" / "head1" / "qmp"


def tls_of(world: QemuWorld) -> Path:
    return world.systemd.run_directory / "vastsky" / "tls"


async def served(world: QemuWorld) -> ExportServer:
    server = world.server(HEAD1)
    await world.exports.ensure_server(server)
    await world.exports.add(EXPORT, world.devices()[0])
    return server


async def test_what_a_head_flushed_is_on_the_device(world: QemuWorld) -> None:
    server = await served(world)
    client = NbdClient(server.port, EXPORT.name)
    content = os.urandom(65536)
    await asyncio.to_thread(client.write, 1 << 20, content)
    await asyncio.to_thread(client.flush)
    assert await asyncio.to_thread(client.read, 1 << 20, len(content)) == content
    client.close()
    await world.exports.remove(HEAD1, EXPORT.extent)
    assert _on_device(world.devices()[0], 1 << 20, len(content)) == content


def _on_device(device: str, offset: int, length: int) -> bytes:
    with Path(device).open("rb", buffering=0) as raw:
        raw.seek(offset)
        return raw.read(length)


async def test_two_connections_may_share_an_export(world: QemuWorld) -> None:
    """One a network: the server must offer multi-conn."""
    server = await served(world)
    first, second = (NbdClient(server.port, EXPORT.name) for _ in range(2))
    assert first.flags & 1 << 8
    await asyncio.to_thread(first.write, 0, b"x" * 4096)
    assert await asyncio.to_thread(second.read, 0, 4096) == b"x" * 4096
    first.close()
    second.close()


async def test_the_device_is_free_after_removal(world: QemuWorld) -> None:
    await served(world)
    await world.exports.remove(HEAD1, EXPORT.extent)
    descriptor = os.open(world.devices()[0], os.O_RDWR | os.O_EXCL)
    os.close(descriptor)
    assert not _open_files(world) & {world.devices()[0]}


def _open_files(world: QemuWorld) -> set[str]:
    process = world.systemd.processes[UNIT]
    found = set()
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed just now
            found.add(str(link.readlink()))
    return found


async def test_only_the_heads_addresses_are_admitted_and_a_change_keeps_connections(
    world: QemuWorld,
) -> None:
    server = await served(world)
    assert world.systemd.properties[UNIT] == (
        "IPAddressDeny=any",
        "IPAddressAllow=",
        "IPAddressAllow=127.0.0.1",
    )
    client = NbdClient(server.port, EXPORT.name)
    moved = dataclasses.replace(server, addresses=("127.0.0.1", "10.9.9.9"))
    await world.exports.ensure_server(moved)
    assert world.systemd.properties[UNIT][-1] == "IPAddressAllow=10.9.9.9"
    assert await asyncio.to_thread(client.read, 0, 512)
    client.close()
    calls = len(world.systemd.calls)
    await world.exports.ensure_server(moved)
    assert len(world.systemd.calls) == calls


async def test_another_port_replaces_the_server(world: QemuWorld) -> None:
    server = await served(world)
    moved = dataclasses.replace(server, port=free_port())
    await world.exports.ensure_server(moved)
    assert await world.exports.exports() == ()
    await world.exports.add(EXPORT, world.devices()[0])
    NbdClient(moved.port, EXPORT.name).close()
    with pytest.raises((RefusedError, OSError)):
        NbdClient(server.port, EXPORT.name)


async def test_a_head_with_ipv6(world: QemuWorld) -> None:
    server = dataclasses.replace(world.server(HEAD1), addresses=("127.0.0.1", "::1"))
    await world.exports.ensure_server(server)
    await world.exports.add(EXPORT, world.devices()[0])
    NbdClient(server.port, EXPORT.name).close()


async def test_a_port_in_use_is_told_and_tried_again(world: QemuWorld) -> None:
    server = world.server(HEAD1)
    taken = dataclasses.replace(server, head=NodeId("head2"))
    await world.exports.ensure_server(taken)
    with pytest.raises(DeviceError, match="nbd-server-start"):
        await world.exports.ensure_server(server)
    await world.exports.stop_server(taken.head)
    await world.exports.ensure_server(server)
    assert await world.exports.servers() == (HEAD1,)


async def test_a_server_that_was_not_set_up_to_its_end_is_replaced(world: QemuWorld) -> None:
    """vastskyd died between starting the server and telling it all."""
    await world.systemd(("systemctl", "start", UNIT), 5)
    async with asyncio.timeout(10):
        await asyncio.to_thread(_wait_for, socket_of(world))
    await served(world)
    assert await world.exports.exports() == (EXPORT,)


def _wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


async def test_an_add_that_was_interrupted_is_made_good(world: QemuWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    name, arguments = commands.add_node(EXPORT, world.devices()[1])
    async with connect(socket_of(world), 5) as qmp:
        await qmp.execute(name, 5, **arguments)
    await world.exports.add(EXPORT, world.devices()[0])
    assert world.devices()[1] not in _open_files(world)
    async with connect(socket_of(world), 5) as qmp:
        await qmp.execute("block-export-del", 5, id=commands.export_id(EXPORT), mode="hard")
    await world.exports.remove(HEAD1, EXPORT.extent)
    assert world.devices()[0] not in _open_files(world)


async def test_a_stuck_server_is_seen_hangs_nobody_and_is_fenced_all_the_same(
    world: QemuWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served(world)
    monkeypatch.setattr(qsd, "QMP_TIMEOUT_S", 0.3)
    world.systemd.processes[UNIT].send_signal(signal.SIGSTOP)
    assert await world.exports.servers() == (HEAD1,)
    with pytest.raises(UnreachableError):
        await world.exports.exports()
    await world.exports.remove(HEAD1, EXPORT.extent)
    assert await world.exports.servers() == ()


async def test_a_server_whose_socket_is_gone_is_seen_and_is_fenced_all_the_same(
    world: QemuWorld,
) -> None:
    """Somebody tidied up in /run: it serves on."""
    server = await served(world)
    await asyncio.to_thread(socket_of(world).unlink)
    assert await world.exports.servers() == (HEAD1,)
    with pytest.raises(UnreachableError, match="but its server runs"):
        await world.exports.exports()
    await world.exports.remove(HEAD1, EXPORT.extent)
    assert await world.exports.servers() == ()
    with pytest.raises((RefusedError, OSError)):
        NbdClient(server.port, EXPORT.name)
    await served(world)
    assert await world.exports.exports() == (EXPORT,)


async def test_a_stuck_server_is_replaced(
    world: QemuWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await served(world)
    monkeypatch.setattr(qsd, "QMP_TIMEOUT_S", 0.3)
    world.systemd.processes[UNIT].send_signal(signal.SIGSTOP)
    await world.exports.ensure_server(server)
    assert await world.exports.exports() == ()


async def test_many_at_once(world: QemuWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    exports = [
        Export(HEAD1, ExtentId(f"{number:016x}"), 1, f"{number:016x}-k") for number in range(40)
    ]
    await asyncio.gather(*(world.exports.add(one, world.devices()[0]) for one in exports))
    assert set(await world.exports.exports()) == set(exports)
    await asyncio.gather(*(world.exports.remove(HEAD1, one.extent) for one in exports))
    assert await world.exports.exports() == ()


async def test_a_foreign_export_is_told(world: QemuWorld) -> None:
    await served(world)
    async with connect(socket_of(world), 5) as qmp:
        node = commands.node_name(EXPORT.extent)
        await qmp.execute("block-export-add", 5, type="nbd", id="mine", node_name=node, name="m")
    with pytest.raises(DamagedError, match="mine"):
        await world.exports.exports()


@pytest.mark.parametrize("name", ["", "a b", "x" * 201, "é"])
def test_a_name_that_could_not_be_read_back_is_refused(name: str) -> None:
    with pytest.raises(InvalidError):
        commands.export_id(dataclasses.replace(EXPORT, name=name))


# --- TLS ----------------------------------------------------------------------------------


async def test_with_tls_the_heads_certificate_and_no_other_is_let_in(
    world: QemuWorld, tmp_path: Path
) -> None:
    authority = Authority(tls_of(world))
    authority.issue("store1", "server")
    stranger = Authority(tmp_path / "other")
    server = dataclasses.replace(world.server(HEAD1), encryption=Encryption.TLS)
    await world.exports.ensure_server(server)
    await world.exports.add(EXPORT, world.devices()[0])

    def attempt(tls: ssl.SSLContext | None) -> bytes:
        client = NbdClient(server.port, EXPORT.name, tls)
        try:
            return client.read(0, 512)
        finally:
            client.close()

    assert await asyncio.to_thread(attempt, authority.context("head1")) == bytes(512)
    refused = [None, *(authority.context(name) for name in ("head2", "head11", "store1", "ead1"))]
    stranger_context = stranger.context("head1")
    stranger_context.load_verify_locations(tls_of(world) / "ca-cert.pem")
    for tls in (*refused, stranger_context):
        with pytest.raises(RefusedError):
            await asyncio.to_thread(attempt, tls)


async def test_without_certificates_a_tls_server_is_refused_and_serves_nothing(
    world: QemuWorld,
) -> None:
    server = dataclasses.replace(world.server(HEAD1), encryption=Encryption.TLS)
    with pytest.raises(DeviceError, match="object-add"):
        await world.exports.ensure_server(server)
    with pytest.raises((RefusedError, OSError)):
        NbdClient(server.port, EXPORT.name)


async def test_a_change_of_encryption_replaces_the_server(world: QemuWorld) -> None:
    authority = Authority(tls_of(world))
    authority.issue("store1", "server")
    server = await served(world)
    await world.exports.ensure_server(dataclasses.replace(server, encryption=Encryption.TLS))
    assert await world.exports.exports() == ()
    with pytest.raises(RefusedError):
        NbdClient(server.port, EXPORT.name)
