"""How long a disk takes for a request, from what the kernel counts."""

from dataclasses import dataclass

# No disk that is well takes so long on average, not even a busy one; and a line between slow and
# well that is crossed once, not all the time.
SLOW_S = 1.0
WELL_S = 0.5


@dataclass(frozen=True)
class Activity:
    """Since the disk appeared: reads and writes done, and the time that all of them took;
    `waiting` is how many are on their way now."""

    done: int
    took_s: float
    waiting: int


def request_s(before: Activity, after: Activity, elapsed_s: float) -> float | None:
    """What a request took on average between two looks. None: there was none. One that has not
    been answered at all took at least as long as from look to look."""
    done = after.done - before.done
    if done > 0:
        return max(0.0, (after.took_s - before.took_s) / done)
    return elapsed_s if before.waiting and after.waiting else None


def is_slow(was_slow: bool, taken_s: float | None) -> bool:
    """An idle disk is as it was when it last had something to do."""
    if taken_s is None:
        return was_slow
    return taken_s >= (WELL_S if was_slow else SLOW_S)
