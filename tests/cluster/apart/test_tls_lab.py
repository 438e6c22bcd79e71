"""The data path with TLS, and the loss of a server under it."""

import pytest

from tests.cluster.cluster import Cluster
from tests.demo.copies import compare_copies
from tests.demo.hosts import MIB

pytestmark = pytest.mark.lab


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
