"""TLS contexts: 1.3 only, the cluster's own CA only, and who a certificate speaks for."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vastskyd.core.errors import DamagedError, DeniedError, InvalidError, NotFoundError
from vastskyd.core.ids import NodeId, node_id
from vastskyd.wire.ca import CA_CERT, NODE_CERT, NODE_KEY

_RESTORE = (
    "restore the directory from a backup; a host that is not the manager may join anew instead:"
    " remove node.json in its state directory, `systemctl restart vastskyd`, and then"
    " `vastskyctl join TOKEN`"
)


@dataclass(frozen=True)
class NodeTls:
    """What a node needs to talk to its peers, read from its directory once. Connections made
    later use a later one; those that stand keep theirs."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    ca_pem: str

    @staticmethod
    def load(directory: Path) -> "NodeTls":
        try:
            ca_pem = (directory / CA_CERT).read_text(encoding="ascii")
            return NodeTls(_server(directory, ca_pem), _client(directory, ca_pem), ca_pem)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"there is no certificate in {directory}",
                hint=_RESTORE,
            ) from error
        except (ssl.SSLError, ValueError) as error:
            raise DamagedError(
                f"the certificate in {directory} cannot be used: {error}",
                hint=_RESTORE,
            ) from error


def _server(directory: Path, ca_pem: str) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.load_verify_locations(cadata=ca_pem)
    context.load_cert_chain(directory / NODE_CERT, directory / NODE_KEY)
    # A host without a certificate may ask to join. One with a wrong certificate gets nothing.
    context.verify_mode = ssl.CERT_OPTIONAL
    # A resumed session would skip the check of the certificate.
    context.num_tickets = 0
    return context


def _client(directory: Path, ca_pem: str) -> ssl.SSLContext:
    context = joining_context(ca_pem)
    context.load_cert_chain(directory / NODE_CERT, directory / NODE_KEY)
    return context


def joining_context(ca_pem: str) -> ssl.SSLContext:
    """Trusts exactly this CA, and checks that the server is the node it is asked for."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    context.load_verify_locations(cadata=ca_pem)
    return context


def unverified_context() -> ssl.SSLContext:
    """Trusts nobody and checks nothing: only for fetching the CA's certificate, which is then
    compared with the token's fingerprint. No secret may travel on it."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def peer_node(certificate: dict[str, Any] | None) -> NodeId | None:
    """The node a verified certificate (as `getpeercert` shows it) speaks for; None: the peer
    showed no certificate. DeniedError if it speaks for no node."""
    if not certificate:
        return None
    subject = [pair for relative in certificate.get("subject", ()) for pair in relative]
    names = [value for key, value in subject if key == "commonName"]
    if len(names) != 1 or ("DNS", names[0]) not in certificate.get("subjectAltName", ()):
        raise DeniedError("the certificate speaks for no node")
    try:
        return node_id(names[0])
    except InvalidError as error:
        raise DeniedError("the certificate speaks for no node") from error
