"""The two slots: whatever happens to a write, the description before it or the new one speaks."""

from hypothesis import given
from hypothesis import strategies as st

from tests.ondisk.strategies import descriptions
from tests.ondisk.test_codec import SMALL, largest, sealed
from vastskyd.core.description import DiskDescription
from vastskyd.core.ondisk_layout import SLOT_BYTES
from vastskyd.ondisk.codec import encode
from vastskyd.ondisk.slots import Current, Damaged, Empty, choose, next_slot

BLOCK_BYTES = 4096
BLANK = bytes(SLOT_BYTES)


def write(
    slots: tuple[bytes, ...], description: DiskDescription, blocks: frozenset[int] | None = None
) -> tuple[bytes, ...]:
    """The slots after one write, of which only these blocks reached the disk (None: all)."""
    target = next_slot(choose(slots))
    content = encode(description, target.generation)
    after = bytearray(slots[target.slot])
    for block in range(len(content) // BLOCK_BYTES):
        if blocks is None or block in blocks:
            start = block * BLOCK_BYTES
            after[start : start + BLOCK_BYTES] = content[start : start + BLOCK_BYTES]
    changed = list(slots)
    changed[target.slot] = bytes(after)
    return tuple(changed)


def chosen(slots: tuple[bytes, ...]) -> Current:
    found = choose(slots)
    assert isinstance(found, Current), found
    return found


def many(description: DiskDescription, extents: int) -> DiskDescription:
    """A description of several blocks."""
    big = largest(extents)
    return DiskDescription(
        cluster=description.cluster,
        disk=description.disk,
        area_start_bytes=big.area_start_bytes,
        area_end_bytes=big.area_end_bytes,
        extents=big.extents,
    )


def test_a_blank_disk_is_empty() -> None:
    assert choose((BLANK, BLANK)) == Empty()
    assert choose((b"", b"")) == Empty()


@given(st.lists(descriptions(), min_size=1, max_size=6))
def test_the_last_write_speaks(history: list[DiskDescription]) -> None:
    slots: tuple[bytes, ...] = (BLANK, BLANK)
    for number, description in enumerate(history, 1):
        slots = write(slots, description)
        found = chosen(slots)
        assert (found.description, found.generation) == (description, number)
        assert found.slot == (number - 1) % 2


@given(descriptions(), descriptions(), st.integers(0, 40), st.data())
def test_a_torn_write_leaves_the_old_or_the_new(
    old: DiskDescription, new: DiskDescription, extents: int, data: st.DataObject
) -> None:
    new = many(new, extents)
    slots = write(write(write((BLANK, BLANK), new), old), old)
    blocks = len(encode(new, 4)) // BLOCK_BYTES
    arrived = data.draw(st.frozensets(st.integers(0, blocks - 1)))
    found = chosen(write(slots, new, arrived))
    if len(arrived) == blocks:
        assert (found.description, found.generation) == (new, 4)
    elif found.generation == 4:
        assert found.description == new  # the missing blocks held the same bytes before
    else:
        assert (found.description, found.generation) == (old, 3)


def test_a_write_torn_at_every_block() -> None:
    old, new = many(SMALL, 60), many(SMALL, 100)
    slots = write(write((BLANK, BLANK), many(SMALL, 120)), old)
    blocks = len(encode(new, 3)) // BLOCK_BYTES
    assert blocks > 3
    for count in range(blocks):
        found = chosen(write(slots, new, frozenset(range(count))))
        assert (found.description, found.generation) == (old, 2)
        again = chosen(write(write(slots, new, frozenset(range(count))), new))
        assert (again.description, again.generation) == (new, 3)
    assert chosen(write(slots, new)).description == new


def test_a_damaged_slot_is_told_and_mended_by_the_next_write() -> None:
    slots = write(write((BLANK, BLANK), SMALL), SMALL)
    broken = (slots[0][:200] + b"\xff" + slots[0][201:], slots[1])
    found = chosen(broken)
    assert "slot 0" in found.other_damaged
    assert chosen(write(broken, SMALL)).other_damaged == ""


def test_both_damaged_says_so() -> None:
    slots = write(write((BLANK, BLANK), SMALL), SMALL)
    found = choose(tuple(slot[:200] + b"\xff" + slot[201:] for slot in slots))
    assert isinstance(found, Damaged)
    assert "slot 0" in found.message
    assert "slot 1" in found.message
    assert "checksum" in found.message


def test_a_later_format_is_not_passed_over_for_an_older_description() -> None:
    old = encode(SMALL, 6)
    for slots in ((sealed(b"?", version=2), old), (old, sealed(b"?", version=2))):
        found = choose(slots)
        assert isinstance(found, Damaged)
        assert "format 2" in found.message
        assert next_slot(found).generation == 8


def test_a_damaged_version_field_is_only_damage() -> None:
    slots = write(write((BLANK, BLANK), SMALL), SMALL)
    flipped = slots[1][:8] + b"\x02" + slots[1][9:]
    assert chosen((slots[0], flipped)).generation == 1


def test_one_generation_twice_with_other_words_is_damage() -> None:
    other = many(SMALL, 1)
    assert isinstance(choose((encode(SMALL, 3), encode(other, 3))), Damaged)
    assert chosen((encode(SMALL, 3), encode(SMALL, 3))).generation == 3
