"""The cluster's own CA, and what a node keeps of it.

A node's directory is laid out as QEMU's TLS credentials want it, because the data path uses the
same certificates: ca-cert.pem, server-cert.pem, server-key.pem, and client-*.pem as links to
the server's. The CA's key lies only where `CertificateAuthority.save` was told to.

Nothing renews certificates yet: a node's ends after five years. A renewal that keeps the key
replaces one file, which is atomic.
"""

import hashlib
import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vastskyd.core.errors import DamagedError, InvalidError, NotFoundError
from vastskyd.core.ids import ClusterId, NodeId, node_id

CA_CERT: Final = "ca-cert.pem"
CA_KEY: Final = "ca-key.pem"
NODE_CERT: Final = "server-cert.pem"
NODE_KEY: Final = "server-key.pem"
_CLIENT_LINKS: Final = (("client-cert.pem", NODE_CERT), ("client-key.pem", NODE_KEY))

DH_PARAMETERS: Final = "dh-params.pem"
# The group ffdhe2048 of RFC 7919. qemu-storage-daemon makes parameters of its own at each start
# if it finds none, which takes seconds; TLS 1.3 with our certificates uses neither.
DH_GROUP_PEM: Final = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""

_CA_LIFE: Final = timedelta(days=3650)
_NODE_LIFE: Final = timedelta(days=1826)
# A host that joins may not have set its clock yet.
_CLOCK_SLACK: Final = timedelta(days=1)


@dataclass(frozen=True)
class CertificateAuthority:
    """Signs for one cluster. Only the manager has one."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @staticmethod
    def create(cluster: ClusterId, now_s: float) -> "CertificateAuthority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = _common_name(f"vastsky {cluster}"[:64])
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key.public_key(), now_s, _CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return CertificateAuthority(certificate, key)

    @staticmethod
    def load(directory: Path) -> "CertificateAuthority":
        certificate = parse_certificate(_read(directory / CA_CERT))
        key = _parse_key(_read(directory / CA_KEY))
        _require_pair(certificate, key, directory / CA_KEY)
        return CertificateAuthority(certificate, key)

    def save(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(directory / CA_KEY, key_pem(self.key))
        _write_private(directory / CA_CERT, self.certificate_pem)

    @property
    def certificate_pem(self) -> str:
        return certificate_pem(self.certificate)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)

    def issue(self, csr_pem: str, node: NodeId, addresses: tuple[str, ...], now_s: float) -> str:
        """The node's certificate, as PEM. Of the CSR only the public key counts: who asks does
        not say who it is."""
        public_key = _csr_key(csr_pem)
        names: list[x509.GeneralName] = [x509.DNSName(node_id(node))]
        names += [x509.IPAddress(ip_address(address)) for address in addresses]
        # Not critical: QEMU before 10.2 refuses a critical usage without keyEncipherment, which
        # RFC 8813 forbids for such keys.
        usage = _key_usage(digital_signature=True)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        subject = x509.SubjectKeyIdentifier.from_public_key(public_key)
        certificate = (
            _builder(self.certificate.subject, _common_name(node), public_key, now_s, _NODE_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(subject, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate_pem(certificate)


@dataclass(frozen=True)
class NodeKey:
    """A node's private key: made on the node, and never leaves it."""

    key: ec.EllipticCurvePrivateKey

    @staticmethod
    def create() -> "NodeKey":
        return NodeKey(ec.generate_private_key(ec.SECP256R1()))

    @staticmethod
    def load(directory: Path) -> "NodeKey":
        return NodeKey(_parse_key(_read(directory / NODE_KEY)))

    @staticmethod
    def parse(pem: str) -> "NodeKey":
        return NodeKey(_parse_key(pem))

    def csr_pem(self) -> str:
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        signed = request.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def save(self, directory: Path, issued_pem: str, ca_pem: str, *, keep_key: bool = True) -> None:
        """The whole directory, or all of it but the key, if that is kept elsewhere; DamagedError,
        and nothing written, if the parts do not belong together."""
        certificate, ca = parse_certificate(issued_pem), parse_certificate(ca_pem)
        check_issued(certificate, ca)
        _require_pair(certificate, self.key, directory / NODE_KEY)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(directory / CA_CERT, certificate_pem(ca))
        if keep_key:
            _write_private(directory / NODE_KEY, key_pem(self.key))
        _write_private(directory / DH_PARAMETERS, DH_GROUP_PEM)
        _write_private(directory / NODE_CERT, certificate_pem(certificate))
        for link, target in _CLIENT_LINKS:
            replace_link(directory / link, target)


def check_issued(certificate: x509.Certificate, ca: x509.Certificate) -> None:
    """DamagedError unless `ca` signed the certificate."""
    ca_key = ca.public_key()
    algorithm = certificate.signature_hash_algorithm
    if not isinstance(ca_key, ec.EllipticCurvePublicKey) or algorithm is None:
        raise DamagedError("the CA's certificate is not one of vastsky")
    try:
        ca_key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(algorithm))
    except InvalidSignature as error:
        raise DamagedError("the certificate was not made by the cluster's CA") from error


def check_certificate_key(certificate: x509.Certificate, key: NodeKey) -> None:
    """DamagedError unless the certificate is for this key."""
    if certificate.public_key() != key.key.public_key():
        raise DamagedError("the certificate is for another key")


def certified_node(certificate: x509.Certificate) -> str:
    """The common name, or nothing."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def fingerprint(certificate: x509.Certificate) -> str:
    """sha256 of the DER form, as hex."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def parse_certificate(pem: str) -> x509.Certificate:
    """The first certificate of the text; what follows it is left out."""
    try:
        return x509.load_pem_x509_certificate(pem.encode("utf-8"))
    except ValueError as error:
        raise DamagedError("this is not a certificate") from error


def certificate_pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode("ascii")


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now_s: float,
    life: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(now_s, UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + life)
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _csr_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode("utf-8"))
        key, signed = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError) as error:
        raise InvalidError("the certificate request cannot be read") from error
    if not signed:
        raise InvalidError("the certificate request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidError("the certificate request is not for an EC P-256 key")
    return key


def ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidError(f"{text!r} is not an IP address") from error


def _parse_key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem.encode("utf-8"), password=None)
    except (ValueError, TypeError) as error:
        raise DamagedError("this is not a private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DamagedError("this is not an EC private key")
    return key


def _require_pair(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, path: Path
) -> None:
    if certificate.public_key() != key.public_key():
        raise DamagedError(f"{path}: the certificate beside it is for another key")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} does not exist", hint="join a cluster: `vastskyctl join TOKEN`"
        ) from error
    except ValueError as error:
        raise DamagedError(f"{path} is not text") from error


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, durable, and never readable by others, not even for a moment."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync_directory(path.parent)


def replace_link(path: Path, target: str | Path) -> None:
    """At no moment is there none."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
