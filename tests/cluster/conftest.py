"""The lab's fixtures, the evidence of what failed, and the cluster that most tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, make_cluster
from tests.cluster.matrix import ensure_volumes
from tests.lab.fixtures import lab_template, module_lab_factory, pytest_runtest_makereport
from tests.lab.lab import Lab

__all__ = ["lab_template", "module_lab_factory", "pytest_runtest_makereport"]

RACKS = {"store1": "r1", "store2": "r1", "store3": "r2"}
# Longer than a host takes to boot here: what is to be rebuilt elsewhere sets it shorter.
REBUILD_DELAY_S = 600


@pytest.fixture(scope="package")
def cluster(lab_template: None, deb: Path) -> Iterator[Cluster]:
    """Two heads, of which the first is the manager, and three storage hosts with two disks each:
    two of them in one rack. Two copies are in two racks, three copies on all hosts."""
    with Lab() as lab:
        yield make_cluster(lab, deb, rebuild_delay_s=REBUILD_DELAY_S, racks=RACKS)


@pytest.fixture
def rows(cluster: Cluster) -> None:
    """What the rows of the fault matrix begin with."""
    if not cluster.whole:
        cluster.mend()
        cluster.settings(rebuild_delay_s=REBUILD_DELAY_S)
    cluster.whole = False  # until the row's end
    ensure_volumes(cluster)
