"""TLS for NBD: the handshake here, the records in the kernel (kTLS)."""

import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

from vastskyd.core.errors import DeniedError, DeviceError, UnreachableError
from vastskyd.core.ids import NodeId

CA = "ca-cert.pem"
CERTIFICATE = "client-cert.pem"
KEY = "client-key.pem"

# ssl.OP_ENABLE_KTLS, which Python names since 3.12 only.
_ENABLE_KTLS = 1 << 3

# include/uapi/linux/tls.h
_SOL_TLS = 282
_TLS_TX = 1
_TLS_RX = 2
_CRYPTO_INFO_BYTES = 4


def client_context(tls_dir: Path) -> ssl.SSLContext:
    """Mutual certificates of the cluster's CA, TLS 1.3. DeviceError: a file is missing or bad."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The name is checked against the node's id in `start`: Python would look at no CN.
    context.check_hostname = False
    context.options |= _ENABLE_KTLS
    try:
        context.load_verify_locations(tls_dir / CA)
        context.load_cert_chain(tls_dir / CERTIFICATE, tls_dir / KEY)
    except OSError as error:  # ssl.SSLError is one
        raise DeviceError(
            f"the certificates in {tls_dir} cannot be used: {error}",
            hint="restore the directory from a backup, then `systemctl restart vastskyd`",
        ) from error
    return context


def start(context: ssl.SSLContext, plain: socket.socket, server: NodeId) -> ssl.SSLSocket:
    """The handshake on a connected socket. DeniedError: the server's certificate is not by our
    CA or not `server`'s, or the server does not want ours."""
    try:
        tls = context.wrap_socket(plain, server_hostname=None)
    except TimeoutError as error:
        raise UnreachableError("the export server did not answer in time (TLS)") from error
    except ssl.SSLError as error:
        raise DeniedError(f"no TLS with the export server: {error.reason or error}") from error
    except OSError as error:
        raise UnreachableError(f"the export server hung up during TLS: {error}") from error
    certificate = tls.getpeercert() or {}
    names = tuple(peer_names(certificate))
    if server not in names:
        tls.close()
        raise DeniedError(
            f"the export server's certificate is {', '.join(names) or 'nobody'}'s, not {server}'s"
        )
    return tls


def peer_names(certificate: Mapping[str, object]) -> Iterator[str]:
    """The common name and the DNS names of what ssl.SSLSocket.getpeercert answers."""
    subject = certificate.get("subject", ())
    if isinstance(subject, tuple):
        for relative in subject:
            for kind, value in relative:
                if kind == "commonName":
                    yield value
    alternatives = certificate.get("subjectAltName", ())
    if isinstance(alternatives, tuple):
        for kind, value in alternatives:
            if kind == "DNS":
                yield value


def require_kernel_tls(tls: ssl.SSLSocket) -> None:
    """DeviceError unless the kernel has both directions. With only the sending half, the NBD
    driver would read TLS records as replies (seen with OpenSSL 3.0 and TLS 1.3)."""
    for direction, name in ((_TLS_TX, "sending"), (_TLS_RX, "receiving")):
        try:
            tls.getsockopt(_SOL_TLS, direction, _CRYPTO_INFO_BYTES)
        except OSError as error:
            raise DeviceError(
                f"kernel TLS is not there for {name}: {error.strerror}",
                hint="it needs the module tls and OpenSSL 3.2 or later; or set"
                ' data_encryption = "none" on an isolated network',
            ) from error
