"""The fault matrix: two faults at once, and no spare left. docs/failures.md has a line for each."""

from functools import partial

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.matrix import HEAD, ensure_volumes, row
from tests.demo.hosts import MANAGER, MIB
from tests.lab.disks import Disk
from vastskyd.kernel.md import SAFE_MODE_DELAY_S

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("rows")]

NOTICED_S = 8.0
AWAY_S = 20.0
MD_IDLE_S = 0.25
MARK_CLEAN_EARLY = "for f in /sys/block/md*/md/safe_mode_delay; do echo 0.2 > $f; done"


def test_a_rack(cluster: Cluster) -> None:
    """Two hosts with two of three copies, and one of two: as far as there are racks, copies are in
    different ones. Between two writes md marks the array clean, here after 0.2 s: the next needs a
    superblock on every leg first, those two included."""
    if "store3" not in cluster.stores_of("two"):  # where an earlier test has moved a copy
        cluster.ctl("volume detach two", 90)
        cluster.ctl("volume delete two --yes", 90)
        ensure_volumes(cluster)
    delays = cluster[HEAD].run("cat /sys/block/md*/md/safe_mode_delay").stdout.split()
    assert {float(delay) for delay in delays} == {SAFE_MODE_DELAY_S}
    cluster[HEAD].run(MARK_CLEAN_EARLY)
    with row(cluster, "a-rack", "two", "three", pause_s=2 * MD_IDLE_S) as it:
        assert "store3" in cluster.stores_of("two")
        it.strike(*(cluster[name].kill for name in ("store1", "store2")))
        it.says(
            status=[
                "node store1 is unreachable",
                "node store2 is unreachable",
                "two is degraded",
                "three is degraded",
            ],
            events=["leg-lost", "node-unreachable"],
            noticed_after_s=2 * NOTICED_S,
        )
        it.goes_on()
        cluster.lab.each(lambda guest: cluster.power_on(guest.name), ("store1", "store2"))


def test_head_and_storage_host(cluster: Cluster) -> None:
    """One copy of two is within reach: enough to be sure of every acknowledged write."""
    with row(cluster, "head-and-storage-host", "two") as it:
        victim = cluster.stores_of("two")[0]
        it.strike(*(cluster[name].kill for name in (HEAD, victim)))
        it.lost_power()
        it.says(
            status=[f"node {HEAD} is unreachable", f"node {victim} is unreachable"],
            events=["node-unreachable"],
            noticed_after_s=NOTICED_S,
        )
        cluster.power_on(HEAD)
        cluster.attached("two")
        it.verify()
        it.begin_again()
        it.goes_on()
        cluster.power_on(victim)


def test_manager_and_storage_host(cluster: Cluster) -> None:
    """The head loses one of three copies by itself; with one of two gone writes wait for the
    manager, and its own status says so."""
    with row(cluster, "manager-and-storage-host", "two", "three") as it:
        victim = cluster.stores_of("two")[0]
        it.strike(*(cluster[name].kill for name in (MANAGER, victim)))
        it.writers["three"].goes_on(10)
        it.local_status_says(HEAD, r"two.*stalled|two.*wait")
        before = it.writers["two"].count()
        it.until(AWAY_S)
        it.writers["three"].goes_on(5)
        assert it.writers["two"].count() <= before + 1
        cluster.power_on(MANAGER)
        it.goes_on()
        cluster.power_on(victim)


def test_disk_during_a_rebuild(cluster: Cluster) -> None:
    with row(cluster, "disk-during-a-rebuild", "three") as it:
        (first, disk), (second, other), _ = cluster.leg_disks("three")
        it.strike(lambda: cluster[first].unplug_disk(disk))
        eventually("the rebuild begins", lambda: "leg-replaced" in it.events(), 30)
        cluster[second].unplug_disk(other)
        eventually("both are missing", lambda: it.events().count("disk-missing") == 2, 30)
        cluster.healthy("three")
        it.goes_on()
        cluster[first].plug_disk(disk)
        cluster[second].plug_disk(other)


def test_no_spare_left(cluster: Cluster) -> None:
    """Said, and healed by a new disk."""
    with row(cluster, "no-spare-left", "three") as it:
        guest = cluster["store3"]
        disks = list(guest.disks)
        it.strike(*(partial(guest.unplug_disk, disk) for disk in disks))
        it.says(
            status=["volume three is degraded: .*no disk of another node has room"],
            events=["disk-missing", "leg-lost"],
            noticed_after_s=NOTICED_S,  # two disks are pulled, one after the other
        )
        it.goes_on()
        guest.plug_disk(Disk("new", 96 * MIB))
        eventually("it is offered", lambda: cluster.offered(guest, "new") is not None, 30)
        enrol = f"vastskyctl disk enrol {guest.disk_link('new')}"
        eventually("it is enrolled by its link", lambda: guest.run(enrol, 60), 30)
        cluster.healthy("three")
        for disk in disks:
            guest.plug_disk(disk)
