"""A cluster whose data path is encrypted: a storage host of it is lost, and then the manager's
database, under programs that write."""

import json

import pytest

from tests.cluster.cluster import Cluster, Writer, eventually
from tests.demo.copies import compare_copies
from tests.demo.hosts import MANAGER, MIB

pytestmark = pytest.mark.lab

DATABASE = "/var/lib/vastsky/manager.db"
LOSSES = {
    # Its log goes too: the newest of all pages may stand there, and the file be whole by it.
    "empty": f"rm -f {DATABASE}-*; truncate -s 0 {DATABASE}",
    "garbage": f"rm -f {DATABASE}-*; dd if=/dev/urandom of={DATABASE} bs=64k count=4 status=none",
}


def test_a_storage_host_is_lost_under_an_encrypted_volume(cluster: Cluster) -> None:
    with cluster.new_volume("secret", 16, "head1") as device:
        head = cluster["head1"]
        sessions = head.run("awk '/TlsCurrTxSw|TlsCurrTxDevice/ {n += $2} END {print n}'"
                            " /proc/net/tls_stat").stdout  # fmt: skip
        assert int(sessions) >= cluster.paths("head1") == 4
        head.run("dd if=/dev/urandom of=/run/random bs=1M count=8 status=none")
        half = f"dd if=/run/random of={device} bs=1M count=4 oflag=direct conv=fsync,notrunc"
        head.run(half)
        cluster["store2"].kill()
        head.run(f"{half} skip=4 seek=4", 60)
        cluster.healthy("secret", "degraded")
        cluster.power_on("store2")
        cluster.online()
        cluster.healthy("secret")
        head.run(f"cmp -n {8 * MIB} /run/random {device}")
        compare_copies(cluster.hosts, "head1", cluster.hosts.stores, 2)


def status(cluster: Cluster) -> str:
    return cluster[MANAGER].run("vastskyctl status", check=False).stdout


def wait_for_all(cluster: Cluster) -> None:
    """All hosts have spoken, and have had their time to."""

    def heard() -> bool:
        said = json.loads(cluster.ctl("cluster recover --dry-run --json").stdout)
        return len(said["nodes"]) == len(cluster.all) and not said["missing"]

    eventually("all hosts have spoken", heard, 120)


def is_as_before(cluster: Cluster, stood: list[str]) -> bool:
    return cluster.hosts.leftovers("head2") == stood


def test_the_database_is_lost_under_writes(cluster: Cluster) -> None:
    manager = cluster[MANAGER]
    with cluster.new_volume("kept", 48, "head2") as device:
        writer = Writer(cluster["head2"], device, "recover").begin()
        writer.goes_on()
        stood = cluster.hosts.leftovers("head2")
        for how, loss in LOSSES.items():
            manager.run(f"systemctl kill --kill-whom=main -s KILL vastskyd; {loss}")
            eventually(
                f"its loss is told ({how})", lambda: "cluster recover" in status(cluster), 60
            )
            writer.goes_on()
            assert manager.run("vastskyctl volume list", check=False).exit != 0
            wait_for_all(cluster)
            cluster.ctl("cluster recover --yes", 90)
            cluster.online()
            cluster.healthy("kept")
            writer.goes_on()
            assert writer.stall() < 15, "the volume went on meanwhile"
            eventually("it stands as before", lambda: is_as_before(cluster, stood), 30)
        kept = manager.run(f"ls {DATABASE}.2*").stdout.split()
        assert len([name for name in kept if not name.endswith(("-wal", "-shm"))]) == 2
        writer.end()
        writer.verify()
        cluster.ctl("volume detach kept", 90)
        cluster.ctl("volume attach kept head1", 90)
        writer.verify(cluster["head1"])
        cluster.healthy("kept")
