"""Mounts of volumes at boot and at shutdown, with the manager and without."""

import os
import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.conftest import lent
from tests.cluster.matrix import HEAD
from tests.demo.hosts import MANAGER
from tests.lab.guest import Guest

pytestmark = pytest.mark.lab
ROOT = Path(__file__).resolve().parents[2]

# Each boot and shutdown of a guest takes a minute here: more of them are for once.
BOOTS = int(os.environ.get("VASTSKY_BOOTS", "1"))
# What systemd waits for an unmounting (30 s), for its killing (30 s), and let-go (60 s), and slack.
SHUTDOWN_LIMIT_S = 300
UNIT = "vastsky-attach@vol-1.service"
MOUNT = "/mnt/u"
# An unmounting that waits is given up after half a minute, and so is its killing: without it
# after 90 s each, which nobody here need wait for.
FSTAB = (
    f"/dev/vastsky/vol-1 {MOUNT} ext4 _netdev,x-systemd.requires={UNIT},"
    "x-systemd.mount-timeout=30s,"
    "x-systemd.wanted-by=remote-fs.target,"
    "x-systemd.wanted-by=dev-vastsky-vol\\x2d1.device 0 0\n"
)


@pytest.fixture(scope="module")
def in_fstab(cluster: Cluster) -> Iterator[None]:
    head = cluster[HEAD]
    fstab = head.get("/etc/fstab")
    head.put("/etc/fstab", fstab + FSTAB.encode())
    head.run(f"mkdir -p {MOUNT}; systemctl daemon-reload")
    # Hosts with LVM have it: at shutdown it takes down whatever device-mapper and md have.
    head.run("systemctl unmask blk-availability.service; systemctl start blk-availability.service")
    yield
    head.run("systemctl mask blk-availability.service", 60)
    head.put("/etc/fstab", fstab)
    head.run("systemctl daemon-reload; systemctl stop mnt-u.mount", 200, check=False)
    head.run(f"systemctl stop {UNIT}; umount -l {MOUNT}", 60, check=False)
    if cluster.whole:
        cluster.delete_all()


@pytest.fixture
def mounted(cluster: Cluster, in_fstab: None, request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A head with volume vol-1 in its fstab, mounted. It stays from test to test."""
    head = cluster[HEAD]
    with lent(cluster, request):
        if not is_mounted(head):
            cluster.delete_all()
            cluster.ctl("volume create vol-1 32M --copies 2", 90)
            head.run("vastskyctl volume take vol-1 && mkfs.ext4 -q -F /dev/vastsky/vol-1", 120)
            head.run("systemctl start mnt-u.mount", 150)
        yield head


def is_mounted(head: Guest, place: str = MOUNT) -> bool:
    return head.run(f"mountpoint -q {place}", check=False).exit == 0


@pytest.mark.parametrize("number", range(BOOTS))
def test_a_mount_comes_at_boot_and_goes_at_shutdown(
    cluster: Cluster, mounted: Guest, number: int
) -> None:
    mounted.run(f"dd if=/dev/urandom of={MOUNT}/file bs=1M count=4 status=none")
    wanted = mounted.run(f"sha256sum < {MOUNT}/file").stdout
    begun_s = time.monotonic()
    mounted.shutdown(SHUTDOWN_LIMIT_S)
    cluster.detached("vol-1", 30)
    cluster.power_on(HEAD)
    print(f"boot {number}: {time.monotonic() - begun_s:.0f} s")
    eventually("it is mounted", lambda: is_mounted(mounted), 120)
    assert mounted.run(f"sha256sum < {MOUNT}/file").stdout == wanted
    kernel = mounted.run("journalctl -k -b -q -o cat").stdout
    assert "recovering journal" not in kernel
    assert mounted.run(f"systemctl is-active {UNIT}").stdout.strip() == "active"


def test_without_the_manager_a_shutdown_and_a_boot_end(cluster: Cluster, mounted: Guest) -> None:
    """The mount follows once the manager is back."""
    cluster[MANAGER].run("systemctl stop vastskyd", 60)
    mounted.shutdown(SHUTDOWN_LIMIT_S)
    cluster.power_on(HEAD)
    eventually(
        "the boot is over",
        lambda: (
            mounted.run("systemctl is-system-running", check=False).stdout.strip()
            in ("running", "degraded")
        ),
        240,
    )
    assert not is_mounted(mounted)
    cluster[MANAGER].run("systemctl start vastskyd", 60)
    eventually("it is mounted", lambda: is_mounted(mounted), 240)


def test_without_storage_and_manager_a_shutdown_ends(cluster: Cluster, mounted: Guest) -> None:
    """Writes wait, the unmounting too, and nobody is left who could decide."""
    mounted.run(f"dd if=/dev/zero of={MOUNT}/file bs=1M count=4 status=none; sync -f {MOUNT}")
    # Before the cut: behind it, a commit of the file system's journal may hold up a dd as well.
    mounted.run(f"dd if=/dev/zero of={MOUNT}/more bs=1M count=4 status=none")
    for network in ("A", "B"):
        mounted.cut_silently(network)
    mounted.shutdown(SHUTDOWN_LIMIT_S)
    for network in ("A", "B"):
        mounted.restore(network)
    cluster.power_on(HEAD)
    eventually("it is mounted", lambda: is_mounted(mounted), 240)
    assert mounted.run(f"stat -c %s {MOUNT}/file").stdout.strip() == str(4 << 20)


def test_a_volume_that_another_host_has_is_not_taken_from_it(
    cluster: Cluster, mounted: Guest
) -> None:
    other = cluster[MANAGER]
    refused = other.run(f"systemctl start {UNIT}", 120, check=False)
    assert refused.exit != 0
    assert f"is attached on {HEAD}" in other.run(f"journalctl -q -o cat -u {UNIT}").stdout
    assert cluster.volume("vol-1").head == HEAD
    assert is_mounted(mounted)
    other.run(f"systemctl stop {UNIT}; systemctl reset-failed {UNIT}", 60, check=False)


LVM_UNIT = "/etc/systemd/system/vg-ours.service"
LVM_FSTAB = "/dev/ours/lv /mnt/lv ext4 _netdev,nofail,x-systemd.requires=vg-ours.service 0 0\n"
# Masked on the lab's hosts until a test is about them.
LVM_RULES = "56-lvm.rules", "69-lvm.rules"


def lvm_unit() -> str:
    """As the manual has it, for another volume."""
    page = (ROOT / "docs/man/vastsky-attach.7.md").read_text()
    (block,) = re.findall(rf"    # {LVM_UNIT}\n((?:    .*\n)+)", page)
    return textwrap.dedent(block).replace("@data.", "@vol-2.")


@pytest.fixture
def with_lvm(mounted: Guest) -> Iterator[Guest]:
    rules = " ".join(f"/etc/udev/rules.d/{name}" for name in LVM_RULES)
    mounted.run(f"rm -f {rules}; udevadm control --reload; mkdir -p /mnt/lv")
    fstab = mounted.get("/etc/fstab")
    mounted.put("/etc/fstab", fstab + LVM_FSTAB.encode())
    mounted.put(LVM_UNIT, lvm_unit().encode())
    mounted.run("systemctl daemon-reload")
    yield mounted
    mounted.put("/etc/fstab", fstab)
    mounted.run(
        "systemctl stop mnt-lv.mount vg-ours.service vastsky-attach@vol-2.service;"
        f" rm {LVM_UNIT}; systemctl daemon-reload;"
        f" for rule in {rules}; do ln -sf /dev/null $rule; done; udevadm control --reload",
        120,
        check=False,
    )


def test_lvm_on_a_volume_comes_and_goes_with_it(cluster: Cluster, with_lvm: Guest) -> None:
    head = with_lvm
    cluster.ctl("volume create vol-2 32M --copies 2", 90)
    head.run("systemctl start vastsky-attach@vol-2.service", 120)
    head.run("pvcreate -y /dev/vastsky/vol-2 && vgcreate ours /dev/vastsky/vol-2", 90)
    head.run("lvcreate -y -n lv -l 100%FREE ours && mkfs.ext4 -q /dev/ours/lv", 90)
    head.run("systemctl start mnt-lv.mount", 120)
    head.run("dd if=/dev/urandom of=/mnt/lv/file bs=1M count=4 status=none")
    wanted = head.run("sha256sum < /mnt/lv/file").stdout
    head.shutdown(SHUTDOWN_LIMIT_S)
    cluster.detached("vol-2", 30)
    cluster.power_on(HEAD)
    eventually("it is mounted", lambda: is_mounted(head, "/mnt/lv"), 120)
    assert head.run("sha256sum < /mnt/lv/file").stdout == wanted
