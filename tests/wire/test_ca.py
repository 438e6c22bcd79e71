import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from tests.wire.lab import CLUSTER, NOW_S, S1, S2
from vastskyd.core.errors import DamagedError, InvalidError, NotFoundError
from vastskyd.wire.ca import (
    CertificateAuthority,
    NodeKey,
    certificate_pem,
    certified_node,
    check_issued,
    fingerprint,
    key_pem,
    parse_certificate,
)
from vastskyd.wire.tls import NodeTls


def test_a_certificate_says_what_the_manager_says(ca: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "m1")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("m1")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = csr.public_bytes(serialization.Encoding.PEM).decode()
    issued = parse_certificate(ca.issue(pem, S1, ("10.0.0.1", "fd00::1"), NOW_S))
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certified_node(issued) == S1
    assert issued.subject.rfc4514_string() == "CN=s1"  # what QEMU's authorisation compares
    assert names.get_values_for_type(x509.DNSName) == [S1]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "fd00::1"]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    check_issued(issued, ca.certificate)


def test_bad_certificate_requests_are_invalid(ca: CertificateAuthority) -> None:
    good = NodeKey.create().csr_pem()
    other = rsa.generate_private_key(65537, 1024)
    subject = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    weak = subject.sign(other, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    forged = x509.load_pem_x509_csr(good.encode()).public_bytes(serialization.Encoding.DER)
    broken = forged[:-3] + bytes([forged[-3] ^ 1]) + forged[-2:]
    unsigned = x509.load_der_x509_csr(broken).public_bytes(serialization.Encoding.PEM).decode()
    for pem in ("", "junk", good[:100], weak, unsigned, "\ud7ff", "\0"):
        with pytest.raises(InvalidError):
            ca.issue(pem, S1, ("10.0.0.1",), NOW_S)
    for address in ("", "10.0.0", "host.example", "10.0.0.1/24"):
        with pytest.raises(InvalidError):
            ca.issue(good, S1, (address,), NOW_S)
    with pytest.raises(InvalidError):
        ca.issue(good, type(S1)("Not A Node"), ("10.0.0.1",), NOW_S)


def test_the_ca_is_kept_and_read_back(ca: CertificateAuthority, tmp_path: Path) -> None:
    ca.save(tmp_path / "ca")
    again = CertificateAuthority.load(tmp_path / "ca")
    assert again.fingerprint == ca.fingerprint == fingerprint(ca.certificate)
    assert again.certificate_pem == certificate_pem(ca.certificate)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()} == {0o600}
    (tmp_path / "ca" / "ca-key.pem").write_text(key_pem(NodeKey.create().key))
    with pytest.raises(DamagedError):
        CertificateAuthority.load(tmp_path / "ca")
    with pytest.raises(NotFoundError):
        CertificateAuthority.load(tmp_path / "none")


def test_a_node_directory_is_as_qemu_wants_it(ca: CertificateAuthority, tmp_path: Path) -> None:
    key = NodeKey.create()
    directory = tmp_path / "tls"
    for _ in range(2):  # again, over what is there
        key.save(directory, ca.issue(key.csr_pem(), S1, ("10.0.0.1",), NOW_S), ca.certificate_pem)
    names = {path.name for path in directory.iterdir()}
    assert names == {
        "ca-cert.pem",
        "server-cert.pem",
        "server-key.pem",
        "client-cert.pem",
        "client-key.pem",
        "dh-params.pem",
    }
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    assert (directory / "client-key.pem").read_text() == key_pem(key.key)
    assert NodeKey.load(directory).key.public_key() == key.key.public_key()
    NodeTls.load(directory)


def test_parts_that_do_not_belong_together_are_not_saved(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    key = NodeKey.create()
    issued = ca.issue(key.csr_pem(), S1, ("10.0.0.1",), NOW_S)
    other = CertificateAuthority.create(CLUSTER, NOW_S)
    with pytest.raises(DamagedError):
        NodeKey.create().save(tmp_path / "tls", issued, ca.certificate_pem)
    with pytest.raises(DamagedError):
        key.save(tmp_path / "tls", issued, other.certificate_pem)
    with pytest.raises(DamagedError):
        key.save(tmp_path / "tls", "junk", ca.certificate_pem)
    assert not (tmp_path / "tls").exists()


def test_a_directory_without_or_with_wrong_files_is_told(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError):
        NodeTls.load(tmp_path)
    key = NodeKey.create()
    issued = ca.issue(key.csr_pem(), S2, ("10.0.0.1",), NOW_S)
    key.save(tmp_path, issued, ca.certificate_pem)
    (tmp_path / "server-key.pem").write_text(key_pem(NodeKey.create().key))
    with pytest.raises(DamagedError):
        NodeTls.load(tmp_path)


def test_openssl_agrees_by_its_strict_rules(ca: CertificateAuthority, tmp_path: Path) -> None:
    key = NodeKey.create()
    key.save(tmp_path, ca.issue(key.csr_pem(), S1, ("10.0.0.1",), NOW_S), ca.certificate_pem)
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile"]
        files = [str(tmp_path / "ca-cert.pem"), str(tmp_path / "server-cert.pem")]
        done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_directory_has_the_named_group_for_qemu(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    """Without it qemu-storage-daemon computes one at each start, and an attach waits for it."""
    key = NodeKey.create()
    key.save(tmp_path, ca.issue(key.csr_pem(), S1, (), NOW_S), ca.certificate_pem)
    content = (tmp_path / "dh-params.pem").read_text()
    der = ssl.PEM_cert_to_DER_cert(content.replace("DH PARAMETERS", "CERTIFICATE"))
    assert len(der) == 268  # PKCS#3: a prime of 2048 bits
    assert der.endswith(b"\x02\x01\x02")  # and the generator 2
