"""What can be a host's address, and at which port it is served."""

import pytest

from vastskyd.core.api import CreateToken, Join, Joined
from vastskyd.core.errors import ConflictError, InvalidError
from vastskyd.core.facts import Facts
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import Cluster, Node, Role
from vastskyd.core.reaching import EXPORT_PORT_FIRST, free_export_port, is_loopback, own_address
from vastskyd.core.state import ClusterState, Draft
from vastskyd.core.turn import Policy, Turn
from vastskyd.roles.joining import create_token, join

FIRST = EXPORT_PORT_FIRST


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "fd00::1", "127.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1%eth0"]
)
def test_a_host_may_have_it(text: str) -> None:
    assert own_address(text) == own_address(text)


@pytest.mark.parametrize(
    "text",
    ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "239.1.2.3", "ff02::1", "255.255.255.255"],
)
def test_no_host_has_it(text: str) -> None:
    with pytest.raises(InvalidError, match="no host's own address") as caught:
        own_address(text)
    assert "this host" in caught.value.hint


def test_what_means_another_host_on_each_link_is_none() -> None:
    with pytest.raises(InvalidError, match="fe80::1 is link-local") as caught:
        own_address("fe80::1")
    assert "this host" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "is_it"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True),
     ("10.0.0.1", False), ("fd00::1", False), ("fe80::1", False), ("host1", False)],
)  # fmt: skip
def test_what_is_loopback(text: str, is_it: bool) -> None:
    assert is_loopback(text) == is_it


def node(name: str, port: int, export_port: int) -> Node:
    return Node(id=NodeId(name), roles=(), addresses=(), port=port, export_port=export_port)


def test_an_export_port_is_no_other_heads_and_no_hosts_own() -> None:
    nodes = (node("a", 8884, FIRST), node("b", FIRST + 1, FIRST + 3))
    assert free_export_port((), ()) == FIRST
    assert free_export_port(nodes, ()) == FIRST + 2
    assert free_export_port(nodes, (FIRST + 2,)) == FIRST + 4


class NoIssuer:
    """roles.joining.Issuer"""

    def issue(self, csr_pem: str, node: NodeId, addresses: tuple[str, ...]) -> str:
        return ""

    def ca_pem(self) -> str:
        return ""

    def token(
        self,
        cluster: ClusterId,
        manager: Node,
        secret: str,
        expires_s: float,
        roles: tuple[Role, ...],
    ) -> str:
        return secret


def joined(turn: Turn, name: str, port: int) -> Joined:
    secret = create_token(turn, NoIssuer(), CreateToken(roles=(Role.HEAD,))).token
    request = Join(
        secret=secret, node=NodeId(name), roles=(), addresses=(f"10.0.0.{name[1:]}",), port=port,
        rack="", csr_pem="",
    )  # fmt: skip
    return join(turn, NoIssuer(), request)


def test_a_host_joins_at_a_port_that_is_no_exports() -> None:
    manager = node("m", 8884, FIRST)
    draft = Draft(ClusterState())
    draft.put(Cluster(id=ClusterId("c" * 16), name="c", manager=manager.id, created_s=0.0))
    draft.put(manager)
    turn = Turn(draft, Facts(), Policy(), 0.0, 0.0, lambda digits: "0" * digits)
    joined(turn, "h1", FIRST + 1)
    assert draft.nodes[NodeId("h1")].export_port == FIRST + 2
    for taken in (FIRST, FIRST + 2):
        with pytest.raises(ConflictError, match=f"port {taken}") as caught:
            joined(turn, "h2", taken)
        assert "vastskyd.toml" in caught.value.hint
    joined(turn, "h2", FIRST + 1)
    assert draft.nodes[NodeId("h2")].export_port == FIRST + 3
