"""The fault matrix: the networks. docs/failures.md has a line for each of these."""

import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.matrix import HEAD, row
from tests.demo.hosts import MANAGER

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("rows")]

NOTICED_S = 8.0
FLAPS = 8


def cutter(cluster: Cluster, name: str, loud: bool) -> Callable[[str], None]:
    return cluster[name].cut_link if loud else cluster[name].cut_silently


@pytest.mark.parametrize("loud", [True, False], ids=["loud", "silent"])
def test_network_one_cut(cluster: Cluster, loud: bool) -> None:
    name = f"network-one-cut-{'loud' if loud else 'silent'}"
    with row(cluster, name, "two", "three") as it:
        all_paths = cluster.paths(HEAD)
        for victim, network in ((cluster.stores_of("two")[0], "A"), (HEAD, "B")):
            cut = cutter(cluster, victim, loud)
            it.strike(partial(cut, network))
            eventually("the path is given up", lambda: cluster.paths(HEAD) < all_paths, 60)
            it.goes_on()
            assert "leg-lost" not in it.events()
            cluster[victim].restore(network)
            eventually("all paths are back", lambda: cluster.paths(HEAD) == all_paths, 60)


@pytest.mark.parametrize("loud", [True, False], ids=["loud", "silent"])
def test_network_both_cut(cluster: Cluster, loud: bool) -> None:
    name = f"network-both-cut-{'loud' if loud else 'silent'}"
    with row(cluster, name, "two") as it:
        victim = cluster.stores_of("two")[0]
        cut = cutter(cluster, victim, loud)
        it.strike(partial(cut, "A"), partial(cut, "B"))
        it.says(
            status=[f"node {victim} is unreachable", "volume two is degraded"],
            events=["leg-lost", "node-unreachable"],
            noticed_after_s=NOTICED_S,
        )
        it.goes_on()
        for network in ("A", "B"):
            cluster[victim].restore(network)


def test_network_manager_does_not_see_storage(cluster: Cluster) -> None:
    """The head does: nothing is wrong with the volume, and nobody does anything."""
    with row(cluster, "network-manager-does-not-see-storage", "two") as it:
        victim = cluster.stores_of("two")[0]
        it.strike(lambda: cluster.cut_off(victim, MANAGER))
        it.says(
            status=[f"node {victim} is unreachable from the manager, but .* reaches it"],
            noticed_after_s=NOTICED_S,
        )
        it.goes_on()
        assert "leg-lost" not in it.events()
        cluster.join_again(victim)


def test_network_head_does_not_see_storage(cluster: Cluster) -> None:
    """The manager does: the leg falls behind, and returns."""
    with row(cluster, "network-head-does-not-see-storage", "two") as it:
        victim = cluster.stores_of("two")[0]
        it.strike(lambda: cluster.cut_off(victim, HEAD))
        it.says(status=["volume two is degraded"], events=["leg-lost"], noticed_after_s=NOTICED_S)
        assert not any("unreachable" in line for line in it.problems())
        it.goes_on()
        cluster.join_again(victim)


def test_network_flaps(cluster: Cluster) -> None:
    with row(cluster, "network-flaps", "two") as it:
        victim = cluster[cluster.stores_of("two")[0]]

        def flap() -> None:
            for _ in range(FLAPS):
                for network in ("A", "B"):
                    victim.cut_link(network)
                time.sleep(1.5)
                for network in ("A", "B"):
                    victim.restore(network)
                time.sleep(1.5)

        it.strike(flap)
        it.goes_on()
        # What is said does not grow with each flap beyond one fall and one return.
        assert len(it.events()) <= 4 * FLAPS
