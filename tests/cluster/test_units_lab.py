"""vastskyd as systemd runs it: sandbox, memory, reloads."""

import re
import time
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, eventually, exposure
from tests.cluster.matrix import HEAD
from tests.demo.hosts import MANAGER
from tests.lab.guest import Guest
from vastskyd.wire.ca import CertificateAuthority, NodeKey

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("empty")]

TLS = "/var/lib/vastsky/tls"
UNIT = "vastsky-attach@vol-1.service"


# --- the sandbox


def test_the_daemon_is_shut_in_and_holds_its_memory(cluster: Cluster) -> None:
    for name in (MANAGER, "store1"):
        guest = cluster[name]
        assert exposure(guest, "vastskyd.service") <= 3.5
        status = guest.run("cat /proc/$(systemctl show -P MainPID vastskyd)/status").stdout
        locked = re.search(r"^VmLck:\s+(\d+)", status, re.M)
        assert locked is not None
        assert int(locked[1]) > 10_000
        capabilities = re.search(r"^CapBnd:\s+([0-9a-f]+)", status, re.M)
        assert capabilities is not None
        assert not int(capabilities[1], 16) >> 16 & 1  # CAP_SYS_MODULE
        assert re.search(r"^Seccomp:\s+2$", status, re.M)
        journal = guest.run("journalctl -q -b -o cat -u vastskyd").stdout
        assert "may wait for vastskyd" not in journal


def test_units_are_whole(cluster: Cluster) -> None:
    said = cluster[MANAGER].run(
        "cd /usr/lib/systemd/system; systemd-analyze verify --man=no vastskyd.service"
        f" vastsky-let-go.service {UNIT} vastsky-export@head1.service 2>&1 | grep -i vastsky",
        90,
        check=False,
    )
    assert said.stdout == ""


def test_an_export_server_serves_from_its_sandbox(cluster: Cluster) -> None:
    with cluster.new_volume("boxed", 16, HEAD):
        store = cluster.stores_of("boxed")[0]
        assert exposure(cluster[store], f"vastsky-export@{HEAD}.service") <= 1.6
        cluster[HEAD].run("dd if=/dev/zero of=/dev/vastsky/boxed bs=1M count=4 oflag=direct", 60)


def test_who_uses_a_volume_is_seen_from_within_the_sandbox(cluster: Cluster) -> None:
    """Mounts below /home and /tmp, which it does not see itself, and other users' programs."""
    head = cluster[HEAD]
    with cluster.new_volume("used", 16, HEAD):
        head.run("mkfs.ext4 -q -F /dev/vastsky/used; mkdir -p /tmp/deep /home/deep")
        for place in ("/tmp/deep", "/home/deep"):
            head.run(f"mount /dev/vastsky/used {place}")
            refused = head.run("vastskyctl volume leave used", 60, check=False)
            assert refused.exit == 4
            assert f"mounted on {place}" in refused.stderr
            head.run(f"umount {place}")
        head.run("chmod 666 $(readlink -f /dev/vastsky/used)")
        head.run(
            "systemd-run --quiet --unit=opener -p User=nobody sh -c"
            " 'exec 3</dev/vastsky/used; sleep 600'"
        )
        eventually("it is opened", lambda: "opener" in _users(head), 30)
        head.run("systemctl stop opener")


def _users(head: Guest) -> str:
    said = head.run("vastskyctl volume leave used", 60, check=False).stderr
    return "opener" if re.search(r"opened by \w+ \(pid \d+\)", said) else said


# --- reloads


def test_a_reload_rereads_certificates_and_nobody_notices(cluster: Cluster, tmp_path: Path) -> None:
    head = cluster[HEAD]
    ca_files = {}
    for name in ("ca-cert.pem", "ca-key.pem"):
        ca_files[name] = cluster[MANAGER].get(f"/var/lib/vastsky/ca/{name}")
        (tmp_path / name).write_bytes(ca_files[name])
    (tmp_path / "server-key.pem").write_bytes(head.get(f"{TLS}/server-key.pem"))
    authority, key = CertificateAuthority.load(tmp_path), NodeKey.load(tmp_path)
    addresses = (head.address("A"), head.address("B"))
    fresh = authority.issue(key.csr_pem(), HEAD, addresses, time.time())  # type: ignore[arg-type]
    serial = (
        "echo | openssl s_client -connect 127.0.0.1:8884 2>/dev/null | openssl x509 -noout -serial"
    )
    pid = head.run("systemctl show -P MainPID vastskyd").stdout
    before = head.run(serial, 60).stdout
    assert "serial=" in before
    with cluster.new_volume("reloaded", 16, HEAD) as device:
        head.put(f"{TLS}/server-cert.pem", fresh.encode(), 0o600)
        head.run("systemctl reload vastskyd", 60)
        assert head.run(serial, 60).stdout not in (before, "")
        assert head.run("systemctl show -P MainPID vastskyd").stdout == pid
        assert (
            "session ended" not in head.run("journalctl -q -o cat -u vastskyd --since -20s").stdout
        )
        head.run(f"dd if=/dev/zero of={device} bs=1M count=4 oflag=direct", 60)
        head.run("systemctl restart vastskyd")
        cluster.online()
