"""Where extents go, for any disks and any request."""

import itertools
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core import placement
from vastskyd.core.errors import NoSpaceError
from vastskyd.core.guards import extent_length
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.model import Apart
from vastskyd.core.placement import (
    SEGMENTS_MAX,
    PlacedExtent,
    Room,
    Site,
    explain_volume,
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
        drive, is_file = draw(st.sampled_from([("", False), ("x", False), ("x", True)]))
        used = [r for r in draw(ranges) if r[0] < r[1]]
        end = draw(st.integers(8, 200)) * GRAIN_BYTES
        free = free_ranges((4 * MIB, end), used)
        rack = "" if node == "d" else "r1" if node in "ab" else "r2"
        clean = tuple(free[: draw(st.integers(0, 2))])
        site = Site(DiskId(str(number)), NodeId(node), rack, drive, is_file)
        made.append(Room(site, free, clean, slow=draw(st.booleans())))
    return made


def lies_in(extent: PlacedExtent, spans: list[tuple[int, int]]) -> bool:
    end = extent.offset_bytes + extent.length_bytes
    return any(a <= extent.offset_bytes and end <= b for a, b in spans)


aparts = st.sampled_from(Apart)
sizes = st.integers(8 * MIB, 120 * MIB)


@given(rooms(), sizes, st.integers(1, 4), aparts, st.booleans())
def test_a_placed_volume(
    there: list[Room], size: int, copies: int, apart: Apart, with_array: bool
) -> None:
    before = [room.copy() for room in there]
    try:
        placed = place_volume(size, copies, there, 32 * MIB, apart, with_array=with_array)
    except NoSpaceError:
        return
    assert [room.free for room in there] == [room.free for room in before]
    by_disk = {room.disk: room for room in before}
    assert size <= sum(segment.length_bytes for segment in placed) < size + GRAIN_BYTES
    taken: dict[DiskId, list[tuple[int, int]]] = {}
    for segment in placed:
        assert segment.length_bytes <= 32 * MIB
        assert segment.length_bytes % GRAIN_BYTES == 0
        sites = [by_disk[extent.disk].site for extent in segment.extents]
        assert len(sites) == copies
        assert_apart(sites, apart)
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


def assert_apart(sites: list[Site], apart: Apart) -> None:
    assert len({site.disk for site in sites}) == len(sites)
    if apart is Apart.HOST:
        assert len({site.node for site in sites}) == len(sites)
    whole = [site.hardware for site in sites if not site.is_file]
    assert len(set(whole)) == len(whole)


@given(rooms(), st.integers(1, 60), st.lists(st.integers(0, 6), max_size=3), aparts)
def test_a_placed_leg(there: list[Room], length: int, taken: list[int], apart: Apart) -> None:
    before = [room.copy() for room in there]
    others = [room.site for number, room in enumerate(there) if number in taken]
    place = place_leg(length * MIB, there, others, apart)
    fits = [
        room
        for room in before
        if room.largest_bytes >= length * MIB
        and all(room.site.is_apart_from(other, apart) for other in others)
    ]
    assert (place is not None) == bool(fits)
    if place is None:
        return
    room = next(room for room in before if room.disk == place.disk)
    assert room in fits
    assert lies_in(place, room.free)
    nodes, racks = {o.node for o in others}, {o.rack for o in others} - {""}
    if any(r.node not in nodes for r in fits):
        assert room.node not in nodes
        if any(r.node not in nodes and r.site.rack not in racks for r in fits):
            assert room.site.rack not in racks
    elif any(r.site.rack not in racks for r in fits):
        assert room.site.rack not in racks
    drives = {other.hardware for other in others}

    def how_apart(site: Site) -> tuple[bool, bool, bool]:
        return site.node not in nodes, site.rack not in racks, site.hardware not in drives

    if any(not r.slow for r in fits if how_apart(r.site) == how_apart(room.site)):
        assert not room.slow


def single(*disks: Site) -> list[Room]:
    return [Room(site, [(4 * MIB, 100 * MIB)]) for site in disks]


def on_n(disk: str, drive: str = "", *, is_file: bool = False) -> Site:
    return Site(DiskId(disk), NodeId("n"), "", drive, is_file)


def test_two_partitions_of_one_drive_do_not_hold_two_copies() -> None:
    drives = single(on_n("a1", "a"), on_n("a2", "a"))
    with pytest.raises(NoSpaceError, match="2 copies need free space on 2 drives; 1 has any"):
        place_volume(8 * MIB, 2, drives, 32 * MIB, Apart.DISK, with_array=True)
    drives = single(on_n("a1", "a"), on_n("a2", "a"), on_n("b"))
    (placed,) = place_volume(8 * MIB, 2, drives, 32 * MIB, Apart.DISK, with_array=True)
    assert "b" in {extent.disk for extent in placed.extents}
    there = [on_n("a1", "a")]
    assert place_leg(8 * MIB, single(on_n("a2", "a")), there, Apart.DISK) is None
    assert place_leg(8 * MIB, single(on_n("b")), there, Apart.DISK) is not None


def test_two_files_of_one_drive_may_where_there_is_no_other() -> None:
    files = [on_n("f1", "a", is_file=True), on_n("f2", "a", is_file=True)]
    (placed,) = place_volume(8 * MIB, 2, single(*files), 32 * MIB, Apart.DISK, with_array=True)
    assert {extent.disk for extent in placed.extents} == {"f1", "f2"}
    rooms = single(*files, on_n("b"))
    (placed,) = place_volume(8 * MIB, 2, rooms, 32 * MIB, Apart.DISK, with_array=True)
    assert "b" in {extent.disk for extent in placed.extents}


def test_where_hosts_are_to_be_different_the_way_to_go_without_is_named() -> None:
    with pytest.raises(NoSpaceError, match="2 storage nodes; 1 has any") as refused:
        place_volume(8 * MIB, 2, single(on_n("a"), on_n("b")), MIB, Apart.HOST, with_array=True)
    assert "--copies-apart disk" in refused.value.hint
    with pytest.raises(NoSpaceError) as refused:
        place_volume(8 * MIB, 2, single(on_n("a")), MIB, Apart.HOST, with_array=True)
    assert "--copies-apart" not in refused.value.hint


def test_slow_disks_are_left_alone_while_there_is_room_and_taken_when_there_is_not() -> None:
    """Three nodes, one slow: what fits on two goes there; more goes where it would go anyway."""
    there = [
        Room(Site(DiskId(name), NodeId(name)), [(4 * MIB, 100 * MIB)], slow=name == "c")
        for name in "abc"
    ]
    for size, disks in ((90 * MIB, {"a", "b"}), (120 * MIB, {"a", "b", "c"})):
        said = explain_volume(size, 2, there, 32 * MIB, Apart.HOST, with_array=False)
        assert said.missing is None
        assert {answer.disk for answer in said.disks if answer.takes_bytes} == disks
        reasons = [answer.reason for answer in said.disks if not answer.takes_bytes]
        assert reasons == ["not needed: it is slow, and others have room"] * (3 - len(disks))


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
    full = Room(on_n("0"), list(span), extents_left=0)
    one_more = Room(on_n("1"), [(4 * MIB, 100 * MIB)], extents_left=1)
    place = place_leg(8 * MIB, [full, one_more], [], Apart.HOST)
    assert place is not None
    assert place.disk == "1"
    assert place_leg(8 * MIB, [full, one_more], [], Apart.HOST) is None


@given(rooms(), sizes, st.integers(1, 4), aparts, st.booleans())
def test_an_explanation_is_what_would_be_done(
    there: list[Room], size: int, copies: int, apart: Apart, with_array: bool
) -> None:
    said = explain_volume(size, copies, there, 32 * MIB, apart, with_array=with_array)
    assert [answer.disk for answer in said.disks] == [room.disk for room in there]
    assert all(answer.reason for answer in said.disks)
    taken = dict.fromkeys((room.disk for room in there), 0)
    if said.missing is not None:
        with pytest.raises(NoSpaceError, match=re.escape(said.missing.message)):
            place_volume(size, copies, there, 32 * MIB, apart, with_array=with_array)
    else:
        placed = place_volume(size, copies, there, 32 * MIB, apart, with_array=with_array)
        for extent in (extent for segment in placed for extent in segment.extents):
            taken[extent.disk] += extent.length_bytes
    assert {answer.disk: answer.takes_bytes for answer in said.disks} == taken


def test_an_explanation_names_what_is_in_the_way() -> None:
    def room(disk: str, node: str, end_mib: int, extents_left: int = 9) -> Room:
        span = [(4 * MIB, end_mib * MIB)] if end_mib else []
        return Room(Site(DiskId(disk), NodeId(node)), span, extents_left=extents_left)

    there = [room("a", "n1", 64), room("b", "n2", 9), room("c", "n2", 0), room("d", "n2", 64, 0)]
    said = explain_volume(32 * MIB, 2, there, 32 * MIB, Apart.HOST, with_array=False)
    assert said.missing is not None
    # Cut into ever smaller segments, the last of which are a grain each: they do not add up.
    assert [answer.reason for answer in said.disks] == [
        "has room; it is other disks and nodes that are missing",
        "has room; it is other disks and nodes that are missing",
        "it is full",
        "its description has no room for more extents",
    ]
    said = explain_volume(32 * MIB, 1, there, 32 * MIB, Apart.HOST, with_array=False)
    assert said.missing is None
    whole = extent_length(32 * MIB, with_array=False)
    assert [answer.takes_bytes for answer in said.disks] == [whole, 0, 0, 0]
    assert said.disks[0].reason == "takes 1 of 1 extents"
    assert "smaller than an extent of 34.0 MiB" in said.disks[1].reason


def test_a_volume_that_is_too_large_is_told_so_and_not_that_there_is_no_room() -> None:
    there = [Room(Site(DiskId(name), NodeId(name)), [(0, 2**60)]) for name in "abc"]
    size = SEGMENTS_MAX * 32 * MIB
    assert explain_volume(size, 2, there, 32 * MIB, Apart.HOST, with_array=False).missing is None
    said = explain_volume(size + 1, 2, there, 32 * MIB, Apart.HOST, with_array=False)
    assert said.missing is not None
    assert said.missing.message == (
        "8.0 GiB is too large for a volume: it has at most 256 segments of 32.0 MiB"
    )
    assert "segment_max" in said.missing.hint
    assert {answer.reason for answer in said.disks} == {
        "it is not asked: no volume can be so large"
    }


@given(rooms(), sizes, st.integers(1, 4), st.integers(1, 8), aparts, st.booleans())
def test_what_is_not_tried_does_not_fit(
    there: list[Room], size: int, copies: int, count: int, apart: Apart, with_array: bool
) -> None:
    lengths = placement._cut(size, count)
    placed = placement._place_segments(lengths, copies, there, apart, with_array=with_array)
    may = placement._may_fit(lengths, copies, there, apart, with_array=with_array)
    assert may or placed is None


def test_that_there_is_no_room_is_found_out_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may look may ask, and all that the manager does waits for the answer."""
    tried = 0
    choose = placement._choose

    def counted(*given: object) -> Room | None:
        nonlocal tried
        tried += 1
        return choose(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(placement, "_choose", counted)
    size, copies = 64 * 1024 * MIB, 5
    free = size * copies // 240 * 101 // 100 // (4 * MIB) * (4 * MIB)
    there = [
        Room(Site(DiskId(f"{node}-{disk}"), NodeId(str(node))), [(0, free)])
        for node in range(20)
        for disk in range(12)
    ]
    with pytest.raises(NoSpaceError):
        place_volume(size, copies, there, 64 * 1024 * MIB, Apart.HOST, with_array=True)
    assert tried <= 2 * SEGMENTS_MAX * copies
