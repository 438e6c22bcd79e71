"""The fault matrix: a disk. docs/failures.md has a line for each of these."""

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.matrix import HEAD, row
from tests.demo.hosts import MANAGER, MIB
from tests.lab.disks import Disk

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("rows")]

SECTOR = 512
SMART_SETTINGS = "/etc/vastsky/vastskyd.toml.d/smart.toml"
FOREIGN = "a file system of somebody's"
HEADS = (MANAGER, HEAD)


def test_disk_pulled(cluster: Cluster) -> None:
    """And plugged in again: what was on it is old, and is wiped."""
    free = cluster.hosts.free()
    with row(cluster, "disk-pulled", "two") as it:
        node, disk = cluster.leg_disks("two")[0]
        it.strike(lambda: cluster[node].unplug_disk(disk))
        it.says(
            status=[f"disk {node}:.*{disk} is missing"],
            events=["disk-missing", "leg-lost", "leg-replaced"],
            noticed_after_s=2,
        )
        eventually("the leg is elsewhere", lambda: (node, disk) not in cluster.leg_disks("two"), 30)
        cluster.healthy("two")
        it.goes_on()
        cluster[node].plug_disk(disk)
        eventually(
            "the disk is used again", lambda: cluster.disk_of(node, disk).state == "online", 60
        )
        assert "disk-returned" in it.events()
        eventually(
            "what it held is wiped and free",
            lambda: sum(cluster.hosts.free().values()) == sum(free.values()),
            60,
        )
        assert (node, disk) not in cluster.leg_disks("two")


def test_disk_of_a_detached_volume_pulled(cluster: Cluster) -> None:
    """A head rebuilds it, and nobody can use it there meanwhile."""
    with row(cluster, "disk-of-a-detached-volume-pulled", "two") as it:
        it.stop("two")
        cluster.ctl("volume detach two", 90)
        node, disk = cluster.leg_disks("two")[0]
        it.strike(lambda: cluster[node].unplug_disk(disk))
        it.says(
            status=[f"disk {node}:.*{disk} is missing", "volume two is (degraded|rebuilding)"],
            events=["disk-missing"],
            noticed_after_s=2,
        )

        def is_mended() -> bool:
            for head in HEADS:
                assert cluster[head].run("test -e /dev/vastsky/two", check=False).exit != 0
            return cluster.volume("two").attachment is None and "volume-mended" in it.events()

        eventually("it is mended", is_mended, 90)
        it.said(["volume-mending", "leg-replaced", "volume-mended"])
        assert (node, disk) not in cluster.leg_disks("two")
        cluster.healthy("two")
        cluster[node].plug_disk(disk)
        cluster.ctl(f"volume attach two {HEAD}", 90)
        it.begin_again()


def test_disk_bad_sectors(cluster: Cluster) -> None:
    with row(cluster, "disk-bad-sectors", "two") as it:
        node, disk = cluster.leg_disks("two")[0]
        before = cluster.leg_disks("two")
        start = extent_start(cluster, node, disk) + 16 * MIB // SECTOR
        bad = range(start, start + 64 * 8, 8)
        it.strike(lambda: cluster[node].fail_sectors(disk, bad, writes=True))
        # The volume's blocks come to these sectors within two rounds of 256 writes.
        eventually("the leg is elsewhere", lambda: cluster.leg_disks("two") != before, 150)
        it.said(["leg-lost", "leg-replaced"])
        cluster.healthy("two")
        it.goes_on()
        cluster[node].heal_sectors(disk)


def extent_start(cluster: Cluster, node: str, disk: str) -> int:
    """The sector where an extent of a volume with two copies begins there."""
    link = cluster[node].disk_link(disk)
    device = cluster[node].run(f"lsblk -dno MAJ:MIN {link}").stdout.strip()
    tables = cluster[node].run("dmsetup table").stdout.splitlines()
    starts = [
        (int(line.split()[2]), int(line.split()[5]))
        for line in tables
        if line.startswith("vastsky-extent") and line.split()[4] == device
    ]
    return max(starts)[1]  # volume two is the larger


def test_disk_slow(cluster: Cluster) -> None:
    """Each block takes seconds: writes are as slow, nothing is lost, and it is named."""
    with row(cluster, "disk-slow", "two") as it:
        node, disk = cluster.leg_disks("two")[0]
        it.strike(lambda: cluster[node].slow_disk(disk, 2000))
        it.says(
            status=[f"disk {node}:.*{disk} is slow: a request takes"],
            events=["disk-slow"],
            noticed_after_s=15,
        )
        it.goes_on(5)
        cluster[node].slow_disk(disk, 0)


def test_disk_says_it_is_failing(cluster: Cluster) -> None:
    """Its legs are copied elsewhere while they are used: no copy is missing at any time."""
    with row(cluster, "disk-says-it-is-failing", "two") as it:
        node, disk = cluster.leg_disks("two")[0]
        guest = cluster[node]
        guest.run("mkdir -p /etc/vastsky/vastskyd.toml.d")
        guest.put(SMART_SETTINGS, b"[smart]\ninterval_s = 10\n")
        guest.run("systemctl reload vastskyd", 60)
        try:
            it.strike(lambda: guest.smart_fail(disk))
            it.says(
                status=[f"disk {node}:.*{disk} is failing: it says so itself"],
                events=["disk-failing", "leg-moving"],
                noticed_after_s=10,
            )
            eventually(
                "the leg is elsewhere", lambda: (node, disk) not in cluster.leg_disks("two"), 90
            )
            it.said(["leg-moved"])
            cluster.healthy("two")
            it.goes_on()
            assert "leg-lost" not in it.events()
            assert cluster.disk_of(node, disk).state == "failing"
            shown = guest.run(f"vastskyctl disk show {node}:{guest.disk_link(disk)}", 60).stdout
            assert "its reliability is degraded" in shown, shown
        finally:
            guest.smart_fail(disk, failing=False)
        eventually(
            "the disk is used again", lambda: cluster.disk_of(node, disk).state == "online", 60
        )
        assert "disk-well" in it.events()
        guest.run(f"rm {SMART_SETTINGS} && systemctl reload vastskyd", 60)


def test_disk_moved(cluster: Cluster) -> None:
    """To another storage host, which knows it by what is on it: no copy is made."""
    cluster.ctl("volume detach two")
    node, disk = cluster.leg_disks("two")[0]
    other = next(store for store in cluster.hosts.stores if store not in cluster.stores_of("two"))
    cluster[other].take_disk(cluster[node], disk, "moved")
    eventually(
        "the disk belongs to the other host",
        lambda: [d.node for d in cluster.hosts.disks() if d.serial == f"{node}-{disk}"] == [other],
        60,
    )
    cluster.ctl(f"volume attach two {HEAD}", 90)
    with row(cluster, "disk-moved", "two") as it:
        it.said_ever(["disk-moved"])
        assert other in cluster.stores_of("two")
        it.strike(lambda: cluster[node].take_disk(cluster[other], "moved", disk))
        it.goes_on()
        eventually(
            "the disk is home",
            lambda: (
                [d.node for d in cluster.hosts.disks() if d.serial == f"{node}-{disk}"] == [node]
            ),
            60,
        )


def test_disk_foreign(cluster: Cluster) -> None:
    """In the place of one that was pulled: it is offered, and not touched."""
    with row(cluster, "disk-foreign", "two") as it:
        node, disk = cluster.leg_disks("two")[0]
        guest = cluster[node]
        guest.plug_disk(Disk("foreign", 96 * MIB))
        guest.run(f"mkfs.ext4 -q {guest.disk_link('foreign')}")
        before = guest.run(f"sha256sum < {guest.disk_link('foreign')}").stdout
        guest.unplug_disk("foreign")
        it.strike(lambda: guest.unplug_disk(disk))
        guest.plug_disk("foreign")
        it.says(status=[f"disk {node}:.*{disk} is missing"], noticed_after_s=2)
        eventually("it is offered", lambda: "ext4" in (cluster.offered(guest, "foreign") or ""), 30)
        refused = guest.run(f"vastskyctl disk enrol {guest.disk_link('foreign')}", 60, check=False)
        assert refused.exit != 0
        assert "ext4" in refused.stderr, refused
        it.goes_on()
        assert guest.run(f"sha256sum < {guest.disk_link('foreign')}").stdout == before
        guest.remove_disk("foreign")
        guest.plug_disk(disk)
