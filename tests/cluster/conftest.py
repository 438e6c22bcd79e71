"""The lab's fixtures, the evidence of what failed, and the cluster that most tests share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, make_cluster
from tests.cluster.matrix import ensure_volumes
from tests.lab.fixtures import (
    PASSED,
    lab_template,
    module_lab_factory,
    pytest_runtest_makereport,
)
from tests.lab.lab import Lab

__all__ = ["lab_template", "module_lab_factory", "pytest_runtest_makereport"]

RACKS = {"store1": "r1", "store2": "r1", "store3": "r2"}
# Longer than a host takes to boot here: what is to be rebuilt elsewhere sets it shorter.
REBUILD_DELAY_S = 600


@pytest.fixture(scope="package")
def cluster(lab_template: None, debs: tuple[Path, ...]) -> Iterator[Cluster]:
    """Two heads, of which the first is the manager, and three storage hosts with two disks each:
    two of them in one rack. Two copies are in two racks, three copies on all hosts."""
    with Lab() as lab:
        yield make_cluster(lab, debs, rebuild_delay_s=REBUILD_DELAY_S, racks=RACKS)


@contextmanager
def lent(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """The shared cluster, with all hosts and disks as they should be. A test that fails is taken to
    have left something broken."""
    if not cluster.whole:
        cluster.mend()
        cluster.settings(rebuild_delay_s=REBUILD_DELAY_S)
    cluster.whole = False
    yield
    cluster.whole = request.node.stash.get(PASSED, False)


@pytest.fixture
def empty(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """What tests that make their own volumes begin with: there is none."""
    with lent(cluster, request):
        cluster.delete_all()
        yield


@pytest.fixture
def rows(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """What the rows of the fault matrix begin with."""
    with lent(cluster, request):
        ensure_volumes(cluster)
        yield
