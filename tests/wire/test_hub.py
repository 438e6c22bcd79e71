"""Sessions that come, go and come again; and who is let in."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.wire.lab import BOUND_S, CLUSTER, HOST, M1, NOW_S, S1, S2, Lab, hello, quick, soon, until
from vastskyd.core.api import Done, Ping
from vastskyd.core.errors import BusyError, DamagedError, NotFoundError, UnreachableError
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.ports import Peers
from vastskyd.wire.ca import CertificateAuthority, NodeKey
from vastskyd.wire.dialer import backoff_s, first_stream
from vastskyd.wire.hello import Identity
from vastskyd.wire.hub import HubOptions, PeerHub
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.stream import FrameStream

YEAR_S = 365 * 86400.0


def as_port(hub: PeerHub) -> Peers:
    """mypy holds the hub to the port."""
    return hub


async def test_a_session_comes_again_after_the_peer_restarted(lab: Lab) -> None:
    manager, storage = await lab.pair()
    port = manager.hub.port
    await manager.hub.stop()
    await until(lambda: storage.changes == [(M1, True), (M1, False)])
    assert as_port(storage.hub).connected() == frozenset()
    again = await lab.node(M1, port=port)
    await until(lambda: storage.changes == [(M1, True), (M1, False), (M1, True)])
    assert await again.hub.call(S1, Ping(), BOUND_S) == Done()


async def test_a_session_comes_as_soon_as_the_peer_is_there(lab: Lab) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    storage = await lab.node(S1)
    storage.hub.keep(M1, (HOST,), port)
    await until(lambda: len(lab.log.events("unreachable")) == 1)
    await lab.node(M1, port=port)
    await until(lambda: M1 in storage.hub.connected())
    assert len(lab.log.events("unreachable")) == 1


async def test_a_newer_session_replaces_the_older(lab: Lab) -> None:
    manager = await lab.node(M1)
    older = await lab.greeted(manager)
    newer = await lab.raw(manager, directory=lab.enrol(S1))
    await newer.ask("hello", hello(S1, boot_id="second"))
    assert await older.is_cut()
    assert (await newer.ask("ping", {}))[2] is None
    assert manager.changes == [(S1, True), (S1, False), (S1, True)]
    peer = manager.hub.peer(S1)
    assert peer is not None
    assert peer.boot_id == "second"


async def test_two_nodes_that_dial_each_other_end_with_one_session(lab: Lab) -> None:
    one, two = await lab.node(S1), await lab.node(S2)
    one.hub.keep(S2, (HOST,), two.hub.port)
    two.hub.keep(S1, (HOST,), one.hub.port)

    async def both() -> None:
        for caller, other in ((one, S2), (two, S1)):
            await caller.hub.call(other, Ping(), 1.0)

    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + BOUND_S
    while True:
        await until(lambda: S2 in one.hub.connected() and S1 in two.hub.connected())
        try:
            await both()
            break
        except UnreachableError:
            assert loop.time() < deadline_s


async def test_a_kept_session_ends_when_it_is_forgotten(lab: Lab) -> None:
    manager, storage = await lab.pair()
    storage.hub.forget(M1)
    await until(lambda: not manager.hub.connected() and not storage.hub.connected())
    storage.hub.forget(M1)
    assert storage.changes == [(M1, True), (M1, False)]


async def test_keeping_again_dials_the_new_address(lab: Lab) -> None:
    manager, storage = await lab.node(M1), await lab.node(S1)
    with socket.create_server((HOST, 0)) as mute:
        storage.hub.keep(M1, (HOST,), mute.getsockname()[1])
        storage.hub.keep(M1, (HOST,), manager.hub.port)
        await until(lambda: M1 in storage.hub.connected())
    storage.hub.keep(M1, (HOST,), manager.hub.port)
    assert await storage.hub.call(M1, Ping(), BOUND_S) == Done()
    assert storage.changes == [(M1, True)]


async def test_the_second_network_is_used_when_the_first_is_mute(lab: Lab) -> None:
    manager, storage = await lab.node(M1), await lab.node(S1)
    with socket.create_server(("127.0.0.2", manager.hub.port)):  # accepts, and says nothing
        storage.hub.keep(M1, ("127.0.0.3", "127.0.0.2", HOST), manager.hub.port)
        await until(lambda: M1 in storage.hub.connected())
        assert await storage.hub.probe(M1, ("127.0.0.2", HOST), manager.hub.port)


async def test_listening_late_hears_of_sessions_that_are_there(lab: Lab) -> None:
    manager, _ = await lab.pair()
    heard: list[tuple[NodeId, bool]] = []
    manager.hub.listen(manager.handle, lambda node, up: heard.append((node, up)))
    assert heard == [(S1, True)]


async def test_a_node_that_does_not_listen_yet_is_busy(lab: Lab) -> None:
    identity = Identity(CLUSTER, M1, "boot")
    hub = PeerHub(
        HubOptions(
            identity=identity, tls_directory=lab.enrol(M1), port=0, host=HOST, limits=quick()
        )
    )
    await hub.start()
    storage = await lab.node(S1)
    storage.hub.keep(M1, (HOST,), hub.port)
    await until(lambda: M1 in storage.hub.connected())
    with pytest.raises(BusyError):
        await storage.hub.call(M1, Ping(), BOUND_S)
    await hub.stop()


async def test_all_addresses_are_listened_on_by_default(lab: Lab) -> None:
    identity = Identity(CLUSTER, M1, "boot")
    options = HubOptions(identity=identity, tls_directory=lab.enrol(M1), port=0, limits=quick())
    hub = PeerHub(options)
    await hub.start()
    storage = await lab.node(S1)
    for address in (HOST, "127.0.0.9", *(["::1"] if socket.has_dualstack_ipv6() else [])):
        assert await storage.hub.probe(M1, (address,), hub.port)
    await hub.stop()


async def test_a_changed_that_fails_harms_no_session(lab: Lab) -> None:
    manager = await lab.node(M1)

    def broken(_: NodeId, __: bool) -> None:
        raise RuntimeError("broken")

    manager.hub.listen(manager.handle, broken)
    raw = await lab.greeted(manager)
    assert (await raw.ask("ping", {}))[2] is None
    assert len(lab.log.events("changed-bug")) == 1


# --- probes ---


async def test_a_probe_tells_whether_the_node_answers(lab: Lab) -> None:
    manager, storage = await lab.pair()
    port = manager.hub.port
    assert await storage.hub.probe(M1, (HOST,), port)
    assert not await storage.hub.probe(S2, (HOST,), port)
    assert not await storage.hub.probe(M1, (), port)
    assert not await storage.hub.probe(M1, ("not an address!",), port)
    assert manager.changes == [(S1, True)], "a probe must not disturb the session"
    await manager.hub.stop()
    assert not await storage.hub.probe(M1, (HOST,), port)


async def test_a_probe_of_a_mute_host_ends(lab: Lab) -> None:
    storage = await lab.node(S1, limits=quick(connect_s=0.2))
    with socket.create_server((HOST, 0)) as mute:
        assert not await soon(storage.hub.probe(M1, (HOST,), mute.getsockname()[1]))


# --- who is let in ---


async def refused(lab: Lab, directory: Path, node: NodeId = S1) -> None:
    """The node, with the certificate of this directory, gets no session with m1."""
    manager = await lab.node(M1)
    storage = await lab.node(node, directory=directory)
    storage.hub.keep(M1, (HOST,), manager.hub.port)
    await until(lambda: bool(lab.log.events("unreachable")))
    assert not await storage.hub.probe(M1, (HOST,), manager.hub.port)
    assert manager.changes == storage.changes == []


async def test_a_certificate_of_another_ca(lab: Lab) -> None:
    other = CertificateAuthority.create(CLUSTER, NOW_S)
    await refused(lab, lab.enrol(S1, ca=other))


async def test_a_certificate_of_another_ca_that_trusts_ours(lab: Lab) -> None:
    directory = lab.enrol(S1, ca=CertificateAuthority.create(CLUSTER, NOW_S))
    (directory / "ca-cert.pem").write_text(lab.ca.certificate_pem)
    await refused(lab, directory)
    assert (
        "perhaps it refused this host's certificate"
        in lab.log.events("unreachable")[0].getMessage()
    )


async def test_a_certificate_of_another_node(lab: Lab) -> None:
    await refused(lab, lab.enrol(S2))


async def test_an_expired_certificate(lab: Lab) -> None:
    await refused(lab, lab.enrol(S1, now_s=NOW_S - 6 * YEAR_S))


async def test_a_server_that_is_another_node_is_not_talked_to(lab: Lab) -> None:
    pretender = await lab.node(M1, directory=lab.enrol(S2))
    storage = await lab.node(S1)
    storage.hub.keep(M1, (HOST,), pretender.hub.port)
    await until(lambda: bool(lab.log.events("unreachable")))
    assert "is not node m1" in lab.log.events("unreachable")[0].getMessage()
    assert storage.changes == pretender.changes == []


async def test_a_server_with_an_expired_certificate_is_not_talked_to(lab: Lab) -> None:
    stale = await lab.node(M1, directory=lab.enrol(M1, now_s=NOW_S - 6 * YEAR_S))
    storage = await lab.node(S1)
    storage.hub.keep(M1, (HOST,), stale.hub.port)
    await until(lambda: bool(lab.log.events("unreachable")))
    assert "expired" in lab.log.events("unreachable")[0].getMessage()


async def test_a_node_of_another_cluster_is_not_talked_to(lab: Lab) -> None:
    other = await lab.node(M1, cluster=ClusterId("another"))
    storage = await lab.node(S1)
    storage.hub.keep(M1, (HOST,), other.hub.port)
    await until(lambda: bool(lab.log.events("unreachable")))
    assert "another" in lab.log.events("unreachable")[0].getMessage()
    assert storage.changes == []


async def test_new_certificates_are_used_after_a_reload(lab: Lab) -> None:
    directory = lab.enrol(M1)
    manager, storage = await lab.node(M1, directory=directory), await lab.node(S1)
    stale = lab.enrol(M1, now_s=NOW_S - 6 * YEAR_S)
    for name in ("server-key.pem", "server-cert.pem"):
        (directory / name).write_bytes((stale / name).read_bytes())
    assert await storage.hub.probe(M1, (HOST,), manager.hub.port)
    manager.hub.reload_tls()
    assert not await storage.hub.probe(M1, (HOST,), manager.hub.port)
    key = NodeKey.load(directory)
    key.save(directory, lab.ca.issue(key.csr_pem(), M1, (HOST,), NOW_S), lab.ca.certificate_pem)
    manager.hub.reload_tls()
    assert await storage.hub.probe(M1, (HOST,), manager.hub.port)
    (directory / "server-cert.pem").write_text("junk")
    with pytest.raises(DamagedError):
        manager.hub.reload_tls()
    assert await storage.hub.probe(M1, (HOST,), manager.hub.port)


async def test_a_hub_needs_certificates(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no certificate"):
        PeerHub(HubOptions(identity=Identity(CLUSTER, M1, "b"), tls_directory=tmp_path, port=0))


# --- dialing ---


def test_the_pause_between_attempts_grows_to_its_cap_with_full_jitter() -> None:
    limits = WireLimits()
    longest = [backoff_s(attempt, limits, lambda: 1.0) for attempt in range(8)]
    assert longest == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert backoff_s(10**9, limits, lambda: 1.0) == 5.0
    assert backoff_s(3, limits, lambda: 0.0) == 0.0


async def test_dialing_tells_why_each_address_failed() -> None:
    async def fail(address: str) -> FrameStream:
        raise UnreachableError(f"{address} is down")

    with pytest.raises(UnreachableError, match="a is down; b is down; a is down"):
        await first_stream(("a", "b", "a"), fail, 10)
    with pytest.raises(UnreachableError, match="no address"):
        await first_stream((), fail, 10)


async def test_cancelled_dialing_leaves_nothing() -> None:
    async def never(_: str) -> FrameStream:
        await asyncio.Event().wait()
        raise AssertionError

    dialing = asyncio.ensure_future(first_stream(("a", "b"), never, 0.01))
    await asyncio.wait({dialing}, timeout=0.05)
    dialing.cancel()
    await asyncio.wait({dialing})
    assert dialing.cancelled()
