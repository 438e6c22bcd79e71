"""Random storms: a few seeds each time; `python -m tests.sim` has as many as one likes."""

import pytest

from tests.sim import lossy_storm, storm


@pytest.mark.parametrize("seed", range(1, 21))
def test_everything_comes_to_an_end_and_nothing_is_lost(seed: int) -> None:
    try:
        storm.run(seed)
    except Exception as error:
        raise AssertionError(f"seed {seed} (python -m tests.sim --only {seed}): {error}") from error


@pytest.mark.parametrize("seed", range(1, 13))
def test_nothing_is_lost_with_the_managers_records(seed: int) -> None:
    try:
        lossy_storm.run(seed)
    except Exception as error:
        said = f"seed {seed} (python -m tests.sim --mode lossy --only {seed}): {error}"
        raise AssertionError(said) from error


def test_a_seed_is_a_storm() -> None:
    traces: list[list[str]] = [[], []]
    for trace in traces:
        storm.run(3, trace)
    assert traces[0] == traces[1]
