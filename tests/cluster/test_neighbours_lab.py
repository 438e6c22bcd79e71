"""LVM, multipathd, mdadm and udisks on the same hosts: they touch no device of ours, nor we theirs.
And disks that are plugged in: taken in by themselves, or left alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.demo.hosts import MIB
from tests.lab.disks import Disk
from tests.lab.guest import Guest
from tests.lab.guestroot import MASKED_RULES
from vastskyd.core.model import AttachmentState

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("empty")]

BUSY = 4  # vastskyctl's exit code
HEAD, STORE = "head2", "store1"
PATTERN = "/dev/disk/by-id/nvme-*"
AUTO = "/etc/vastsky/vastskyd.toml.d/auto.toml"

# Their rules and services are masked on the lab's hosts until a test is about them.
UNMASK = (
    "find /etc/udev/rules.d -lname /dev/null -delete && udevadm control --reload"
    " && for unit in multipathd.service multipathd.socket lvm2-monitor.service dm-event.socket; do"
    "   rm -f /etc/systemd/system/$unit; done"
    " && systemctl daemon-reload && systemctl start multipathd.service"
)
MASK = (
    f"for rule in {' '.join(MASKED_RULES)}; do ln -sf /dev/null /etc/udev/rules.d/$rule; done;"
    " udevadm control --reload; systemctl stop multipathd.socket multipathd.service"
)
# As an administrator, a package's script or a boot does it; not with the NBD devices and loops that
# are not there.
POKE = (
    "udevadm trigger --settle --action=change --subsystem-match=block --attr-nomatch=size=0;"
    " vgchange -ay; pvscan --cache; multipathd reconfigure; multipath -r; udevadm settle"
)
# On a head, whose legs md has for itself. On a storage host it is for nobody to do.
ASSEMBLE = "mdadm --assemble --scan --no-degraded; udevadm settle"
# What is found on the arrays, and the partitions that the kernel found below volumes.
BELOW = (
    "for array in /sys/block/md*; do wipefs -n /dev/${array##*/} || echo failed; done;"
    " ls -d /sys/block/md*/md*p* /sys/block/nbd*/nbd*p*"
)
OURS = "dmsetup table | grep ^vastsky- | sort; cat /sys/block/md*/md/uuid 2>/dev/null | sort; true"


@pytest.fixture(scope="module", autouse=True)
def _neighbours(cluster: Cluster) -> Iterator[None]:
    for name in (HEAD, STORE):
        cluster[name].run(UNMASK, 120)
    yield
    for name in (HEAD, STORE):
        cluster[name].run(MASK, 60, check=False)


def poked(cluster: Cluster, *names: str) -> None:
    """Whatever they look for, what is ours is as before."""
    cluster.hosts.each(_poked, names)


def _poked(guest: Guest) -> None:
    before = guest.run(OURS, 60).stdout
    guest.run(POKE, 180, check=False)
    if guest.name == HEAD:
        guest.run(ASSEMBLE, 60, check=False)
    assert guest.run(OURS, 60).stdout == before
    maps = guest.run("multipathd show maps raw format '%n %d'", 60).stdout
    assert "vastsky" not in maps.lower()
    assert maps.strip() in ("", "ok")


def refused_detach(cluster: Cluster, volume: str) -> str:
    refused = cluster[HEAD].run(f"vastskyctl volume detach {volume}", 90, check=False)
    assert refused.exit == BUSY, refused
    assert cluster.volume(volume).attachment is AttachmentState.ATTACHED
    return refused.stderr


def test_what_a_volume_carries_is_seen_on_it_alone(cluster: Cluster) -> None:
    """A PV: in nothing below the volume, and activated by itself. Then a partition table."""
    head = cluster[HEAD]
    with cluster.new_volume("pv", 64, HEAD) as device:
        head.run(f"pvcreate -y {device} && vgcreate vg0 {device}", 90)
        head.run("lvcreate -y -n lv -l 100%FREE vg0 && mkfs.ext4 -q /dev/vg0/lv", 90)
        seen = head.run("pvs --noheadings -o pv_name", 60).stdout.split()
        assert len(seen) == 1, seen
        same = head.run(f"realpath {seen[0]} {device}", 60).stdout.split()
        assert same[0] == same[1]
        poked(cluster, HEAD, STORE)
        cluster.healthy("pv")
        assert "vg0-lv" in refused_detach(cluster, "pv")
        for store in cluster.stores_of("pv"):
            assert cluster[store].run("pvs --noheadings", 60).stdout.strip() == ""
        head.run("vgchange -an vg0", 60)
        cluster.ctl("volume detach pv", 90)
        assert head.run("pvs --noheadings", 60).stdout.strip() == ""
        cluster.ctl(f"volume attach pv {HEAD}", 90)
        eventually(
            "it is activated", lambda: head.run("test -e /dev/vg0/lv", check=False).exit == 0, 60
        )
        head.run(f"vgremove -f -y vg0 && wipefs -q -a {device}", 60)

        table = "label: gpt\nstart=2048\n"
        head.run(f"printf '{table}' | sfdisk -q --no-reread --no-tell-kernel {device}", 60)
        head.run(f"kpartx -s -a {device}", 60)
        link = f"/dev/vastsky/by-id/{cluster.volume('pv').id}"
        head.run(f"udevadm settle; test {link} -ef {device} && test -b {link}-part1", 60)
        head.run(f"mkfs.ext4 -q {link}-part1", 60)
        poked(cluster, HEAD)
        assert head.run(BELOW, 60, check=False).stdout == ""
        refused_detach(cluster, "pv")
        head.run(f"kpartx -s -d {device}", 60)


def test_udisks_knows_volumes_and_nothing_below(cluster: Cluster) -> None:
    with cluster.new_volume("desk", 64, HEAD) as device:
        head = cluster[HEAD]
        store = cluster[STORE]
        for guest in (head, store):
            guest.run("systemctl unmask -q udisks2 && systemctl start udisks2", 90)
        volume = head.run(f"basename $(realpath {device})").stdout.strip()
        head.run(f"mkfs.ext4 -q {device} && udevadm settle", 90)
        try:
            said = head.run(f"udisksctl mount --no-user-interaction -b {device}", 60).stdout
            place = said.rpartition(" at ")[2].strip().rstrip(".")
            head.run(f"dd if=/dev/zero of={place}/file bs=1M count=4 conv=fsync status=none", 60)
            assert place in refused_detach(cluster, "desk")
            head.run(f"udisksctl unmount --no-user-interaction -b {device}", 60)
            _, shown = of_udisks(head)
            assert volume in shown
            assert internals(head)
            assert not internals(head) & shown
            paths = " ".join(d.path for d in cluster.hosts.disks() if d.node == STORE)
            members = set(store.run(f"realpath {paths} | xargs -n 1 basename").stdout.split())
            assert members
            ignored, shown = of_udisks(store)
            assert members <= ignored
            assert not internals(store) & shown
        finally:
            for guest in (head, store):
                guest.run("systemctl stop udisks2; systemctl mask -q udisks2", 60, check=False)


def of_udisks(guest: Guest) -> tuple[set[str], set[str]]:
    """The block devices that it hides from people, and those that it shows."""
    found: dict[bool, set[str]] = {True: set(), False: set()}
    name = ""
    for line in guest.run("udisksctl dump", 90).stdout.splitlines():
        if line.startswith("/org/freedesktop/UDisks2/"):
            name = line.partition("/block_devices/")[2].rstrip(":")
        elif name and line.split()[:1] == ["HintIgnore:"]:
            found[line.split()[1] == "true"].add(name.replace("_2d", "-"))
    return found[True], found[False]


def internals(guest: Guest) -> set[str]:
    """What stands below volumes."""
    listed = guest.run("dmsetup info -c --noheadings --separator ' ' -o blkdevname,uuid").stdout
    names = dict(line.split() for line in listed.splitlines() if "VASTSKY-" in line)
    paths = "cd /sys/block; ls -d md*; grep -l ^vastsky: nbd*/backend | cut -d/ -f1; true"
    return {name for name, uuid in names.items() if not uuid.startswith("VASTSKY-VOLUME-")} | set(
        guest.run(f"{paths} 2>/dev/null").stdout.split()
    )


# --- disks of others ------------------------------------------------------------------------

TAKEN = {
    # A PV that is in use, one that is not, an array's member, and one whose array is stopped.
    "lv": "pvcreate -y {disk} && vgcreate vg1 {disk} && lvcreate -y -n lv -l 50%FREE vg1",
    "pv": "pvcreate -y {disk}",
    "md": "mdadm --create /dev/md9 --run --metadata=1.2 --level=1 --raid-devices=2 {disk} missing",
    "path": "printf '%s\\n' '{rule}' > /etc/udev/rules.d/61-path.rules; udevadm control --reload;"
    " udevadm trigger --settle --action=change {disk}",
}
FREED = {
    "lv": "vgremove -f -y vg1",
    "pv": "true",
    "md": "mdadm --stop /dev/md9",
    "path": "rm /etc/udev/rules.d/61-path.rules; udevadm control --reload",
}
SAID = {"lv": "in use: held by", "pv": "LVM", "md": "in use: held by", "path": "multipathd"}


@contextmanager
def auto_enroll(guest: Guest, pattern: str) -> Iterator[None]:
    guest.run("mkdir -p /etc/vastsky/vastskyd.toml.d")
    guest.put(AUTO, f'auto_enroll = ["{pattern}"]\n'.encode())
    guest.run("systemctl reload vastskyd", 60)
    try:
        yield
    finally:
        guest.run(f"rm {AUTO} && systemctl reload vastskyd", 60)


def test_only_an_empty_disk_is_taken_in_by_itself(cluster: Cluster) -> None:
    """None that is theirs, also not by command, and none with a byte on it. Noticed within a second
    of udev's word; slack for the emulation."""
    guest = cluster[STORE]
    for by, command in TAKEN.items():
        guest.plug_disk(Disk(by, 96 * MIB))
        rule = f'ENV{{ID_SERIAL_SHORT}}=="{guest.serial(by)}", ENV{{DM_MULTIPATH_DEVICE_PATH}}="1"'
        guest.run(command.format(disk=guest.disk_link(by), rule=rule), 120)
    guest.plug_disk(Disk("written", 96 * MIB))
    link = guest.disk_link("written")
    guest.run(f"printf x | dd of={link} bs=1 seek=3000000 conv=notrunc,fsync status=none", 60)
    try:
        with auto_enroll(guest, PATTERN):
            guest.plug_disk(Disk("fresh", 96 * MIB))
            eventually("it is enrolled", lambda: is_online(cluster, guest, "fresh"), 150)
            eventually("the other is refused", lambda: "is not new" in jobs(cluster), 60)
            for by in TAKEN:
                eventually("it is seen so", partial(is_theirs, cluster, guest, by), 30)
                refused = guest.run(f"vastskyctl disk enrol {guest.disk_link(by)}", 60, check=False)
                assert refused.exit != 0
            poked(cluster, STORE)
            assert all(is_theirs(cluster, guest, by) for by in TAKEN)
            assert not is_online(cluster, guest, "written")
        said = cluster.ctl("events --json").stdout
        assert "is enrolled by itself: it matches auto_enroll" in said
        told = guest.run(f"udevadm info --query=property {guest.disk_link('fresh')}", 60).stdout
        assert "ID_FS_TYPE=vastsky_member" in told
    finally:
        for by, command in FREED.items():
            guest.run(command, 60)
            guest.remove_disk(by)
    cluster.remove_strange_disks()


def is_theirs(cluster: Cluster, guest: Guest, by: str) -> bool:
    return SAID[by] in (cluster.offered(guest, by) or "")


def jobs(cluster: Cluster) -> str:
    return cluster.ctl("job list --json").stdout


def is_online(cluster: Cluster, guest: Guest, disk: str) -> bool:
    serial = guest.serial(disk)
    return any(d.serial == serial and d.state == "online" for d in cluster.hosts.disks())


def test_a_storm_of_uevents_hides_no_disk(cluster: Cluster) -> None:
    """vastskyd is stopped while more comes than its socket holds: what it lost it looks for."""
    guest = cluster[STORE]
    guest.run("systemctl service-watchdogs no && systemctl kill --signal=STOP vastskyd", 30)
    try:
        guest.plug_disk(Disk("hidden", 96 * MIB))
        guest.run("timeout 12 sh -c 'while :; do udevadm trigger --action=change; done'; true", 60)
    finally:
        guest.run("systemctl kill --signal=CONT vastskyd", 30)
    try:
        eventually("it is shown", lambda: cluster.offered(guest, "hidden") is not None, 90)
    finally:
        guest.run("systemctl service-watchdogs yes", 30)
    guest.run("udevadm settle --timeout=300", 330)  # the next test is not to wait behind the rest
    guest.remove_disk("hidden")
