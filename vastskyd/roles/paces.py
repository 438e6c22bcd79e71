"""Which of a host's disks answer too slowly to be well."""

from collections.abc import Mapping
from dataclasses import dataclass

from vastskyd.core.pace import Activity, is_slow, request_s

# Long enough for an average, short enough to be told within seconds.
_LOOK_S = 4.0


@dataclass(frozen=True)
class _Pace:
    seen_s: float
    activity: Activity
    slow: bool = False
    taken_s: float = 0.0
    idle: bool = False


class Paces:
    """Remembers between looks, by the disks' names in the kernel."""

    def __init__(self) -> None:
        self._paces: dict[str, _Pace] = {}

    def look(self, activities: Mapping[str, Activity], now_s: float) -> None:
        self._paces = {
            name: self._follow(self._paces.get(name), activity, now_s)
            for name, activity in activities.items()
        }

    def slow_ms(self, kernel_name: str) -> int:
        """What a request takes; 0 while the disk is well."""
        pace = self._paces.get(kernel_name)
        return max(1, round(pace.taken_s * 1000)) if pace is not None and pace.slow else 0

    def in_doubt(self, kernel_name: str) -> bool:
        """It was slow when it last had something to do, which is over."""
        pace = self._paces.get(kernel_name)
        return pace is not None and pace.slow and pace.idle

    @staticmethod
    def _follow(before: _Pace | None, activity: Activity, now_s: float) -> _Pace:
        if before is None:
            return _Pace(now_s, activity)
        elapsed_s = now_s - before.seen_s
        if elapsed_s < _LOOK_S:
            return before
        taken_s = request_s(before.activity, activity, elapsed_s)
        slow = is_slow(before.slow, taken_s)
        if taken_s is None:
            return _Pace(now_s, activity, slow, before.taken_s, idle=True)
        return _Pace(now_s, activity, slow, taken_s)
