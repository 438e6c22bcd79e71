"""Where extents go, for any disks and any request."""

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.errors import NoSpaceError
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.placement import (
    PlacedExtent,
    Room,
    extent_length,
    free_ranges,
    place_leg,
    place_volume,
)
from vastskyd.core.turn import with_range, without_range
from vastskyd.core.units import GRAIN_BYTES, MIB

grid = st.integers(0, 200).map(lambda n: n * GRAIN_BYTES)
ranges = st.lists(st.tuples(grid, grid).map(lambda p: (min(p), max(p))), max_size=6)


@st.composite
def rooms(draw: st.DrawFn) -> list[Room]:
    made = []
    for number in range(draw(st.integers(1, 7))):
        node = draw(st.sampled_from("abcd"))
        used = [r for r in draw(ranges) if r[0] < r[1]]
        end = draw(st.integers(8, 200)) * GRAIN_BYTES
        free = free_ranges((4 * MIB, end), used)
        rack = "" if node == "d" else "r1" if node in "ab" else "r2"
        clean = tuple(free[: draw(st.integers(0, 2))])
        made.append(Room(DiskId(str(number)), NodeId(node), rack, free, clean))
    return made


def lies_in(extent: PlacedExtent, spans: list[tuple[int, int]]) -> bool:
    end = extent.offset_bytes + extent.length_bytes
    return any(a <= extent.offset_bytes and end <= b for a, b in spans)


@given(rooms(), st.integers(8 * MIB, 120 * MIB), st.integers(1, 4), st.booleans())
def test_a_placed_volume(there: list[Room], size: int, copies: int, with_array: bool) -> None:
    before = [room.copy() for room in there]
    try:
        placed = place_volume(size, copies, there, 32 * MIB, with_array=with_array)
    except NoSpaceError:
        return
    assert [room.free for room in there] == [room.free for room in before]
    by_disk = {room.disk: room for room in before}
    assert size <= sum(segment.length_bytes for segment in placed) < size + GRAIN_BYTES
    taken: dict[DiskId, list[tuple[int, int]]] = {}
    for segment in placed:
        assert segment.length_bytes <= 32 * MIB
        assert segment.length_bytes % GRAIN_BYTES == 0
        nodes = [by_disk[extent.disk].node for extent in segment.extents]
        assert len(set(nodes)) == len(nodes) == copies
        for extent in segment.extents:
            assert extent.offset_bytes % GRAIN_BYTES == 0
            assert extent.length_bytes == extent_length(segment.length_bytes, with_array=with_array)
            room = by_disk[extent.disk]
            assert lies_in(extent, room.free)
            assert extent.wipe_first or lies_in(extent, list(room.clean))
            end = extent.offset_bytes + extent.length_bytes
            taken.setdefault(extent.disk, []).append((extent.offset_bytes, end))
    for spans in taken.values():
        for (_, end), (start, _) in itertools.pairwise(sorted(spans)):
            assert end <= start


@given(rooms(), st.integers(1, 60), st.sets(st.sampled_from("abcd")), st.sets(st.just("r1")))
def test_a_placed_leg(there: list[Room], length: int, nodes: set[str], racks: set[str]) -> None:
    before = [room.copy() for room in there]
    not_on = {NodeId(node) for node in nodes}
    place = place_leg(length * MIB, there, not_on, racks)
    fits = [r for r in before if r.node not in not_on and r.largest_bytes >= length * MIB]
    assert (place is not None) == bool(fits)
    if place is None:
        return
    room = next(room for room in before if room.disk == place.disk)
    assert room in fits
    assert lies_in(place, room.free)
    if any(r.rack not in racks for r in fits):
        assert room.rack not in racks


@given(ranges, st.tuples(grid, grid).map(lambda p: (min(p), max(p))))
def test_ranges_are_sets_of_bytes(spans: list[tuple[int, int]], one: tuple[int, int]) -> None:
    def grains(some: Iterable[tuple[int, int]]) -> set[int]:
        return {g for a, b in some for g in range(a // GRAIN_BYTES, b // GRAIN_BYTES)}

    joined: tuple[tuple[int, int], ...] = ()
    for span in spans:
        joined = with_range(joined, span)
    assert grains(joined) == grains(spans)
    assert grains(without_range(joined, one)) == grains(spans) - grains([one])
    assert grains(with_range(joined, one)) == grains(spans) | grains([one])
    assert grains(free_ranges((0, 200 * GRAIN_BYTES), spans)) == set(range(200)) - grains(spans)


def test_a_disk_whose_description_is_full_takes_no_more() -> None:
    span = [(4 * MIB, 200 * MIB)]
    full = Room(DiskId("0"), NodeId("a"), "", list(span), extents_left=0)
    one_more = Room(DiskId("1"), NodeId("a"), "", [(4 * MIB, 100 * MIB)], extents_left=1)
    place = place_leg(8 * MIB, [full, one_more], set(), set())
    assert place is not None
    assert place.disk == "1"
    assert place_leg(8 * MIB, [full, one_more], set(), set()) is None
