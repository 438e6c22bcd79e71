"""A few short seasons each time; `python -m tests.sim` has as many as one likes."""

from collections import Counter

import pytest

from tests.sim import season
from tests.sim.__main__ import main
from tests.sim.season import Mode

HOURS = 1.0


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("seed", range(1, 3))
def test_a_season(mode: Mode, seed: int) -> None:
    accidents: Counter[str] = Counter()
    try:
        season.run(seed, mode, HOURS, accidents)
    except Exception as error:
        how = f"python -m tests.sim --mode {mode} --hours {HOURS} --only {seed}"
        raise AssertionError(f"{how}: {error}") from error
    assert accidents


def test_a_seed_is_a_season() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        season.run(5, Mode.SAFETY, 0.3, trace=trace)
    assert traces[0] == traces[1]


def test_what_was_run_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sys.argv",
        ["sim", "--seconds", "2", "--seed", "7", "--hours", "1", "--jobs", "2"],
    )
    assert main() == 0
    said = capsys.readouterr().out
    assert "cluster-hours" in said
    assert ", 0 failed" in said
