"""Faults of every kind on real kernels, with a program that writes meanwhile."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, Writer, eventually, make_cluster
from tests.demo.copies import compare_copies
from tests.demo.hosts import MIB
from tests.lab.lab import Lab
from vastskyd.core.model import AttachmentState

pytestmark = pytest.mark.lab

BUSY = 4  # vastskyctl's exit code
HANG_S = 8.0
AWAY_S = 20.0
LATEST_KILL_S = 2.0
SECTOR = 512


@pytest.fixture(scope="module")
def cluster(lab_template: None, deb: Path) -> Iterator[Cluster]:
    with Lab() as lab:
        yield make_cluster(lab, deb)


@pytest.fixture(autouse=True)
def _whole(cluster: Cluster) -> None:
    """What a test before this one broke, and should have mended."""
    for name in cluster.all:
        guest = cluster[name]
        if not guest.is_running:
            cluster.power_on(name)
        elif guest.state() == "paused":
            guest.resume()
        for network in ("A", "B"):
            guest.restore(network)
        for disk in set(guest.known_disks) - set(guest.disks):
            guest.plug_disk(disk)
    cluster.online()
    cluster.delete_all()


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


def test_detach_takes_away_all_that_attach_made(cluster: Cluster) -> None:
    cluster.ctl("volume create inverse 96M")
    before = cluster.leftovers()
    assert set(before) <= set(cluster.hosts.stores)
    for head in ("head2", "head1"):
        cluster.ctl(f"volume attach inverse {head}")
        assert cluster.leftovers() != before
        cluster.ctl("volume detach inverse")
        cluster.clean(besides=before)
    cluster.ctl("volume delete inverse --yes")
    cluster.clean()


@pytest.mark.parametrize("victim", ["head2", "store1", "head1"])
def test_a_daemon_killed_half_way_through_an_attach(cluster: Cluster, victim: str) -> None:
    """head2 builds the stack, store1 exports, head1 is the manager."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    cluster.ctl("volume create killed 96M")
    for _ in range(2):
        cluster.ctl("volume attach killed head2 --no-wait")
        time.sleep(moments.uniform(0, LATEST_KILL_S))
        cluster.kill_daemon(victim)
        cluster.attached("killed")
        cluster.healthy("killed")
        eventually("it is asked to detach", lambda: cluster.ctl("volume detach killed"), 60)
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


def test_a_head_that_lost_its_power_has_its_volume_again(cluster: Cluster) -> None:
    with cluster.new_volume("boot", 64, "head2"):
        writer = Writer(cluster["head2"], "/dev/vastsky/boot", "boot").begin()
        writer.goes_on(100)
        cluster["head2"].kill()
        writer.lost_power()
        cluster.power_on("head2")
        cluster.attached("boot")
        cluster.healthy("boot")
        writer.verify()
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 2)


def test_a_disk_is_pulled_out_under_writes(cluster: Cluster) -> None:
    with cluster.new_volume("pulled", 48, "head2") as device:
        writer = Writer(cluster["head2"], device, "pulled").begin()
        writer.goes_on()
        node, disk = cluster.leg_disks("pulled")[0]
        cluster[node].unplug_disk(disk)
        eventually(
            f"{disk} of {node} is missing",
            lambda: cluster.disk_of(node, disk).state == "missing",
            30,
        )
        eventually(
            "the leg is elsewhere", lambda: (node, disk) not in cluster.leg_disks("pulled"), 30
        )
        cluster.healthy("pulled")
        writer.goes_on()
        print(writer.end())
        writer.verify()
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 2)
        cluster[node].plug_disk(disk)
        eventually(
            "the disk is used again",
            lambda: cluster.disk_of(node, disk).state == "online",
            60,
        )


def test_a_disk_is_pulled_and_plugged_in_again_while_its_volume_is_detached(
    cluster: Cluster,
) -> None:
    with cluster.new_volume("resting", 48, "head2") as device:
        writer = Writer(cluster["head2"], device, "resting").begin()
        writer.goes_on()
        writer.end()
        cluster.ctl("volume detach resting")
        legs = cluster.leg_disks("resting")
        node, disk = legs[0]
        cluster[node].unplug_disk(disk)
        eventually(
            f"{disk} of {node} is missing",
            lambda: cluster.disk_of(node, disk).state == "missing",
            30,
        )
        cluster[node].plug_disk(disk)
        eventually("it is back", lambda: cluster.disk_of(node, disk).state == "online", 60)
        cluster.ctl("volume attach resting head2")
        cluster.healthy("resting")
        assert cluster.leg_disks("resting") == legs
        writer.verify()
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 2)


def test_a_disk_with_bad_sectors_under_writes(cluster: Cluster) -> None:
    with cluster.new_volume("sectors", 48, "head2") as device:
        writer = Writer(cluster["head2"], device, "sectors").begin()
        writer.goes_on()
        node, disk = cluster.leg_disks("sectors")[0]
        before = cluster.leg_disks("sectors")
        table = cluster[node].run("dmsetup table | grep ^vastsky-extent").stdout.split()
        start = int(table[5]) + 16 * MIB // SECTOR
        cluster[node].fail_sectors(disk, range(start, start + 64 * 8, 8), writes=True)
        # The volume's blocks come to these sectors within some 256 writes.
        eventually("the leg is elsewhere", lambda: cluster.leg_disks("sectors") != before, 90)
        cluster.healthy("sectors")
        writer.goes_on()
        print(writer.end())
        writer.verify()
        cluster[node].heal_sectors(disk)
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 2)


def test_a_storage_host_hangs_and_goes_on(cluster: Cluster) -> None:
    with cluster.new_volume("hung", 64, "head2") as device:
        # Few places: what comes back should be as little as was written.
        writer = Writer(cluster["head2"], device, "hung", slots=8).begin()
        writer.goes_on()
        node = cluster.stores_of("hung")[0]
        before = written_bytes(cluster, node)
        cluster[node].pause()
        time.sleep(HANG_S)
        cluster[node].resume()
        writer.goes_on()
        cluster.online()
        cluster.healthy("hung")
        done = writer.end()
        print(done)
        again = written_bytes(cluster, node) - before
        print(f"{again / MIB:.1f} MiB were written to the leg that was away")
        assert again < 32 * MIB
        writer.verify()
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 2)


def written_bytes(cluster: Cluster, node: str) -> int:
    """To all extents of a storage host since it started."""
    said = cluster[node].run(
        "for each in /sys/block/dm-*; do grep -q ^vastsky-extent $each/dm/name"
        " && cut -c1-200 $each/stat; done; true"
    )
    return sum(int(line.split()[6]) * SECTOR for line in said.stdout.splitlines())


@pytest.mark.parametrize("loud", [True, False], ids=["loud", "silent"])
def test_one_of_two_networks_is_cut(cluster: Cluster, loud: bool) -> None:
    with cluster.new_volume("cut", 48, "head2") as device:
        all_paths = cluster.paths("head2")
        assert all_paths == 2 * len(cluster.leg_disks("cut"))
        writer = Writer(cluster["head2"], device, "cut").begin()
        for name, network in ((cluster.stores_of("cut")[0], "A"), ("head2", "B")):
            writer.goes_on()
            if loud:
                cluster[name].cut_link(network)
            else:
                cluster[name].cut_silently(network)
            eventually("the path is given up", lambda: cluster.paths("head2") < all_paths, 60)
            writer.goes_on()
            assert cluster.volume("cut").attachment is AttachmentState.ATTACHED
            cluster[name].restore(network)
            eventually("all paths are back", lambda: cluster.paths("head2") == all_paths, 60)
        cluster.healthy("cut")
        writer.goes_on()
        print(writer.end())
        writer.verify()


def test_a_storage_host_dies_while_the_manager_is_away(cluster: Cluster) -> None:
    """With two copies the head may not go on with one by itself: writes wait for the manager."""
    with cluster.new_volume("waits", 48, "head2") as device:
        writer = Writer(cluster["head2"], device, "waits").begin()
        writer.goes_on()
        node = cluster.stores_of("waits")[0]
        manager = cluster["head1"]
        manager.run(
            "mkdir -p /run/systemd/system/vastskyd.service.d && cd $_"
            " && printf '[Service]\\nRestart=no\\n' > away.conf && systemctl daemon-reload"
        )
        cluster.kill_daemon("head1")
        cluster[node].kill()
        time.sleep(AWAY_S)
        writer.check()
        before = writer.count()
        manager.run(
            "rm /run/systemd/system/vastskyd.service.d/away.conf && systemctl daemon-reload"
            " && systemctl start vastskyd",
            60,
        )
        writer.goes_on()
        cluster.power_on(node)
        cluster.online()
        cluster.healthy("waits")
        done = writer.end()
        print(f"{before} blocks before the manager came back; {done}")
        assert done["longest_stall_s"] > AWAY_S / 2
        writer.verify()


def test_a_write_is_durable_on_its_storage_hosts_when_it_is_answered(cluster: Cluster) -> None:
    """Nobody asks for a flush, and the disks that the guests have do have a write cache."""
    count = 20
    with cluster.new_volume("durable", 16, "head2") as device:
        nodes = cluster.stores_of("durable")
        before = [flushes(cluster, node) for node in nodes]
        cluster["head2"].run(f"dd if=/dev/zero of={device} bs=4096 count={count} oflag=direct")
        after = [flushes(cluster, node) for node in nodes]
        assert all(more - less >= count for less, more in zip(before, after, strict=True)), (
            before,
            after,
        )


def flushes(cluster: Cluster, node: str) -> int:
    """Answered by the storage host's NVMe disks."""
    said = cluster[node].run("cat /sys/block/nvme*n1/stat")
    return sum(int(line.split()[15]) for line in said.stdout.splitlines() if line)
