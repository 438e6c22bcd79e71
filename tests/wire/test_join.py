"""From a token to a session; and what hosts without a certificate do not get."""

import asyncio
from typing import Any

import pytest

from tests.wire.lab import (
    BOUND_S,
    CLUSTER,
    HOST,
    M1,
    NOW_S,
    S1,
    S2,
    Lab,
    Node,
    Raw,
    quick,
    soon,
    until,
)
from vastskyd.core.api import BY_METHOD, Done, Join, Joined, Ping
from vastskyd.core.errors import DamagedError, DeniedError, FailedError, UnreachableError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Role
from vastskyd.wire.ca import CertificateAuthority, NodeKey
from vastskyd.wire.joining import Applicant, join
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.token import JoinToken, parse_token

SECRET = "the-secret"


class Registrar:
    """A manager's answer to Join."""

    def __init__(self, ca: CertificateAuthority) -> None:
        self.ca = ca
        self.seen: list[tuple[Join, str]] = []
        self.names_it: NodeId | None = None
        self.answers_ca = ca.certificate_pem

    async def on_join(self, request: Join, address: str) -> Joined:
        self.seen.append((request, address))
        if request.secret != SECRET:
            raise DeniedError("the token is not valid")
        if request.rack == "bug":
            raise ValueError("secret insides")
        node = self.names_it or request.node
        return Joined(
            cluster=CLUSTER,
            cluster_name="test",
            node=node,
            manager=M1,
            manager_addresses=(HOST,),
            manager_port=1,
            roles=request.roles,
            certificate_pem=self.ca.issue(request.csr_pem, node, request.addresses, NOW_S),
            ca_pem=self.answers_ca,
        )


def token_for(lab: Lab, node: Node, **changes: Any) -> JoinToken:
    members: dict[str, Any] = {
        "ca_fingerprint": lab.ca.fingerprint,
        "cluster": CLUSTER,
        "manager": M1,
        "addresses": (HOST,),
        "port": node.hub.port,
        "secret": SECRET,
        "expires_s": NOW_S + 3600,
        "roles": (Role.STORAGE,),
    }
    return JoinToken(**{**members, **changes})


def applicant(**changes: Any) -> Applicant:
    members = {"node": S1, "roles": (Role.STORAGE,), "addresses": (HOST,), "port": 8884}
    return Applicant(**{**members, **changes})


async def enter(token: JoinToken, who: Applicant, key: NodeKey) -> Joined:
    return await soon(join(token, who, key, now_s=NOW_S, limits=quick()))


async def manager_of(lab: Lab, limits: WireLimits | None = None) -> tuple[Node, Registrar]:
    registrar = Registrar(lab.ca)
    return await lab.node(M1, on_join=registrar.on_join, limits=limits or quick()), registrar


async def test_a_host_joins_and_has_a_session(lab: Lab) -> None:
    manager, registrar = await manager_of(lab)
    key = NodeKey.create()
    token = parse_token(token_for(lab, manager).encode())
    joined = await enter(token, applicant(rack="r1"), key)
    ((request, address),) = registrar.seen
    assert (request.node, request.rack, address) == (S1, "r1", HOST)
    key.save(lab.directory / "joined", joined.certificate_pem, joined.ca_pem)
    storage = await lab.node(S1, directory=lab.directory / "joined")
    storage.hub.keep(M1, (HOST,), manager.hub.port)
    await until(lambda: M1 in storage.hub.connected())
    assert await storage.hub.call(M1, Ping(), BOUND_S) == Done()
    assert not lab.log.events("refused")


async def test_a_join_tries_the_next_address(lab: Lab) -> None:
    manager, _ = await manager_of(lab)
    token = token_for(lab, manager, addresses=("127.0.0.2", HOST))
    assert (await enter(token, applicant(), NodeKey.create())).node == S1


async def test_the_secret_never_reaches_another_ca(lab: Lab) -> None:
    other = CertificateAuthority.create(CLUSTER, NOW_S)
    registrar = Registrar(other)
    directory = lab.enrol(M1, ca=other)
    impostor = await lab.node(M1, directory=directory, on_join=registrar.on_join)
    with pytest.raises(UnreachableError, match="another CA"):
        await enter(token_for(lab, impostor), applicant(), NodeKey.create())
    # It may show the right CA, too: everybody can have that certificate, but not its key.
    (directory / "ca-cert.pem").write_text(lab.ca.certificate_pem)
    impostor.hub.reload_tls()
    with pytest.raises(UnreachableError, match="is not node m1"):
        await enter(token_for(lab, impostor), applicant(), NodeKey.create())
    assert registrar.seen == []


async def test_the_secret_never_reaches_another_node_of_the_cluster(lab: Lab) -> None:
    registrar = Registrar(lab.ca)
    other = await lab.node(S2, on_join=registrar.on_join)
    with pytest.raises(UnreachableError, match="is not node m1"):
        await enter(token_for(lab, other), applicant(), NodeKey.create())
    assert registrar.seen == []


async def test_a_wrong_secret_is_denied_and_an_old_token_explained(lab: Lab) -> None:
    manager, _ = await manager_of(lab)
    with pytest.raises(DeniedError, match="not valid") as caught:
        await enter(token_for(lab, manager, secret="x"), applicant(), NodeKey.create())
    assert caught.value.hint == ""
    old = token_for(lab, manager, secret="x", expires_s=NOW_S - 1)
    with pytest.raises(DeniedError) as caught:
        await enter(old, applicant(), NodeKey.create())
    assert "expired" in caught.value.hint


async def test_only_a_manager_lets_hosts_join(lab: Lab) -> None:
    node = await lab.node(M1)
    with pytest.raises(UnreachableError, match="not the manager"):
        await enter(token_for(lab, node), applicant(), NodeKey.create())


async def test_a_manager_that_answers_something_else_is_not_believed(lab: Lab) -> None:
    manager, registrar = await manager_of(lab)
    token = token_for(lab, manager)
    registrar.names_it = S2
    with pytest.raises(DamagedError, match="not for node s1"):
        await enter(token, applicant(), NodeKey.create())
    registrar.names_it = None
    registrar.answers_ca = CertificateAuthority.create(CLUSTER, NOW_S).certificate_pem
    with pytest.raises(DamagedError, match="another CA"):
        await enter(token, applicant(), NodeKey.create())
    registrar.ca = CertificateAuthority.create(CLUSTER, NOW_S)
    with pytest.raises(DamagedError, match="not made by"):
        await enter(token, applicant(), NodeKey.create())


async def test_a_bug_in_joining_shows_none_of_its_insides(lab: Lab) -> None:
    manager, _ = await manager_of(lab)
    with pytest.raises(FailedError, match="internal error"):
        await enter(token_for(lab, manager), applicant(rack="bug"), NodeKey.create())
    assert len(lab.log.events("join-bug")) == 1


async def test_nobody_there(lab: Lab) -> None:
    manager, _ = await manager_of(lab)
    token = token_for(lab, manager)
    await manager.hub.stop()
    with pytest.raises(UnreachableError, match="manager cannot be reached") as caught:
        await enter(token, applicant(), NodeKey.create())
    assert str(token.port) in caught.value.hint


# --- hosts without a certificate ---


@pytest.mark.parametrize("method", [*sorted(set(BY_METHOD) - {"join"}), "hello", "no_such_thing"])
async def test_anonymous_hosts_may_ask_for_nothing_else(lab: Lab, method: str) -> None:
    manager, _ = await manager_of(lab)
    raw = await lab.raw(manager, directory=None)
    assert (await raw.ask(method, {}))[2][0] == "Denied"
    assert await raw.is_cut()
    assert manager.seen == []


@pytest.mark.parametrize(
    "changes",
    [
        {"node": "Not A Node"},
        {"addresses": []},
        {"addresses": ["somewhere"]},
        {"addresses": [HOST, "0.0.0.0"]},
        {"port": 0},
        {"port": 65536},
        {"roles": ["king"]},
        {"secret": None},
        {"more": 1},
    ],
)
async def test_a_malformed_join_never_reaches_the_manager(
    lab: Lab, changes: dict[str, Any]
) -> None:
    manager, registrar = await manager_of(lab)
    raw = await lab.raw(manager, directory=None)
    members = {
        "secret": SECRET,
        "node": "s1",
        "roles": ["storage"],
        "addresses": [HOST],
        "port": 8884,
        "rack": "",
        "csr_pem": NodeKey.create().csr_pem(),
    }
    assert (await raw.ask("join", {**members, **changes}))[2][0] == "Invalid"
    assert await raw.is_cut()
    assert registrar.seen == []


async def test_anonymous_hosts_get_two_requests(lab: Lab) -> None:
    manager, _ = await manager_of(lab)
    raw = await lab.raw(manager, directory=None)
    for _ in range(2):
        assert (await raw.ask("fetch_ca", {}))[3] == {"ca_pem": lab.ca.certificate_pem}
    assert await raw.is_cut()


async def test_anonymous_hosts_are_few_and_their_time_is_short(lab: Lab) -> None:
    manager, _ = await manager_of(lab, quick(anonymous=2, anonymous_s=0.5))
    waiting = [await lab.raw(manager, directory=None) for _ in range(2)]
    one_more = await lab.raw(manager, directory=None)
    assert await one_more.is_cut()
    member = await lab.greeted(manager, S2)
    assert (await member.ask("ping", {}))[2] is None
    assert await soon(asyncio.gather(*(raw.is_cut() for raw in waiting))) == [True, True]
    assert (await (await lab.raw(manager, directory=None)).ask("fetch_ca", {}))[2] is None


async def test_a_host_without_tls_gets_nothing(lab: Lab) -> None:
    manager, _ = await manager_of(lab)
    raw = await Raw.connect(manager.hub.port, None, None)
    raw.send([0, 1, "fetch_ca", [{}]])
    assert await raw.is_cut()
    await raw.close()
