"""The fault matrix: a head. docs/failures.md has a line for each of these."""

import pytest

from tests.cluster.cluster import Cluster, Writer, eventually
from tests.cluster.matrix import HEAD, row
from tests.demo.hosts import MANAGER

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("rows")]

NOTICED_S = 8.0
SHUTDOWN_LIMIT_S = 150

MOUNT = """\
[Unit]
BindsTo=dev-vastsky-two.device
After=dev-vastsky-two.device
[Mount]
What=/dev/vastsky/two
Where=/mnt/two
Type=ext4
[Install]
WantedBy=dev-vastsky-two.device
"""


def test_head_power_cut(cluster: Cluster) -> None:
    with row(cluster, "head-power-cut", "two", "three") as it:
        it.strike(cluster[HEAD].kill)
        it.lost_power()
        it.says(
            status=[f"node {HEAD} is unreachable", f"volume two is unknown: its head {HEAD}"],
            events=["node-unreachable"],
            noticed_after_s=NOTICED_S,
        )
        cluster.power_on(HEAD)
        cluster.attached("two")
        cluster.attached("three")
        it.verify()
        it.begin_again()


def test_head_hangs_while_its_volume_moves(cluster: Cluster) -> None:
    """It has a standby, which takes over; when it returns nothing that it still wrote counts."""
    with row(cluster, "head-hangs-while-its-volume-moves", "two") as it:
        cluster.ctl(f"volume set two --standby {MANAGER}")
        it.strike(cluster[HEAD].pause)
        it.says(
            status=[f"node {HEAD} is unreachable"],
            events=["node-unreachable", "head-fenced", "volume-attached"],
            noticed_after_s=NOTICED_S + 10,
        )
        assert cluster.volume("two").head == MANAGER
        moved = it.move("two", MANAGER)
        moved.goes_on(10)
        cluster[HEAD].resume()
        it.fenced()
        cluster.online()
        eventually("the old head has nothing of it", lambda: not it.stack(HEAD, "two"), 60)
        it.journal_has(HEAD, "fenced")
        moved.goes_on(10)
        it.comes_home("two")


def test_head_cut_off_from_the_manager(cluster: Cluster) -> None:
    """It reaches its storage and writes: until the volume is moved, then not a block more."""
    with row(cluster, "head-cut-off-from-the-manager", "two") as it:
        it.strike(lambda: cluster.cut_off(HEAD, MANAGER))
        it.says(
            status=[f"node {HEAD} is unreachable from the manager, but .* reaches it"],
            noticed_after_s=NOTICED_S,
        )
        it.goes_on()
        cluster.ctl(f"volume failover two {MANAGER} --yes", 120)
        before = it.writers["two"].count()
        moved = it.move("two", MANAGER)
        moved.goes_on(10)
        assert it.old_count() <= before + 1  # one that all legs had when it was fenced
        cluster.join_again(HEAD)
        it.fenced()
        cluster.online()
        eventually("the old head has nothing of it", lambda: not it.stack(HEAD, "two"), 60)
        it.comes_home("two")


def test_head_daemon_killed(cluster: Cluster) -> None:
    with row(cluster, "head-daemon-killed", "two", "three") as it:
        it.strike(lambda: cluster.kill_daemon(HEAD))
        it.goes_on(20)
        cluster.online()
        assert "leg-lost" not in it.events()


def test_head_failover_with_a_mount(cluster: Cluster) -> None:
    """The mount unit follows the volume to the standby head."""
    cluster.ctl(f"volume set two --standby {MANAGER} --standby {HEAD}")
    cluster[HEAD].run("mkfs.ext4 -q -F /dev/vastsky/two")
    for name in (HEAD, MANAGER):
        cluster[name].put("/etc/systemd/system/mnt-two.mount", MOUNT.encode())
        cluster[name].run("systemctl daemon-reload; systemctl enable mnt-two.mount")
    cluster[HEAD].run("systemctl start mnt-two.mount", 60)
    writer = Writer(cluster[HEAD], "/mnt/two/blocks", "mounted-two", 8 << 20).begin()
    writer.goes_on(10)
    with row(cluster, "head-failover-with-a-mount", "three") as it:
        it.strike(cluster[HEAD].kill)
        it.lost_power()
        writer.lost_power()
        it.says(events=["head-fenced", "volume-attached"], noticed_after_s=NOTICED_S + 10)
        eventually(
            "it is mounted there",
            lambda: cluster[MANAGER].run("mountpoint -q /mnt/two", check=False).exit == 0,
            60,
        )
        cluster.power_on(HEAD)
        writer.verify(cluster[MANAGER])
        cluster.attached("three")
        it.verify()
        it.begin_again()
    cluster[MANAGER].run("systemctl disable --now mnt-two.mount", 60)
    cluster.ctl("volume set two --no-standby")
    cluster.ctl("volume detach two")
    cluster[HEAD].run("systemctl disable mnt-two.mount")


def test_head_reboot_with_a_mount(cluster: Cluster) -> None:
    """In good order: file systems are left clean, and the shutdown does not hang, even with a
    storage host away."""
    head = cluster[HEAD]
    head.run("mkfs.ext4 -q -F /dev/vastsky/two && mkdir -p /mnt/r && mount /dev/vastsky/two /mnt/r")
    head.run("dd if=/dev/urandom of=/mnt/r/file bs=1M count=4 status=none && sync")
    wanted = head.run("sha256sum < /mnt/r/file").stdout
    with row(cluster, "head-reboot-with-a-mount", "three") as it:
        victim = cluster.stores_of("two")[0]
        cluster[victim].kill()
        it.writers["three"].goes_on()
        it.stop("three")
        it.strike(lambda: head.reboot(SHUTDOWN_LIMIT_S))
        cluster.hosts.put_programs(head)
        cluster.attached("two")
        cluster.attached("three")
        head.run("mkdir -p /mnt/r && mount /dev/vastsky/two /mnt/r")
        assert head.run("sha256sum < /mnt/r/file").stdout == wanted
        head.run("umount /mnt/r")
        assert "recovering journal" not in head.run("journalctl -k -b -q -o cat").stdout
        it.begin_again()
        cluster.power_on(victim)
