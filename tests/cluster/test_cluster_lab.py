"""Faults of every kind on real kernels, with a program that writes meanwhile."""

import random
import time

import pytest

from tests.cluster.cluster import Cluster, Writer, eventually
from tests.demo.copies import compare_copies
from tests.demo.hosts import MIB
from tests.lab.guest import Guest
from vastskyd.core.model import AttachmentState

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("empty")]

BUSY = 4  # vastskyctl's exit code
LATEST_KILL_S = 2.0
FOUND = "journalctl -q -u vastskyd --grep 'of an earlier vastskyd, ended now'"
MAIN_PID = "systemctl show --property MainPID --value vastskyd"


USERS = {
    "mount": (
        "mkfs.ext4 -q {device} && mkdir -p /mnt/used && mount {device} /mnt/used",
        "umount /mnt/used",
        "mounted on /mnt/used",
    ),
    "process": (
        "systemd-run -q --unit=opener bash -c 'exec 9<{device}; exec sleep 600';"
        " until ls -l /proc/*/fd 2>/dev/null | grep -q {device}; do sleep 0.1; done",
        "systemctl stop opener",
        "opened by sleep (pid ",
    ),
    "dm": (
        "dmsetup create upon --table '0 2048 linear {device} 0'",
        "dmsetup remove --retry upon",
        "(upon)",
    ),
}


def test_a_volume_in_use_is_not_detached_and_its_user_is_named(cluster: Cluster) -> None:
    with cluster.new_volume("used", 16, "head2") as device:
        for begin, end, who in USERS.values():
            path = cluster["head2"].run(f"readlink -f {device}").stdout.strip()
            cluster["head2"].run(begin.format(device=path))
            refused = cluster["head1"].run("vastskyctl volume detach used", 60, check=False)
            assert refused.exit == BUSY, refused
            assert who in refused.stderr
            assert cluster.volume("used").attachment is AttachmentState.ATTACHED
            cluster["head2"].run(end)


def test_daemons_killed_half_way_through_an_attach(cluster: Cluster) -> None:
    """head2 builds the stack, store1 exports, head1 is the manager. And a detach takes away all
    that the attach made."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    cluster.ctl("volume create killed 96M")
    before = cluster.leftovers()
    assert set(before) <= set(cluster.hosts.stores)
    for victim in ("head2", "store1", "head1"):
        cluster.ctl("volume attach killed head2 --no-wait")
        time.sleep(moments.uniform(0, LATEST_KILL_S))
        cluster.kill_daemon(victim)
        cluster.attached("killed")
        cluster.healthy("killed")
        assert cluster.leftovers() != before
        eventually("it is asked to detach", lambda: cluster.ctl("volume detach killed"), 60)
        cluster.clean(besides=before)
    eventually("it is deleted", lambda: cluster.ctl("volume delete killed --yes"), 60)
    cluster.clean()


def test_daemons_begin_anew_under_a_mounted_volume(cluster: Cluster) -> None:
    with cluster.new_volume("mounted", 64, "head2") as device:
        head = cluster["head2"]
        head.run(f"mkfs.ext4 -q -b 4096 {device} && mkdir -p /mnt/m && mount {device} /mnt/m")
        writer = Writer(head, "/mnt/m/blocks", "mounted", 32 * MIB).begin()
        writer.goes_on()
        for victim in ("head2", "head1", "store1", "store2", "store3"):
            cluster.kill_daemon(victim)
            writer.goes_on()
        cluster["head2"].run("systemctl restart vastskyd", 60)
        writer.goes_on()
        cluster.online()
        cluster.healthy("mounted")
        print(writer.end())
        writer.verify()
        head.run("umount /mnt/m")


def test_a_daemon_killed_while_the_kernel_has_a_call_of_its_is_back_at_once(
    cluster: Cluster,
) -> None:
    """A disk of its host stands still, so a write to it sleeps, and cannot be killed. Its process
    is left, and goes once the disk goes on."""
    store = cluster["store1"]
    cluster.online()
    cluster.clean()  # a wipe might be what sleeps
    for disk in store.disks:
        store.slow_disk(disk, 1)
    asked = cluster["head1"].begin("vastskyctl volume create waits 16M --copies 3", timeout_s=300)
    eventually("it is being created", lambda: cluster.volume("waits").state == "creating", 60)
    asleep = "ps -C vastskyd-kernel -L -o stat= | grep -q ^D && pgrep -x vastskyd-kernel"
    sleeper = eventually(
        "it sleeps in the kernel", lambda: str(store.run(asleep, check=False).stdout).strip(), 60
    )
    before = store.run(MAIN_PID).stdout
    begun_s = time.monotonic()
    cluster.kill_daemon("store1")
    eventually("there is another", lambda: store.run(MAIN_PID).stdout not in (before, "0\n"), 10)
    print(f"another one after {time.monotonic() - begun_s:.1f} s")
    eventually("it answers", lambda: store.run("vastskyctl status", 60), 30)
    assert store.run(f"test -e /proc/{sleeper}", check=False).exit == 0
    assert f"vastskyd-kernel (pid {sleeper})" in store.run(FOUND).stdout
    assert f" {sleeper} " in store.run("systemctl status --no-pager vastskyd").stdout
    for disk in store.disks:
        store.slow_disk(disk, 0)
    eventually("the old one's call has ended", lambda: is_gone(store, sleeper), 60)
    asked.result(300)
    cluster.online()
    cluster.ctl("volume delete waits --yes", 90)
    cluster.clean()


def is_gone(guest: Guest, pid: str) -> bool:
    return guest.run(f"test -e /proc/{pid}", check=False).exit != 0


def test_a_disk_is_pulled_and_plugged_in_again_while_its_volume_is_detached(
    cluster: Cluster,
) -> None:
    with cluster.new_volume("resting", 48, "head2") as device:
        writer = Writer(cluster["head2"], device, "resting").begin()
        writer.goes_on()
        writer.end()
        cluster.ctl("volume detach resting")
        node, disk = cluster.leg_disks("resting")[0]
        cluster[node].unplug_disk(disk)
        eventually(
            f"{disk} of {node} is missing",
            lambda: cluster.disk_of(node, disk).state == "missing",
            30,
        )
        cluster[node].plug_disk(disk)
        eventually("it is back", lambda: cluster.disk_of(node, disk).state == "online", 60)
        # Where that took longer than a quarter of a minute the volume is being mended by now.
        cluster.ctl("volume attach resting head2", 90)
        cluster.healthy("resting")
        writer.verify()
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 2)


def test_a_write_is_durable_on_its_storage_hosts_when_it_is_answered(cluster: Cluster) -> None:
    """Nobody asks for a flush, and the disks that the guests have do have a write cache: each
    write is to pass it by (FUA)."""
    count = 20
    with cluster.new_volume("durable", 16, "head2") as device:
        nodes = cluster.stores_of("durable")
        for node in nodes:
            cluster[node].run(TRACE_WRITES)
        cluster["head2"].run(f"dd if=/dev/zero of={device} bs=4096 count={count} oflag=direct")
        for node in nodes:
            writes = cluster[node].run(TRACED).stdout.splitlines()
            assert sum("WF" in line for line in writes) >= count, writes


# The kernel's block:block_rq_issue; by its blk_fill_rwbs an F after the W says FUA.
TRACE_WRITES = (
    "mountpoint -q /sys/kernel/tracing || mount -t tracefs none /sys/kernel/tracing;"
    " cd /sys/kernel/tracing && echo > trace && echo 1 > events/block/block_rq_issue/enable"
)
TRACED = (
    "cd /sys/kernel/tracing && echo 0 > events/block/block_rq_issue/enable"
    " && grep -oE ' 259,[0-9]+ F?W[A-Z]* .*' trace; true"
)
