"""How a host comes to belong to a cluster: by founding one, or by joining with a token.

The identity file is written last: until it is there, nothing has happened that trying again does
not overwrite.
"""

import asyncio
import logging
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from vastskyd.config.settings import Config
from vastskyd.core.api import InitCluster, JoinCluster
from vastskyd.core.errors import ConflictError, DamagedError, InvalidError, NotFoundError
from vastskyd.core.ids import SHORT_ID_DIGITS, ClusterId, NodeId, node_id
from vastskyd.core.model import Apart, Cluster, Generation, Node, Role
from vastskyd.core.reaching import free_export_port, is_loopback
from vastskyd.core.state import Draft, load
from vastskyd.ports import Addresses, Clock
from vastskyd.roles.credentials import Credentials
from vastskyd.roles.joining import Issuer
from vastskyd.roles.own_addresses import checked, of_itself, reachable
from vastskyd.store import identity as identities
from vastskyd.store.identity import Identity
from vastskyd.store.sqlite import SqliteStore
from vastskyd.wire.ca import (
    CA_CERT,
    NODE_CERT,
    CertificateAuthority,
    NodeKey,
    replace_link,
)
from vastskyd.wire.joining import Applicant, join
from vastskyd.wire.token import JoinToken, parse_token

log = logging.getLogger(__name__)

_NAME_LENGTH_MAX = 64


def tls_directory(config: Config) -> Path:
    return config.state_path / "tls"


def tls_in_use(config: Config, credentials: Credentials) -> Path:
    """Where the certificates and the key are that this host works with: the state directory, or
    one in memory if the key is given as a credential, and so lies on no disk in the clear.

    /run/vastsky/tls is the one or the other: units take their credentials from there."""
    kept = tls_directory(config)
    made = config.runtime_path / "tls"
    key_pem = credentials.node_key()
    if not key_pem:
        _link(made, kept)
        return kept
    try:
        issued_pem, ca_pem = ((kept / name).read_text("ascii") for name in (NODE_CERT, CA_CERT))
    except OSError as error:
        raise NotFoundError(
            f"there is no certificate in {kept}: {error.strerror}",
            hint="join a cluster with `vastskyctl join TOKEN`",
        ) from error
    except UnicodeDecodeError as error:
        raise DamagedError(f"the certificate in {kept} is not text") from error
    key = NodeKey.parse(key_pem)
    if made.is_symlink():
        made.unlink()
    key.save(made, issued_pem, ca_pem)
    return made


def _link(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)  # of a key that is no credential any more
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_link(path, target)


def _new_key(credentials: Credentials) -> NodeKey:
    given = credentials.node_key()
    return NodeKey.parse(given) if given else NodeKey.create()


def ca_directory(config: Config) -> Path:
    return config.state_path / "ca"


def database(config: Config) -> Path:
    return config.state_path / "manager.db"


@dataclass(frozen=True)
class Authority:
    """roles.joining.Issuer over the cluster's CA."""

    authority: CertificateAuthority
    clock: Clock

    def issue(self, csr_pem: str, node: NodeId, addresses: tuple[str, ...]) -> str:
        return self.authority.issue(csr_pem, node, addresses, self.clock.now_s())

    def ca_pem(self) -> str:
        return self.authority.certificate_pem

    def token(
        self,
        cluster: ClusterId,
        manager: Node,
        secret: str,
        expires_s: float,
        roles: tuple[Role, ...],
    ) -> str:
        return JoinToken(
            ca_fingerprint=self.authority.fingerprint,
            cluster=cluster,
            manager=manager.id,
            addresses=manager.addresses,
            port=manager.port,
            secret=secret,
            expires_s=expires_s,
            roles=roles,
        ).encode()


@dataclass(frozen=True)
class LostAuthority:
    """roles.joining.Issuer without the CA's key: who has joined goes on, nobody else joins."""

    why: str

    def issue(self, csr_pem: str, node: NodeId, addresses: tuple[str, ...]) -> str:
        raise self._error()

    def ca_pem(self) -> str:
        raise self._error()

    def token(
        self,
        cluster: ClusterId,
        manager: Node,
        secret: str,
        expires_s: float,
        roles: tuple[Role, ...],
    ) -> str:
        raise self._error()

    def _error(self) -> DamagedError:
        return DamagedError(
            f"the cluster's CA cannot be used: {self.why}",
            hint="restore its directory from a backup of this host and restart vastskyd; without"
            " it no host can join, and those that have joined go on",
        )


def issuer(config: Config, clock: Clock) -> Issuer:
    """The cluster's CA. A manager whose CA is lost manages all the same, and says so when asked
    for a certificate."""
    try:
        return Authority(CertificateAuthority.load(ca_directory(config)), clock)
    except (NotFoundError, DamagedError) as error:
        log.error("the cluster's CA cannot be used: %s", error.message)
        return LostAuthority(error.message)


def found(
    config: Config,
    clock: Clock,
    request: InitCluster,
    credentials: Credentials,
    here: Addresses,
) -> Identity:
    """This host becomes the manager of a new cluster."""
    name = request.name or "vastsky"
    if len(name) > _NAME_LENGTH_MAX or not name.isprintable():
        raise InvalidError("a cluster's name has 1 to 64 printable characters")
    node = _node_name(request.node)
    roles = _roles(request.roles or config.roles or tuple(Role))
    if Role.MANAGER not in roles:
        raise InvalidError("the first host of a cluster is its manager", hint="add --role manager")
    if request.single and len(roles) < len(Role):
        raise InvalidError(
            "a single host has all roles",
            hint="leave --role away, and roles out of /etc/vastsky/vastskyd.toml",
        )
    addresses = request.addresses or config.addresses
    if request.single:
        addresses = addresses or of_itself(here)
    addresses = checked(addresses, here)
    _refuse_leftovers(config)
    cluster = Cluster(
        id=ClusterId(clock.new_token(SHORT_ID_DIGITS)),
        name=name,
        manager=node,
        created_s=clock.now_s(),
        encryption=request.encryption or config.placement.data_encryption,
        copies_apart=Apart.DISK if request.single else Apart.HOST,
    )
    member = Node(
        id=node,
        roles=roles,
        addresses=addresses,
        port=config.port,
        export_port=free_export_port((), (config.port,)),
        rack=request.rack or config.rack,
        joined_s=clock.now_s(),
    )
    authority = CertificateAuthority.create(cluster.id, clock.now_s())
    authority.save(ca_directory(config))
    key = _new_key(credentials)
    issued = authority.issue(key.csr_pem(), node, addresses, clock.now_s())
    given = bool(credentials.node_key())
    key.save(tls_directory(config), issued, authority.certificate_pem, keep_key=not given)
    _write_records(database(config), cluster, member)
    identity = Identity(
        cluster=cluster.id,
        cluster_name=name,
        node=node,
        roles=roles,
        addresses=addresses,
        port=config.port,
        rack=member.rack,
        manager=node,
        manager_addresses=addresses,
        manager_port=config.port,
    )
    identities.save(config.state_path, identity)
    return identity


def _refuse_leftovers(config: Config) -> None:
    """A database without an identity is either a founding that was cut short, and holds one
    cluster and one node, or something to be looked at by a person."""
    path = database(config)
    if not path.exists():
        return
    store = SqliteStore(path)
    try:
        state = load(store.load())
    finally:
        store.close()
    if len(state.nodes) > 1 or state.disks or state.volumes:
        raise ConflictError(
            f"{path} holds a cluster already",
            hint=f"restore {config.state_path / identities.FILE_NAME}, or move the database away",
        )
    for leftover in path.parent.glob(path.name + "*"):
        leftover.unlink()


def _write_records(path: Path, cluster: Cluster, node: Node) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = SqliteStore(path)
    try:
        draft = Draft(load(store.load()))
        draft.put(cluster)
        draft.put(node)
        draft.put(Generation(number=0))
        store.commit(draft.puts(), draft.deletes())
    finally:
        store.close()


async def enter(
    config: Config,
    clock: Clock,
    request: JoinCluster,
    credentials: Credentials,
    here: Addresses,
) -> Identity:
    """This host becomes a node of the cluster that made the token. NotFoundError: it has not got
    an address that it is to have."""
    token = parse_token(request.token)
    if token.is_expired(clock.now_s()):
        raise InvalidError(
            "the join token has expired", hint="make a new one: 'vastskyctl cluster token'"
        )
    # Within one host all reach each other by its loopback.
    check = checked if all(map(is_loopback, token.addresses)) else reachable
    addresses = await asyncio.to_thread(check, request.addresses or config.addresses, here)
    applicant = Applicant(
        node=_node_name(request.node),
        roles=_roles(request.roles or config.roles or token.roles),
        addresses=addresses,
        port=config.port,
        rack=request.rack or config.rack,
    )
    key = _new_key(credentials)
    joined = await join(token, applicant, key, now_s=clock.now_s())
    given = bool(credentials.node_key())
    directory = tls_directory(config)
    key.save(directory, joined.certificate_pem, joined.ca_pem, keep_key=not given)
    identity = Identity(
        cluster=joined.cluster,
        cluster_name=joined.cluster_name,
        node=joined.node,
        roles=joined.roles,
        addresses=applicant.addresses,
        port=applicant.port,
        rack=applicant.rack,
        manager=joined.manager,
        manager_addresses=joined.manager_addresses,
        manager_port=joined.manager_port,
    )
    identities.save(config.state_path, identity)
    return identity


def _node_name(text: str) -> NodeId:
    return node_id(text or socket.gethostname().partition(".")[0].lower())


def _roles(roles: tuple[Role, ...]) -> tuple[Role, ...]:
    return tuple(role for role in Role if role in roles)
