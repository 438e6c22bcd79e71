"""A cluster's certificate authority, for tests of the encrypted data path."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vastskyd.wire.ca import DH_GROUP_PEM, DH_PARAMETERS


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


class Authority:
    """Writes into `directory` what QEMU looks for there, and other hosts' certificates."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._key = _key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        self._write("ca-cert.pem", self._sign("ca", self._key, ca=True))
        self._write(DH_PARAMETERS, DH_GROUP_PEM.encode())

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> bytes:
        now = datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017
        day = datetime.timedelta(days=1)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, stem: str) -> tuple[Path, Path]:
        key = _key()
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return (
            self._write(f"{stem}-cert.pem", self._sign(name, key, ca=False)),
            self._write(f"{stem}-key.pem", pem),
        )

    def context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self._directory / "ca-cert.pem")
        context.load_cert_chain(*self.issue(name, name))
        return context

    def _write(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.touch(0o600)
        path.write_bytes(content)
        return path
