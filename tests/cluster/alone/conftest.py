"""One host that is a cluster, with disks of every kind, and two that may join it. No other cluster
is up meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.alone.single import Single
from tests.lab.lab import Lab


@pytest.fixture(scope="package")
def single(lab_template: None, debs: tuple[Path, ...]) -> Iterator[Single]:
    with Lab() as lab:
        yield Single.made(lab, debs)
