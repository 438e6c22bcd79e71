"""How long each leg of a head has had no good path, and when that becomes trouble."""

from collections.abc import Mapping
from dataclasses import dataclass

from vastskyd.core.documents import HeadDocument
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import Layout, LegState
from vastskyd.core.names import LegName
from vastskyd.core.sight import SeenLeg, SeenPath, Sight, Trouble, kernel_name

# A second I/O error within this time, over a fresh connection, is the disk's, not the network's.
_STRIKE_MEMORY_S = 60.0
_TRY_AGAIN_S = 5.0


@dataclass
class _Watched:
    since_s: float | None = None
    struck_s: float | None = None
    broken: bool = False
    tried_s: float = 0.0


@dataclass(frozen=True)
class Watching:
    """The legs in trouble; the connections to cut so that they are made anew, since the first I/O
    error of a leg may be its connection's; the legs whose failed paths are to be tried again."""

    trouble: Mapping[ExtentId, Trouble]
    cut: tuple[str, ...]
    revive: tuple[LegName, ...]


class LegWatch:
    """Remembers between looks. A restarted daemon begins anew: it only decides later."""

    def __init__(self, leg_timeout_s: float) -> None:
        self.leg_timeout_s = leg_timeout_s
        self._watched: dict[tuple[ExtentId, int], _Watched] = {}

    @property
    def calm(self) -> bool:
        """All legs have a good path."""
        return all(watched.since_s is None for watched in self._watched.values())

    def next_s(self, now_s: float) -> float:
        """When the next leg that has no good path will have had none for too long."""
        ends = (
            watched.since_s + self.leg_timeout_s
            for watched in self._watched.values()
            if watched.since_s is not None and not watched.broken
        )
        return min((end_s for end_s in ends if end_s > now_s), default=float("inf"))

    def look(self, sight: Sight, document: HeadDocument, now_s: float) -> Watching:
        """What this look says, together with those before it."""
        paths = {kernel_name(path.device): path for path in sight.paths}
        self._watched = {
            key: watched
            for key, watched in self._watched.items()
            if key[0] in sight.legs and sight.legs[key[0]].name.epoch == key[1]
        }
        trouble: dict[ExtentId, Trouble] = {}
        cut: list[str] = []
        revive: list[LegName] = []
        alone, last = _without_copies(document), _last_of_their_set(document)
        for extent, leg in sight.legs.items():
            watched = self._watched.setdefault((extent, leg.name.epoch), _Watched())
            if watched.broken and extent in alone and not leg.holds:
                # Its users were told; there is no other leg to go on with, so it is tried again.
                watched = self._watched[extent, leg.name.epoch] = _Watched()
            if watched.broken and extent in last and self._try_again(watched, leg, now_s):
                revive.append(leg.name)
            cut += self._update(watched, leg, paths, now_s)
            if watched.broken:
                # The last that has everything is never given up: it is out of reach, no more.
                why = "its server answers with I/O errors"
                trouble[extent] = Trouble(extent not in last, why)
            elif watched.since_s is not None and now_s - watched.since_s >= self.leg_timeout_s:
                trouble[extent] = Trouble(False, f"no path for {self.leg_timeout_s:g} s or longer")
        for spec in document.volumes:
            for segment in spec.segments:
                for wanted in segment.legs:
                    if wanted.condemned:
                        trouble[wanted.extent] = Trouble(True, "its disk is lost")
        return Watching(trouble, tuple(cut), tuple(revive))

    def _try_again(self, watched: _Watched, leg: SeenLeg, now_s: float) -> bool:
        """Whether it is time to: a disk that was pulled may be back, and a sector that could not be
        written remapped."""
        if set(leg.paths) - leg.failed:
            watched.broken = False
            return False
        due = now_s - watched.tried_s >= _TRY_AGAIN_S
        if due:
            watched.tried_s = now_s
        return due

    def _update(
        self, watched: _Watched, leg: SeenLeg, paths: dict[str, SeenPath], now_s: float
    ) -> list[str]:
        live = [name for name in leg.paths if name in paths and paths[name].alive]
        if any(name not in leg.failed for name in live):
            watched.since_s = None
            return []
        if watched.since_s is None:
            watched.since_s = now_s
        if not live or not leg.holds:
            return []
        struck = watched.struck_s
        watched.struck_s = now_s
        local = any(paths[name].network < 0 for name in live)
        if local or (struck is not None and now_s - struck < _STRIKE_MEMORY_S):
            watched.broken = True
            return []
        return [paths[name].device for name in live]


def _last_of_their_set(document: HeadDocument) -> frozenset[ExtentId]:
    found = []
    for spec in document.volumes:
        for segment in spec.segments if spec.layout is not Layout.LINEAR else ():
            in_sync = [leg.extent for leg in segment.legs if leg.state is LegState.IN_SYNC]
            found += in_sync if len(in_sync) == 1 else []
    return frozenset(found)


def _without_copies(document: HeadDocument) -> frozenset[ExtentId]:
    return frozenset(
        leg.extent
        for spec in document.volumes
        if spec.layout is Layout.LINEAR
        for segment in spec.segments
        for leg in segment.legs
    )
