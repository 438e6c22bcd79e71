"""What all tests share: nothing is skipped in silence, and nothing is left behind."""

import asyncio
import inspect
import os
import subprocess
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
VAGRANT = ROOT / "tests/vagrant"
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
PACKAGE_LIMIT_S = 900

# A slow machine is no failure. In CI the same examples every time; elsewhere new ones.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=IN_CI,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("house")


@pytest.fixture(scope="session")
def debs() -> tuple[Path, ...]:
    """The Debian packages of this tree, built if need be."""
    return built("package")


@pytest.fixture(scope="session")
def rpms() -> tuple[Path, ...]:
    """The RPM packages of this tree, built if need be."""
    return built("rpm")


def built(command: str) -> tuple[Path, ...]:
    """The files that ./run makes, which installs what it needs for that."""
    done = subprocess.run(
        [ROOT / "run", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PACKAGE_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"./run {command} failed:\n{done.stderr}", pytrace=False)
    return tuple(ROOT / line for line in done.stdout.splitlines())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs vagrant's machines is for ./run test-vagrant, which asks for it by name; ./run
    test says that it is left out."""
    if collection_path != VAGRANT:
        return None
    asked = (Path(word.partition("::")[0]).resolve() for word in config.args)
    return None if any(path.is_relative_to(VAGRANT) for path in asked) else True


# --- nothing is skipped in silence ----------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that could not run has failed."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure in CI: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport) -> str:
    said = report.longrepr
    return said[2] if isinstance(said, tuple) else str(said)


# --- nothing is left behind -----------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not isinstance(item, pytest.Function) or item.get_closest_marker("lab"):
            continue  # a lab's hosts outlive the test that started them again
        # First in, so that it looks after all other fixtures have cleaned up.
        item.fixturenames.insert(0, "no_child_left")
        if inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(1, "no_task_left")


def _children() -> set[int]:
    """Children of this process that still run."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue  # it ended meanwhile
        if int(parent) == os.getpid() and state not in "ZX":
            found.add(int(status.parent.name))
    return found


@pytest.fixture
def no_child_left() -> Iterator[None]:
    before = _children()
    yield
    left = _children() - before
    if left:
        names = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in left]
        pytest.fail(f"the test left processes behind: {names}", pytrace=False)


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(3):  # those that were cancelled get their turn to end
        await asyncio.sleep(0)
    current = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() - before if task is not current]
    if left:
        pytest.fail(f"the test left tasks behind: {left}", pytrace=False)
