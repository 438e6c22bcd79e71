"""The cluster of these tests. No other is up meanwhile: pytest takes this folder first."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, make_cluster
from tests.lab.lab import Lab


@pytest.fixture(scope="package")
def cluster(lab_template: None, debs: tuple[Path, ...]) -> Iterator[Cluster]:
    with Lab() as lab:
        yield make_cluster(lab, debs, stores=("store1", "store2"), encryption="tls")
