"""--watch: plain output one after the other in a pipe; on a terminal see test_terminal."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Run
from tests.dbus.fake_cluster import FakeCluster
from vastskyd.cli import watch
from vastskyd.cli.watch import fit
from vastskyd.core.errors import DeniedError, UnreachableError

TIMES = 3
WATCHED = ["status", "node list", "disk list", "volume list", "volume show data", "job list"]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses; the third is ended by Ctrl-C."""
    pauses: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == TIMES:
            raise KeyboardInterrupt

    monkeypatch.setattr("vastskyd.cli.watch.time.sleep", sleep)
    return pauses


@pytest.mark.parametrize("command", WATCHED)
def test_in_a_pipe_it_is_what_it_is_without(run: Run, slept: list[float], command: str) -> None:
    once = run(*command.split()).stdout
    done = run(*command.split(), "--watch")
    assert done.exit_code == 130
    assert done.stdout == f"{once}\n" * TIMES
    assert "\x1b" not in done.output
    assert slept == [watch.INTERVAL_S] * TIMES


@pytest.mark.parametrize("command", WATCHED)
def test_as_json_it_is_one_line_each_time(run: Run, slept: list[float], command: str) -> None:
    once = json.loads(run(*command.split(), "--json").stdout)
    lines = run(*command.split(), "--watch", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [once] * len(slept)


def test_who_cannot_be_reached_is_asked_again(
    run: Run, cluster: FakeCluster, slept: list[float]
) -> None:
    cluster.fault = UnreachableError("the manager did not answer")
    done = run("volume", "list", "--watch")
    assert not done.stdout
    assert done.stderr == "vastskyctl: the manager did not answer\n" * len(slept)
    cluster.fault = DeniedError("not you")
    assert run("volume", "list", "--watch").exit_code == 6


LINES = st.lists(st.text("ab", max_size=30), max_size=20)


@given(LINES, st.integers(1, 12), st.integers(1, 12))
def test_a_page_fits_the_screen(lines: list[str], columns: int, rows: int) -> None:
    page = fit(lines, columns, rows)
    if page == lines:
        return
    *kept, last = page
    assert kept == lines[: len(kept)]
    left_out = re.fullmatch(r"\.\.\. (\d+) more lines", last)
    assert left_out is not None
    assert int(left_out[1]) == len(lines) - len(kept) > 0
    heights = [max(1, -(-len(line) // columns)) for line in lines]
    assert sum(heights) > rows
    assert sum(heights[: len(kept)]) + 1 <= rows
