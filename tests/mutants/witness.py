"""A pytest plugin that writes down the first failure: which test, where, and of what kind.

Only a failed assertion is a test's word about a promise. What crashes for another reason says no
more than that the mutant is no program.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path

import pytest

import vastskyd

REPORT = "VASTSKY_WITNESS"


def pytest_configure(config: pytest.Config) -> None:
    """An installed vastskyd that comes first would leave the mutant untried."""
    home = Path(vastskyd.__file__).resolve().parents[1]
    if home != config.rootpath.resolve():
        raise pytest.UsageError(f"vastskyd is imported from {home}, not from the copy")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    path = Path(os.environ[REPORT])
    if report.failed and call.excinfo is not None and not path.exists():
        error = call.excinfo.value
        found = {
            "test": item.nodeid,
            "where": _where(item, call.excinfo),
            "kind": type(error).__name__,
            "assertion": is_assertion(error),
            "message": (str(error).splitlines() or [""])[0][:200],
        }
        path.write_text(json.dumps(found))
    return report


def is_assertion(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(is_assertion(each) for each in error.exceptions)
    return isinstance(error, AssertionError | pytest.fail.Exception)


def _where(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    """The innermost line of a test's own file."""
    root = item.config.rootpath
    for entry in reversed(excinfo.traceback):
        path = Path(entry.path)
        if path.is_relative_to(root / "tests"):
            return f"{path.relative_to(root)}:{entry.lineno + 1}"
    return item.nodeid
