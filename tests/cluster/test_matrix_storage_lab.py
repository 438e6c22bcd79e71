"""The fault matrix: a storage host. docs/failures.md has a line for each of these."""

import time
from functools import partial

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.matrix import row
from tests.demo.hosts import MIB

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("rows")]

# A leg is given up after 5 s without a path, a host 6 s after it was last heard of.
NOTICED_S = 8.0
FEW_SLOTS = 8
"""Places that the writer writes to over and over: what comes back should be as little."""
RETURN_MOST_BYTES = 24 * MIB  # of 32; it counts what the program writes meanwhile, too


def test_storage_power_cut(cluster: Cluster) -> None:
    with row(cluster, "storage-power-cut", "two", "three", slots=FEW_SLOTS) as it:
        victim = cluster.stores_of("two")[0]
        it.strike(cluster[victim].kill)
        it.says(
            status=[f"node {victim} is unreachable", "volume two is degraded: segment 0: 1 of 2"],
            events=["leg-lost", "node-unreachable"],
            noticed_after_s=NOTICED_S,
        )
        it.goes_on()
        cluster.power_on(victim)
    assert it.refilled_bytes("two") < RETURN_MOST_BYTES


def test_storage_hang_5s(cluster: Cluster) -> None:
    with row(cluster, "storage-hang-5s", "two", "three") as it:
        victim = cluster.stores_of("two")[0]
        it.strike(cluster[victim].pause)
        time.sleep(5)
        cluster[victim].resume()


def test_storage_hang_60s(cluster: Cluster) -> None:
    with row(cluster, "storage-hang-60s", "two", slots=FEW_SLOTS) as it:
        victim = cluster.stores_of("two")[0]
        it.strike(cluster[victim].pause)
        it.says(
            status=[f"node {victim} is unreachable", "volume two is degraded"],
            events=["leg-lost", "node-unreachable"],
            noticed_after_s=NOTICED_S,
        )
        it.goes_on()
        it.until(60)
        cluster[victim].resume()
    assert "node-online" in it.events()
    assert it.refilled_bytes("two") < RETURN_MOST_BYTES


def test_storage_hang_past_rebuild_delay(cluster: Cluster) -> None:
    free = cluster.hosts.free()
    with row(cluster, "storage-hang-past-rebuild-delay", "two", "three") as it:
        cluster.settings(rebuild_delay_s=3)
        victim = cluster.stores_of("two")[0]
        it.strike(cluster[victim].pause)
        it.says(
            status=["volume three is degraded: .*no disk of another node has room"],
            events=["leg-replaced"],
            noticed_after_s=NOTICED_S + 3,
        )
        cluster.healthy("two")
        assert victim not in cluster.stores_of("two")
        it.goes_on()
        cluster.settings(rebuild_delay_s=600)
        cluster[victim].resume()
    eventually(
        "what it held is wiped and free", lambda: sum_of(cluster.hosts.free()) == sum_of(free), 60
    )


def sum_of(free: dict[str, int]) -> int:
    return sum(free.values())


def test_storage_reboot(cluster: Cluster) -> None:
    with row(cluster, "storage-reboot", "two", "three", slots=FEW_SLOTS) as it:
        victim = cluster.stores_of("two")[0]
        it.strike(lambda: cluster.reboot(victim))
        it.said(["leg-lost"])
        it.goes_on()
    assert it.refilled_bytes("two") < RETURN_MOST_BYTES


def test_storage_daemon_killed(cluster: Cluster) -> None:
    with row(cluster, "storage-daemon-killed", "two", "three") as it:
        for victim in cluster.hosts.stores:
            it.strike(partial(cluster.kill_daemon, victim))
        it.goes_on(20)
        cluster.online()
        assert "leg-lost" not in it.events()


def test_storage_export_killed(cluster: Cluster) -> None:
    """vastskyd starts the server again, and the head connects again."""
    with row(cluster, "storage-export-killed", "two", "three") as it:
        victim = cluster.stores_of("two")[0]
        it.strike(lambda: cluster[victim].run("pkill -KILL qemu-storage"))
        it.goes_on()
        it.journal_has(victim, "export server")
