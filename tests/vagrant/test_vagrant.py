"""The packages on vagrant's machines: a cluster, a volume, a storage server lost and back again."""

import pytest

from tests.vagrant.hosts import Host, Hosts, eventually, vagrant

pytestmark = pytest.mark.vagrant

MIB = 1 << 20
SECTOR_BYTES = 512
VOLUME_MIB = 128
FILE_MIB = 4
FOLDER = "/mnt/data"


def test_vagrantfile_is_valid() -> None:
    assert "validated successfully" in vagrant("validate")


def test_a_lost_storage_server_is_outlived_and_catches_up(cluster: Hosts) -> None:
    head = cluster.heads[0]
    make_volume(cluster, head)
    early = write_file(head, "early")
    lost, other = servers(cluster)
    lost.cut_power()
    assert not lost.is_running

    eventually("degraded", lambda: cluster.volume("data").health == "degraded", 120)
    said = cluster.manager.run("vastskyctl status || true")
    assert lost.name in said
    assert read_file(head, "early") == early
    late = write_file(head, "late")

    lost.power_on()
    eventually("redundant again", lambda: cluster.volume("data").health == "redundant", 300)
    # By its bitmap: since it was switched on the server was given what it had missed, and md's own
    # records, not the whole volume.
    written_mib = written_bytes(lost) / MIB
    assert FILE_MIB / 2 <= written_mib < VOLUME_MIB / 2, written_mib
    other.cut_power()  # what is read now is from the one that was away
    assert (read_file(head, "early"), read_file(head, "late")) == (early, late)


def make_volume(cluster: Hosts, head: Host) -> None:
    """With two copies, and a file system that is mounted."""
    cluster.manager.run(f"vastskyctl volume create data {VOLUME_MIB}M --copies 2")
    cluster.manager.run(f"vastskyctl volume attach data {head.name}")
    head.run(
        f"mkfs.ext4 -q /dev/vastsky/data && mkdir {FOLDER} && mount /dev/vastsky/data {FOLDER}"
    )
    eventually("redundant", lambda: cluster.volume("data").health == "redundant", 60)


def servers(cluster: Hosts) -> tuple[Host, Host]:
    """Two with copies of the volume."""
    nodes = {leg.node for segment in cluster.volume("data").segments for leg in segment.legs}
    lost, other, *_ = sorted(nodes)
    return cluster[lost], cluster[other]


def write_file(head: Host, name: str) -> str:
    """Random bytes, on the disks before this returns; their checksum, taken from what was written
    and not from what is there."""
    source = f"/root/{name}"
    head.run(f"head -c {FILE_MIB}M /dev/urandom > {source}")
    head.run(f"dd if={source} of={FOLDER}/{name} bs=1M conv=fsync status=none")
    return checksum(head, source)


def read_file(head: Host, name: str) -> str:
    """The checksum of what the disks hold."""
    head.run("sync; echo 3 > /proc/sys/vm/drop_caches")
    return checksum(head, f"{FOLDER}/{name}")


def checksum(head: Host, path: str) -> str:
    return head.run(f"sha256sum {path}").split()[0]


def written_bytes(host: Host) -> int:
    """To its disks of the cluster, since it booted."""
    sectors = host.run("awk '{print $7}' /sys/block/vdb/stat /sys/block/vdc/stat").split()
    return sum(map(int, sectors)) * SECTOR_BYTES
