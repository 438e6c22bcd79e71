"""What readings mean, one after the other."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.model import SmartErrors, SmartHealth, SmartHistory, SmartReading
from vastskyd.core.smart import (
    SmartLimits,
    WarningKind,
    follow,
    is_blank,
    news,
    warnings,
)

LIMITS = SmartLimits()
DAY_S = 86_400.0
counts = st.integers(0, 50)
readings = st.builds(
    SmartReading,
    health=st.sampled_from(SmartHealth),
    reallocated=st.none() | counts,
    pending=st.none() | counts,
    media_errors=st.none() | counts,
    temperature_c=st.none() | st.integers(10, 90),
)


def reading(
    reallocated: int = 0, pending: int = 0, temperature_c: int = 30, wear_percent: int = 0
) -> SmartReading:
    return SmartReading(
        health=SmartHealth.PASSED,
        reallocated=reallocated,
        pending=pending,
        temperature_c=temperature_c,
        wear_percent=wear_percent,
    )


def kinds(history: SmartHistory, limits: SmartLimits = LIMITS) -> list[WarningKind]:
    return [warning.kind for warning in warnings(history, limits)]


def test_errors_that_a_disk_came_with_are_no_news() -> None:
    history = follow(None, reading(reallocated=535), LIMITS, 0.0)
    assert kinds(history) == []
    history = follow(history, reading(reallocated=535), LIMITS, DAY_S)
    assert kinds(history) == []


def test_growing_errors_warn_until_they_have_stopped_for_long() -> None:
    history = follow(None, reading(reallocated=3), LIMITS, 0.0)
    history = follow(history, reading(reallocated=8), LIMITS, DAY_S)
    (warning,) = warnings(history, LIMITS)
    assert warning.message == "its reallocated sectors grew from 3 to 8"
    history = follow(history, reading(reallocated=8), LIMITS, 30 * DAY_S)
    assert kinds(history) == [WarningKind.REALLOCATED]
    history = follow(history, reading(reallocated=8), LIMITS, 31 * DAY_S)
    assert kinds(history) == []


def test_sectors_that_wait_no_more_are_not_counted() -> None:
    history = follow(None, reading(), LIMITS, 0.0)
    history = follow(history, reading(pending=8), LIMITS, 1.0)
    assert kinds(history) == [WarningKind.PENDING]
    history = follow(history, reading(pending=0), LIMITS, 2.0)
    assert kinds(history) == []


def test_thresholds_are_the_administrators() -> None:
    history = follow(None, reading(temperature_c=51, wear_percent=70), LIMITS, 0.0)
    history = follow(history, reading(4, 0, 51, 70), LIMITS, 1.0)
    strict = SmartLimits(reallocated=5, wear_percent=70, temperature_c=50)
    assert kinds(history) == [WarningKind.REALLOCATED]
    assert kinds(history, strict) == [WarningKind.WEAR, WarningKind.TEMPERATURE]
    assert kinds(history, SmartLimits(reallocated=0)) == []


def test_a_reserve_below_the_disks_own_mark() -> None:
    low = SmartReading(health=SmartHealth.PASSED, spare_percent=9, spare_least_percent=10)
    assert kinds(follow(None, low, LIMITS, 0.0)) == [WarningKind.SPARE]


def test_a_disk_that_could_not_be_asked_is_still_known() -> None:
    history = follow(None, reading(reallocated=3), LIMITS, 0.0)
    blank = SmartReading(health=SmartHealth.UNKNOWN, reason="smartctl did not end within 30 s")
    assert is_blank(blank)
    assert follow(history, blank, LIMITS, 9.0) is history
    assert follow(follow(None, blank, LIMITS, 0.0), reading(9), LIMITS, 1.0).base.reallocated == 9


def test_a_disk_that_says_nothing_again_is_no_news() -> None:
    """What changes is written down, and told to the disk's host, which answers with a report."""
    blank = SmartReading(health=SmartHealth.UNKNOWN, reason="it has no SMART")
    history = follow(None, blank, LIMITS, 1.0)
    assert follow(history, blank, LIMITS, 2.0) is history
    other = SmartReading(health=SmartHealth.UNKNOWN, reason="no answer in time")
    assert follow(history, other, LIMITS, 3.0).last == other
    assert follow(history, reading(), LIMITS, 4.0).last == reading()


def test_what_is_worth_an_event() -> None:
    first = follow(None, reading(), LIMITS, 0.0)
    warm = follow(first, reading(pending=1, temperature_c=70), LIMITS, 1.0)
    warmer = follow(warm, reading(pending=2, temperature_c=71), LIMITS, 2.0)
    at = [warnings(history, LIMITS) for history in (first, warm, warmer, warmer)]
    told = [[w.kind for w in news(*pair)] for pair in itertools.pairwise(at)]
    assert told == [[WarningKind.PENDING, WarningKind.TEMPERATURE], [WarningKind.PENDING], []]


@given(st.lists(st.tuples(readings, st.floats(0, 40 * DAY_S)), min_size=1, max_size=8))
def test_any_history(steps: list[tuple[SmartReading, float]]) -> None:
    """What is warned of did grow since some reading; and hearing it twice changes nothing."""
    history, now_s = None, 0.0
    seen: list[SmartErrors] = []
    for each, later_s in steps:
        now_s += later_s
        history = follow(history, each, LIMITS, now_s)
        assert follow(history, each, LIMITS, now_s) == history
        seen.append(history.last.errors())
        for warning in warnings(history, LIMITS):
            if warning.kind is WarningKind.REALLOCATED:
                assert history.last.errors().reallocated > min(e.reallocated for e in seen)
    assert history is not None
    assert history.base.reallocated <= history.last.errors().reallocated
