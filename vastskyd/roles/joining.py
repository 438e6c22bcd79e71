"""Letting hosts into the cluster: tokens, and the answers to those who bring one.

The manager's door to the CA is `Issuer`; who stands behind it is wire's business.
"""

import hashlib
from typing import Protocol

from vastskyd.core.api import CreateToken, Join, Joined, Token
from vastskyd.core.errors import ConflictError, DeniedError, ExistsError, InvalidError
from vastskyd.core.ids import ClusterId, NodeId, node_id
from vastskyd.core.model import JOINING_ROLES, JoinSecret, Node, Role, Severity
from vastskyd.core.reaching import ADDRESSES_MAX, free_export_port
from vastskyd.core.turn import Turn

_SECRET_DIGITS = 64
_VALID_MAX_S = 30 * 86400.0
_ONE_MANAGER = "a cluster has one manager in this version"


class Issuer(Protocol):
    """The cluster's CA."""

    def issue(self, csr_pem: str, node: NodeId, addresses: tuple[str, ...]) -> str:
        """The node's certificate, as PEM."""

    def ca_pem(self) -> str: ...

    def token(
        self,
        cluster: ClusterId,
        manager: Node,
        secret: str,
        expires_s: float,
        roles: tuple[Role, ...],
    ) -> str:
        """What a person pastes on the new host."""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def create_token(turn: Turn, issuer: Issuer, request: CreateToken) -> Token:
    if not request.roles or not set(request.roles) <= set(JOINING_ROLES):
        raise InvalidError(
            "a token is for the roles storage, head, or both",
            hint=_ONE_MANAGER,
        )
    if not 0 < request.valid_s <= _VALID_MAX_S:
        raise InvalidError(
            "a token is valid for some time, and for at most 30 days", hint="write for example 1h"
        )
    for secret in list(turn.draft.secrets.values()):
        if secret.expires_s < turn.wall_s:
            turn.draft.delete(secret)
    cluster = turn.draft.the_cluster()
    plain = turn.new_token(_SECRET_DIGITS)
    expires_s = turn.wall_s + request.valid_s
    turn.draft.put(JoinSecret(digest=_digest(plain), roles=request.roles, expires_s=expires_s))
    manager = turn.draft.nodes[cluster.manager]
    return Token(token=issuer.token(cluster.id, manager, plain, expires_s, request.roles))


def join(turn: Turn, issuer: Issuer, request: Join) -> Joined:
    """The host becomes a node. One token lets in as many hosts as bring it before it expires."""
    secret = turn.draft.secrets.get(_digest(request.secret))
    if secret is None or secret.expires_s < turn.wall_s:
        raise DeniedError(
            "the token is unknown or has expired",
            hint="make a new one on a host of the cluster: `vastskyctl cluster token`",
        )
    name = node_id(request.node)
    roles = request.roles or secret.roles
    if not set(roles) <= set(secret.roles):
        raise DeniedError(
            f"the token is not for the roles {', '.join(roles)}",
            hint="make one that is, on a host of the cluster: `vastskyctl cluster token"
            f" --role {' --role '.join(roles)}`"
            if set(roles) <= set(JOINING_ROLES)
            else _ONE_MANAGER,
        )
    if not 1 <= len(request.addresses) <= ADDRESSES_MAX:
        raise InvalidError("a node needs one address per data network, at most four")
    _refuse_taken(turn, name, request)
    node = add_node(turn, name, roles, request.addresses, request.port, request.rack)
    cluster = turn.draft.the_cluster()
    manager = turn.draft.nodes[cluster.manager]
    certificate = issuer.issue(request.csr_pem, node.id, node.addresses)
    turn.event(Severity.INFO, "node-joined", node.id, f"node {node.id} joined")
    return Joined(
        cluster=cluster.id,
        cluster_name=cluster.name,
        node=node.id,
        manager=manager.id,
        manager_addresses=manager.addresses,
        manager_port=manager.port,
        roles=node.roles,
        certificate_pem=certificate,
        ca_pem=issuer.ca_pem(),
    )


def _refuse_taken(turn: Turn, name: NodeId, request: Join) -> None:
    known = turn.draft.nodes.get(name)
    if known is not None and turn.facts[name].online:
        raise ExistsError(
            f"there is a node {name} already, and it is online",
            hint="give this host another name with --node",
        )
    for other in turn.draft.nodes.values():
        shared = set(other.addresses) & set(request.addresses)
        if other.id != name and shared:
            raise ConflictError(
                f"{', '.join(sorted(shared))} belongs to node {other.id}",
                hint="give this host's own addresses, `--address ADDRESS`; if it was that node:"
                f" `--node {other.id}`",
            )
        if other.export_port == request.port:
            raise ConflictError(
                f"port {request.port} is where storage hosts serve {other.id}",
                hint="write another port in /etc/vastsky/vastskyd.toml here, as in port = 8884",
            )


def add_node(
    turn: Turn,
    name: NodeId,
    roles: tuple[Role, ...],
    addresses: tuple[str, ...],
    port: int,
    rack: str,
) -> Node:
    """A new node, or one that was reinstalled and comes back by its name."""
    known = turn.draft.nodes.get(name)
    nodes = turn.draft.nodes.values()
    export_port = free_export_port(nodes, (port,)) if known is None else known.export_port
    node = Node(
        id=name,
        roles=roles,
        addresses=addresses,
        port=port,
        export_port=export_port,
        rack=rack,
        joined_s=turn.wall_s,
    )
    turn.draft.put(node)
    return node
