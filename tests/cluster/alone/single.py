"""A cluster that begins with one host: three disks, a partition and a file."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.cluster import SETTINGS, Cluster, eventually
from tests.demo.hosts import MANAGER, MIB, Hosts
from tests.demo.narrator import Narrator
from tests.lab.guest import Disk, Guest
from tests.lab.lab import Lab
from vastskyd.core import answers

ONE = MANAGER
OTHERS = ("head2", "head3")
WHOLE = ("nvme0", "nvme1", "nvme2")
PARTED = "nvme3"
DISK_BYTES = 96 * MIB
IMAGE = "/var/lib/lab.img"
REBUILD_DELAY_S = 30

# One primary partition from 1 MiB on to the end: the guests have no tool that makes one.
PARTITION = """
import struct, sys
path, sectors = sys.argv[1], int(sys.argv[2]) // 512
entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, sectors - 2048)
with open(path, "r+b") as disk:
    disk.seek(446)
    disk.write(entry + bytes(48) + bytes.fromhex("55aa"))
"""


class Single(Cluster):
    """`hosts.heads` are those that belong to it by now."""

    @classmethod
    def made(cls, lab: Lab, debs: tuple[Path, ...]) -> Single:
        """By the commands of the README."""
        hosts = Hosts(lab, Narrator(), heads=(ONE,), stores=())
        plan = {ONE: [Disk(name, DISK_BYTES) for name in (*WHOLE, PARTED)]}
        plan |= {name: [Disk("nvme0", 2 * DISK_BYTES)] for name in OTHERS}

        def prepare(guest: Guest) -> None:
            hosts.put_programs(guest)
            guest.run("mkdir -p /etc/vastsky/vastskyd.toml.d")
            settings = SETTINGS.format(rebuild_delay_s=REBUILD_DELAY_S)
            guest.put("/etc/vastsky/vastskyd.toml.d/lab.toml", settings.encode())

        lab.up(plan, debs=debs, prepare=prepare)
        single = cls(lab, hosts)
        partition = single._make_partition()
        single._make_file()
        single.ctl(f"cluster init --single --data-encryption none {hosts.addresses(ONE)}")
        whole = [lab[ONE].disk_link(name) for name in WHOLE]
        paths = (*whole, partition, IMAGE)
        eventually("all are offered", lambda: set(paths) <= single.offered_names(), 60)
        single.ctl(f"disk enrol {' '.join(paths)}", 90)
        return single

    def _make_partition(self) -> str:
        guest = self[ONE]
        device = guest.run(f"readlink -f {guest.disk_link(PARTED)}").stdout.strip()
        guest.put("/run/partition.py", PARTITION.encode())
        guest.run(
            f"python3 /run/partition.py {device} {DISK_BYTES} && blockdev --rereadpt {device}"
        )
        guest.wait_paths([f"{device}p1"])
        return f"{device}p1"

    def _make_file(self) -> None:
        unit = f"$(systemd-escape --path --template=vastsky-file@.service {IMAGE})"
        self[ONE].run(f"truncate -s {DISK_BYTES} {IMAGE} && systemctl enable --now {unit}", 60)

    def offered_names(self) -> set[str]:
        """All the names that a disk of the first host can be called by."""
        found = self.hosts.look(answers.DiskList, "ListDisks").disks
        paths = {disk.path for disk in found if disk.node == ONE and not disk.id}
        names = self[ONE].run(f"readlink -f {' '.join(sorted(paths))}").stdout.split()
        files = self[ONE].run("cat /sys/block/loop*/loop/backing_file", check=False).stdout
        return paths | set(names) | set(files.splitlines())

    def grow(self, *names: str) -> None:
        token = self.ctl("cluster token").stdout.strip()
        for name in names:
            self[name].run(f"vastskyctl join {token} {self.hosts.addresses(name)}", 60)
            self.hosts.heads = (*self.hosts.heads, name)
        self.online()
        for name in names:
            path = self[name].disk_link("nvme0")
            enrol = f"vastskyctl disk enrol {path}"
            eventually(f"{name} enrols its disk", lambda g=self[name], e=enrol: g.run(e, 60), 60)  # type: ignore[misc]

    def nodes_of(self, volume: str) -> list[list[str]]:
        return [[leg.node for leg in part.legs] for part in self.volume(volume).segments]

    def disks_of(self, volume: str) -> list[list[str]]:
        return [[leg.disk_path for leg in part.legs] for part in self.volume(volume).segments]

    def status(self) -> answers.ClusterStatus:
        return self.hosts.look(answers.ClusterStatus, "Status")
