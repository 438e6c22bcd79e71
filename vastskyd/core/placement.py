"""Where extents go. Pure: the same room and the same request give the same answer.

Invariants of every answer: extents lie on the grain, inside their disk's area, and overlap
neither each other nor what is there; the legs of a segment are on distinct nodes, and on distinct
racks as far as there are racks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vastskyd.core.errors import NoSpaceError
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.ondisk_layout import EXTENTS_MAX
from vastskyd.core.units import GRAIN_BYTES, MD_DATA_OFFSET_BYTES, align_up, format_size

SEGMENTS_MAX = 256


@dataclass
class Room:
    """A disk's free ranges: (start, end) pairs, sorted, apart, on the grain. `extents_left`: how
    many more its description has room for."""

    disk: DiskId
    node: NodeId
    rack: str
    free: list[tuple[int, int]]
    clean: tuple[tuple[int, int], ...] = ()
    extents_left: int = EXTENTS_MAX

    @property
    def free_bytes(self) -> int:
        return sum(end - start for start, end in self.free)

    @property
    def largest_bytes(self) -> int:
        if self.extents_left <= 0:
            return 0
        return max((end - start for start, end in self.free), default=0)

    def copy(self) -> "Room":
        free = list(self.free)
        return Room(self.disk, self.node, self.rack, free, self.clean, self.extents_left)

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


def extent_length(segment_length_bytes: int, *, with_array: bool) -> int:
    """An extent is its segment's data and, under md, the room before it for md's own."""
    return segment_length_bytes + (MD_DATA_OFFSET_BYTES if with_array else 0)


def place_volume(
    size_bytes: int, copies: int, rooms: list[Room], segment_max_bytes: int, *, with_array: bool
) -> tuple[PlacedSegment, ...]:
    """The volume's segments, as few as fit, of nearly equal length. NoSpaceError says what is
    missing."""
    nodes = {room.node for room in rooms if room.free_bytes}
    if len(nodes) < copies:
        raise NoSpaceError(
            f"{copies} copies need disks with free space on {copies} storage nodes;"
            f" {len(nodes)} {'has' if len(nodes) == 1 else 'have'} any",
            hint="enrol a disk on another node ('vastskyctl disk list --all' shows candidates),"
            " or ask for fewer copies",
        )
    size_bytes = align_up(size_bytes)
    for count in _counts(size_bytes, segment_max_bytes):
        placed = _place_segments(_cut(size_bytes, count), copies, rooms, with_array=with_array)
        if placed is not None:
            return placed
    total = sum(room.free_bytes for room in rooms)
    raise NoSpaceError(
        f"no room for {format_size(size_bytes)} in {copies} copies: {format_size(total)} are free"
        f" on {len(nodes)} nodes, and no node may hold two copies of a segment",
        hint="enrol more disks, delete volumes, or ask for a smaller size or fewer copies",
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
    size_bytes: int, copies: int, rooms: list[Room], segment_max_bytes: int, *, with_array: bool
) -> Explanation:
    """What `place_volume` would do, and what it says of each disk."""
    try:
        placed = place_volume(size_bytes, copies, rooms, segment_max_bytes, with_array=with_array)
    except NoSpaceError as error:
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
    else:
        said = "not needed: others have more free space, or are on another node or rack"
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
    length_bytes: int, rooms: list[Room], not_on: set[NodeId], not_in_racks: set[str]
) -> PlacedExtent | None:
    """A place for one new leg of a segment whose others are on the nodes `not_on`."""
    room = _choose(length_bytes, rooms, not_on, not_in_racks)
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


def _place_segments(
    lengths: list[int], copies: int, rooms: list[Room], *, with_array: bool
) -> tuple[PlacedSegment, ...] | None:
    trial = [room.copy() for room in rooms]
    placed = []
    for length_bytes in lengths:
        nodes: set[NodeId] = set()
        racks: set[str] = set()
        extents = []
        for _ in range(copies):
            need_bytes = extent_length(length_bytes, with_array=with_array)
            room = _choose(need_bytes, trial, nodes, racks)
            if room is None:
                return None
            nodes.add(room.node)
            racks |= {room.rack} - {""}
            extents.append(room.take(need_bytes))
        placed.append(PlacedSegment(length_bytes, tuple(extents)))
    return tuple(placed)


def _choose(
    length_bytes: int, rooms: list[Room], not_on: set[NodeId], not_in_racks: set[str]
) -> Room | None:
    """The emptiest disk that fits, on another rack if there is one that does.

    The emptiest node goes first: with three nodes and two copies this is what keeps the third
    usable until all are full.
    """
    fitting = [
        room for room in rooms if room.node not in not_on and room.largest_bytes >= length_bytes
    ]
    if not fitting:
        return None
    by_node: dict[NodeId, int] = {}
    for room in rooms:
        by_node[room.node] = by_node.get(room.node, 0) + room.free_bytes
    return max(
        fitting,
        key=lambda room: (
            room.rack not in not_in_racks,
            by_node[room.node],
            room.free_bytes,
            room.disk,
        ),
    )
