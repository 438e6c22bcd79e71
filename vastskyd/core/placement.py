"""Where extents go. Pure: the same room and the same request give the same answer.

Invariants of every answer: extents lie on the grain, inside their disk's area, and overlap
neither each other nor what is there; the legs of a segment are apart as the cluster says: on
distinct nodes, or at least on distinct disks, and not on two partitions of one drive. As far as
there is room they are on distinct nodes anyway, in distinct racks, and on distinct drives; and, of
the disks that this leaves, on none that is slow.
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from vastskyd.core.errors import NoSpaceError
from vastskyd.core.guards import extent_length
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.model import Apart
from vastskyd.core.ondisk_layout import EXTENTS_MAX
from vastskyd.core.units import GRAIN_BYTES, align_up, format_size

SEGMENTS_MAX = 256


@dataclass(frozen=True)
class Site:
    """Where a disk is. `drive`: what it is a partition of, or a file on; empty: it is one itself.
    A file on a drive counts as a disk of its own, being there for trying things."""

    disk: DiskId
    node: NodeId
    rack: str = ""
    drive: str = ""
    is_file: bool = False

    @property
    def hardware(self) -> tuple[NodeId, str]:
        return self.node, self.drive or self.disk

    def is_apart_from(self, other: "Site", apart: Apart) -> bool:
        if apart is Apart.HOST:
            return self.node != other.node
        excused = self.is_file or other.is_file
        return self.disk != other.disk and (excused or self.hardware != other.hardware)


def spread(sites: Collection[Site]) -> tuple[int, int]:
    """How far legs at these sites are apart: the more, the better."""
    return len({site.node for site in sites}), len({site.hardware for site in sites})


@dataclass
class Room:
    """A disk's free ranges: (start, end) pairs, sorted, apart, on the grain. `extents_left`: how
    many more its description has room for. `slow`: what lies on it makes others wait."""

    site: Site
    free: list[tuple[int, int]]
    clean: tuple[tuple[int, int], ...] = ()
    extents_left: int = EXTENTS_MAX
    slow: bool = False

    @property
    def disk(self) -> DiskId:
        return self.site.disk

    @property
    def node(self) -> NodeId:
        return self.site.node

    @property
    def free_bytes(self) -> int:
        return sum(end - start for start, end in self.free)

    @property
    def largest_bytes(self) -> int:
        if self.extents_left <= 0:
            return 0
        return max((end - start for start, end in self.free), default=0)

    def copy(self) -> "Room":
        return Room(self.site, list(self.free), self.clean, self.extents_left, self.slow)

    def take(self, length_bytes: int) -> "PlacedExtent":
        """The tightest range that holds it; of two alike a clean one, then the first."""
        fitting = [(start, end) for start, end in self.free if end - start >= length_bytes]
        start, end = min(
            fitting,
            key=lambda r: (not self._is_clean(r[0], length_bytes), r[1] - r[0], r[0]),
        )
        place = self.free.index((start, end))
        rest = [(start + length_bytes, end)] if end - start > length_bytes else []
        self.free[place : place + 1] = rest
        self.extents_left -= 1
        return PlacedExtent(self.disk, start, length_bytes, not self._is_clean(start, length_bytes))

    def _is_clean(self, start: int, length_bytes: int) -> bool:
        return any(begin <= start and start + length_bytes <= end for begin, end in self.clean)


@dataclass(frozen=True)
class PlacedExtent:
    disk: DiskId
    offset_bytes: int
    length_bytes: int
    wipe_first: bool


@dataclass(frozen=True)
class PlacedSegment:
    length_bytes: int
    extents: tuple[PlacedExtent, ...]


def free_ranges(area: tuple[int, int], used: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What the area has outside `used`, both as (start, end)."""
    position, end = area
    free = []
    for start, stop in sorted(used):
        if start > position:
            free.append((position, start))
        position = max(position, stop)
    if end > position:
        free.append((position, end))
    return free


def place_volume(
    size_bytes: int,
    copies: int,
    rooms: list[Room],
    segment_max_bytes: int,
    apart: Apart,
    *,
    with_array: bool,
) -> tuple[PlacedSegment, ...]:
    """The volume's segments, as few as fit, of nearly equal length. NoSpaceError says what is
    missing."""
    _refuse_too_large(size_bytes, segment_max_bytes)
    roomy = [room.site for room in rooms if room.free_bytes]
    _refuse_too_few(copies, roomy, apart)
    size_bytes = align_up(size_bytes)
    for count in _counts(size_bytes, segment_max_bytes):
        lengths = _cut(size_bytes, count)
        if not _may_fit(lengths, copies, rooms, apart, with_array=with_array):
            continue
        # To keep off slow disks fills the others unevenly: what is left may be too little.
        for given in (rooms, *_as_if_quick(rooms)):
            placed = _place_segments(lengths, copies, given, apart, with_array=with_array)
            if placed is not None:
                return placed
    total = sum(room.free_bytes for room in rooms)
    nodes = len({site.node for site in roomy})
    where = f"{nodes} nodes" if apart is Apart.HOST else f"{len(roomy)} disks"
    what = "node" if apart is Apart.HOST else "drive"
    raise NoSpaceError(
        f"no room for {format_size(size_bytes)} in {copies} copies: {format_size(total)} are free"
        f" on {where}, and no {what} may hold two copies of a segment",
        hint="enrol more disks (`vastskyctl disk list --all` shows candidates), delete volumes,"
        " or ask for a smaller size or fewer copies",
    )


def _as_if_quick(rooms: list[Room]) -> Iterator[list[Room]]:
    """None, if they are."""
    if any(room.slow for room in rooms):
        yield [dataclasses.replace(room, slow=False) for room in rooms]


def _refuse_too_large(size_bytes: int, segment_max_bytes: int) -> None:
    if size_bytes <= _largest_bytes(segment_max_bytes):
        return
    raise NoSpaceError(
        f"{format_size(size_bytes)} is too large for a volume: it has at most {SEGMENTS_MAX}"
        f" segments of {format_size(segment_max_bytes)}",
        hint=f"ask for at most {format_size(_largest_bytes(segment_max_bytes))}, or let segments be"
        " larger: `segment_max` in [placement] of /etc/vastsky/vastskyd.toml on the manager",
    )


def _largest_bytes(segment_max_bytes: int) -> int:
    return SEGMENTS_MAX * segment_max_bytes


def _refuse_too_few(copies: int, roomy: list[Site], apart: Apart) -> None:
    if apart is Apart.HOST:
        count, kind = len({site.node for site in roomy}), "storage nodes"
        where, hint = "disks with free space on ", "enrol a disk on another node"
    else:
        files = sum(site.is_file for site in roomy)
        count = files + len({site.hardware for site in roomy if not site.is_file})
        kind, where, hint = "drives", "free space on ", "enrol another disk"
    if count >= copies:
        return
    hint += " (`vastskyctl disk list --all` shows candidates), or ask for fewer copies"
    if apart is Apart.HOST and len(roomy) >= copies:
        hint += "; `vastskyctl cluster set --copies-apart disk` lets one host hold several"
    raise NoSpaceError(
        f"{copies} copies need {where}{copies} {kind}; {count} {'has' if count == 1 else 'have'}"
        " any",
        hint=hint,
    )


@dataclass(frozen=True)
class Answer:
    """What a disk would take of a volume, and why not more."""

    disk: DiskId
    takes_bytes: int
    reason: str


@dataclass(frozen=True)
class Explanation:
    """`missing`: why it does not fit; None: it does."""

    missing: NoSpaceError | None
    disks: tuple[Answer, ...]


def explain_volume(
    size_bytes: int,
    copies: int,
    rooms: list[Room],
    segment_max_bytes: int,
    apart: Apart,
    *,
    with_array: bool,
) -> Explanation:
    """What `place_volume` would do, and what it says of each disk."""
    try:
        placed = place_volume(
            size_bytes, copies, rooms, segment_max_bytes, apart, with_array=with_array
        )
    except NoSpaceError as error:
        if size_bytes > _largest_bytes(segment_max_bytes):
            said = "it is not asked: no volume can be so large"
            return Explanation(error, tuple(Answer(room.disk, 0, said) for room in rooms))
        size_bytes = align_up(size_bytes)
        most = max(_counts(size_bytes, segment_max_bytes), default=1)
        least_bytes = extent_length(min(_cut(size_bytes, most)), with_array=with_array)
        return Explanation(error, tuple(_not_enough(room, least_bytes) for room in rooms))
    extents = [extent for segment in placed for extent in segment.extents]
    least_bytes = min(extent.length_bytes for extent in extents)
    return Explanation(None, tuple(_share(room, extents, least_bytes) for room in rooms))


def _share(room: Room, extents: list[PlacedExtent], least_bytes: int) -> Answer:
    here = [extent.length_bytes for extent in extents if extent.disk == room.disk]
    if here:
        said = f"takes {len(here)} of {len(extents)} extents"
    elif room.largest_bytes < least_bytes:
        said = _too_small(room, least_bytes)
    elif room.slow:
        said = "not needed: it is slow, and others have room"
    else:
        said = "not needed: others have more free space, or are on another node, rack or drive"
    return Answer(room.disk, sum(here), said)


def _not_enough(room: Room, least_bytes: int) -> Answer:
    if room.largest_bytes < least_bytes:
        return Answer(room.disk, 0, _too_small(room, least_bytes))
    return Answer(room.disk, 0, "has room; it is other disks and nodes that are missing")


def _too_small(room: Room, least_bytes: int) -> str:
    if not room.free_bytes:
        return "it is full"
    if room.extents_left <= 0:
        return "its description has no room for more extents"
    return (
        f"its largest free range, {format_size(room.largest_bytes)}, is smaller than an extent of"
        f" {format_size(least_bytes)}"
    )


def place_leg(
    length_bytes: int, rooms: list[Room], others: Collection[Site], apart: Apart
) -> PlacedExtent | None:
    """A place for one new leg of a segment whose others are at these sites."""
    room = _choose(length_bytes, rooms, others, apart)
    return None if room is None else room.take(length_bytes)


def _counts(size_bytes: int, segment_max_bytes: int) -> Iterator[int]:
    """How many segments are tried, one after the other."""
    count = -(-size_bytes // segment_max_bytes)
    while count <= min(SEGMENTS_MAX, size_bytes // GRAIN_BYTES):
        yield count
        count += max(1, count // 8)


def _cut(size_bytes: int, count: int) -> list[int]:
    grains = size_bytes // GRAIN_BYTES
    small, longer = divmod(grains, count)
    return [(small + (index < longer)) * GRAIN_BYTES for index in range(count)]


def _may_fit(
    lengths: list[int], copies: int, rooms: list[Room], apart: Apart, *, with_array: bool
) -> bool:
    """Counts, instead of trying for seconds while all else waits: where this says no, there surely
    is no room."""
    least_bytes = extent_length(min(lengths), with_array=with_array)
    holds: dict[str, int] = {}
    for room in rooms:
        alike = room.node if apart is Apart.HOST else room.disk  # it has one leg of each segment
        extents = sum((end - start) // least_bytes for start, end in room.free)
        holds[alike] = holds.get(alike, 0) + max(0, min(room.extents_left, extents))
    return sum(min(each, len(lengths)) for each in holds.values()) >= copies * len(lengths)


def _place_segments(
    lengths: list[int], copies: int, rooms: list[Room], apart: Apart, *, with_array: bool
) -> tuple[PlacedSegment, ...] | None:
    trial = [room.copy() for room in rooms]
    placed = []
    for length_bytes in lengths:
        sites: list[Site] = []
        extents = []
        for _ in range(copies):
            need_bytes = extent_length(length_bytes, with_array=with_array)
            room = _choose(need_bytes, trial, sites, apart)
            if room is None:
                return None
            sites.append(room.site)
            extents.append(room.take(need_bytes))
        placed.append(PlacedSegment(length_bytes, tuple(extents)))
    return tuple(placed)


def _choose(
    length_bytes: int, rooms: list[Room], others: Collection[Site], apart: Apart
) -> Room | None:
    """The emptiest disk that fits, on another node, rack and drive if there is one that does, and
    of those one that is not slow: each write would wait for it.

    The emptiest node goes first: with three nodes and two copies this is what keeps the third
    usable until all are full.
    """
    fitting = [
        room
        for room in rooms
        if room.largest_bytes >= length_bytes
        and all(room.site.is_apart_from(other, apart) for other in others)
    ]
    if not fitting:
        return None
    nodes = {site.node for site in others}
    racks = {site.rack for site in others} - {""}
    drives = {site.hardware for site in others}
    by_node: dict[NodeId, int] = {}
    for room in rooms:
        by_node[room.node] = by_node.get(room.node, 0) + room.free_bytes
    return max(
        fitting,
        key=lambda room: (
            room.node not in nodes,
            room.site.rack not in racks,
            room.site.hardware not in drives,
            not room.slow,
            by_node[room.node],
            room.free_bytes,
            room.disk,
        ),
    )
