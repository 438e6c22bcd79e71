"""A disk's write cache: what is in it reads back, and is lost with the power, or is not."""

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.fake_disks import FakeMedia


@dataclass
class WriteCache:
    """`_before`: what the platters still have of grains whose newest content is in the cache: data
    and md's own, None for what is not there."""

    flushes: int = 0
    _before: dict[int, tuple[int | None, object]] = field(default_factory=dict)

    def written(self, media: "FakeMedia", grain: int) -> None:
        """Call before the medium's content changes."""
        if grain not in self._before:
            self._before[grain] = (media.data.get(grain), media.meta.get(grain))

    def flush(self) -> None:
        self.flushes += 1
        self._before.clear()

    def power_cut(self, media: "FakeMedia", rng: random.Random) -> None:
        """Each grain that was not flushed is the old one, or the new one."""
        for grain, (data, meta) in self._before.items():
            if rng.random() < 0.5:
                _restore(media.data, grain, data)
                _restore(media.meta, grain, meta)
        self._before.clear()


def _restore(table: dict[int, int] | dict[int, object], grain: int, content: object) -> None:
    table.pop(grain, None)
    if content is not None:
        table[grain] = content  # type: ignore[assignment]
