"""Fixtures for tests that need real kernels.

Tests elsewhere get them with `pytest_plugins = ["tests.lab.fixtures"]` in the topmost conftest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from .disks import Disk
from .host import LabError, say
from .lab import ACTIVE, Lab
from .template import DEFAULT_MEMORY_MIB, ensure_template

PASSED = pytest.StashKey[bool]()
"""Of a test: whether its body came to a good end; for fixtures that clean up after it."""

Hosts = Mapping[str, Sequence[Disk]] | Iterable[str]


class LabFactory(Protocol):
    """Brings a lab up; it is taken down after the test (or after the module's tests)."""

    def __call__(
        self, hosts: Hosts, memory_mib: int = DEFAULT_MEMORY_MIB, debs: Sequence[Path] = ()
    ) -> Lab:
        """Bring these hosts up."""
        ...


def make_labs() -> Iterator[LabFactory]:
    """A factory, and the end of all that it made."""
    labs: list[Lab] = []

    def factory(
        hosts: Hosts, memory_mib: int = DEFAULT_MEMORY_MIB, debs: Sequence[Path] = ()
    ) -> Lab:
        lab = Lab(memory_mib=memory_mib)
        labs.append(lab)
        return lab.up(hosts, debs)

    try:
        yield factory
    finally:
        for lab in labs:
            lab.down()


@pytest.fixture(scope="session")
def lab_template(request: pytest.FixtureRequest) -> None:
    """The template guest: made before the first test, and who waits is told."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        ensure_template()
        return
    with capture.global_and_fixture_disabled():
        ensure_template()


@pytest.fixture
def lab_factory(lab_template: None) -> Iterator[LabFactory]:
    """Labs that live as long as one test."""
    yield from make_labs()


@pytest.fixture(scope="module")
def module_lab_factory(lab_template: None) -> Iterator[LabFactory]:
    """Labs that live as long as the tests of one module."""
    yield from make_labs()


def artifacts_dir() -> Path:
    """Where the evidence of failed tests goes."""
    return Path(os.environ.get("VASTSKY_LAB_ARTIFACTS", "build/lab-artifacts"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """When a test fails, keep the journals of the labs that are up."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    if report.failed and ACTIVE:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", item.nodeid)[-120:]
        for number, lab in enumerate(list(ACTIVE)):
            target = artifacts_dir() / f"{name}-{report.when}" / f"lab{number}"
            try:
                lab.collect(target)
            except (LabError, OSError) as error:
                say(f"no evidence from {lab.name}: {error}")
            else:
                report.sections.append(("lab", f"evidence: {target}"))
    return report
