"""A slot's bytes: what was written comes back, and nothing else is ever believed."""

import hashlib
import struct

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.ondisk.strategies import descriptions
from vastskyd.core.description import (
    DiskDescription,
    ExtentRecord,
    ExtentRecordState,
)
from vastskyd.core.documents import LegHint
from vastskyd.core.errors import DamagedError, InvalidError
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import Layout, LegState
from vastskyd.core.ondisk_layout import (
    AREA_START_BYTES,
    DELETED_MAX,
    EXTENTS_MAX,
    LEGS_MAX,
    SLOT_BYTES,
    SLOT_OFFSETS_BYTES,
)
from vastskyd.ondisk import codec
from vastskyd.ondisk.codec import BLOCK_BYTES, MAGIC, NewerVersionError, decode, encode

GENERATIONS = st.integers(0, 2**64 - 1)
SMALL = DiskDescription(
    cluster=ClusterId("c" * 16),
    disk=DiskId("d" * 16),
    area_start_bytes=AREA_START_BYTES,
    area_end_bytes=1 << 40,
)


def extent(number: int, offset: int, length: int = 1 << 20) -> ExtentRecord:
    return ExtentRecord(
        id=ExtentId(f"{number:016x}"),
        offset_bytes=offset,
        length_bytes=length,
        volume=VolumeId("a" * 24),
        segment=0,
        state=ExtentRecordState.READY,
    )


def sealed(body: bytes, version: int = codec.FORMAT_VERSION, magic: bytes = MAGIC) -> bytes:
    """A slot with a right checksum around any body, made from docs/on-disk.md alone."""
    fields = magic + struct.pack("<IIQ", version, len(body), 7)
    rest = body + bytes(-(56 + len(body)) % 4096)
    return fields + hashlib.blake2b(fields + rest, digest_size=32).digest() + rest


@given(descriptions(), GENERATIONS)
def test_round_trip(description: DiskDescription, generation: int) -> None:
    content = encode(description, generation)
    assert len(content) % BLOCK_BYTES == 0
    assert decode(content) == (description, generation)


@given(descriptions(), st.binary(max_size=3 * BLOCK_BYTES))
def test_what_a_longer_description_left_behind_is_not_looked_at(
    description: DiskDescription, remains: bytes
) -> None:
    assert decode(encode(description, 3) + remains) == (description, 3)


def test_the_document_is_true() -> None:
    body = msgspec.msgpack.encode(SMALL)
    assert encode(SMALL, 7) == sealed(body)


@given(descriptions(), st.data())
def test_any_bit_flip_is_detected(description: DiskDescription, data: st.DataObject) -> None:
    content = bytearray(encode(description, 5))
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedError):
        decode(bytes(content))


def test_every_bit_of_the_header_counts() -> None:
    content = encode(SMALL, 5)
    for bit in range(codec.HEADER_BYTES * 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError) as caught:
            decode(bytes(flipped))
        assert not isinstance(caught.value, NewerVersionError)


@given(descriptions(), st.data())
def test_any_truncation_is_detected(description: DiskDescription, data: st.DataObject) -> None:
    content = encode(description, 5)
    with pytest.raises(DamagedError):
        decode(content[: data.draw(st.integers(0, len(content) - 1))])


@given(st.binary(max_size=2 * BLOCK_BYTES) | st.binary(max_size=300).map(sealed))
@example(b"")
@example(sealed(b""))
@example(sealed(b"\xc0"))
@example(sealed(b"\x91" * 5000))
@example(sealed(b"\x81\xa2\x00\x80"))  # a key that is not UTF-8
@example(sealed(b"\x81\xa7cluster" * 900))
@example(MAGIC + struct.pack("<IIQ", 1, 2**32 - 1, 2**64 - 1) + bytes(BLOCK_BYTES))
def test_any_bytes_are_refused_by_meaning(content: bytes) -> None:
    with pytest.raises(DamagedError):
        decode(content)


def test_a_later_format_is_told_from_damage() -> None:
    with pytest.raises(NewerVersionError, match="format 2; this vastskyd knows format 1") as caught:
        decode(sealed(b"who knows", version=2))
    assert caught.value.generation == 7
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extents": (extent(1, 8 << 20), extent(1, 16 << 20))}, "one id"),
        ({"extents": (extent(1, 8 << 20), extent(2, (9 << 20) - 512))}, "overlaps"),
        ({"extents": (extent(1, 0),)}, "overlaps the start"),
        ({"extents": (extent(1, 1 << 40),)}, "behind the area"),
        ({"extents": (extent(1, 8 << 20, 0),)}, "is empty"),
        ({"extents": (extent(1, 8 << 20),), "clean": ((4 << 20, 9 << 20),)}, "overlaps"),
        ({"clean": ((9 << 20, 8 << 20),)}, "is empty"),
        ({"area_end_bytes": 0}, "ends before"),
    ],
)
def test_a_description_that_contradicts_itself_is_neither_written_nor_believed(
    changes: dict[str, object], words: str
) -> None:
    wrong = msgspec.structs.replace(SMALL, **changes)
    with pytest.raises(InvalidError, match=words):
        encode(wrong, 1)
    with pytest.raises(DamagedError, match=words):
        decode(sealed(msgspec.msgpack.encode(wrong)))


LEG = LegHint(
    extent=ExtentId("e" * 16),
    disk=DiskId("d" * 16),
    node=NodeId("n" * 63),
    offset_bytes=2**64 - 1,
    state=LegState.REBUILDING,
)


def largest(extents: int) -> DiskDescription:
    step = 1 << 36
    return DiskDescription(
        cluster=ClusterId("c" * 64),
        cluster_name="n" * 64,
        disk=DiskId("d" * 64),
        area_start_bytes=1 << 60,
        area_end_bytes=1 << 62,
        extents=tuple(
            ExtentRecord(
                id=ExtentId(f"{number:016x}"),
                offset_bytes=(1 << 60) + number * step,
                length_bytes=step - (1 << 33),
                volume=VolumeId("v" * 24),
                segment=2**32 - 1,
                state=ExtentRecordState.PREPARING,
                epoch=2**64 - 1,
                segment_length_bytes=1 << 60,
                leg_state=LegState.REBUILDING,
                volume_name="n" * 64,
                volume_size_bytes=2**64 - 1,
                copies=2**64 - 1,
                layout=Layout.LINEAR,
                segments=2**32 - 1,
                set_revision=2**64 - 1,
                deleted=True,
                legs=(LEG,) * LEGS_MAX,
            )
            for number in range(extents)
        ),
        deleted=tuple(VolumeId("v" * 24) for _ in range(DELETED_MAX)),
        clean=tuple(
            ((1 << 60) + number * step - (1 << 32), (1 << 60) + number * step)
            for number in range(1, extents + 1)
        ),
    )


def test_as_many_extents_as_promised_always_fit() -> None:
    content = encode(largest(EXTENTS_MAX), 2**64 - 1)
    assert len(content) <= SLOT_BYTES
    assert decode(content)[0] == largest(EXTENTS_MAX)


def test_too_many_extents_are_refused() -> None:
    with pytest.raises(InvalidError, match="are the most"):
        encode(largest(EXTENTS_MAX + 1), 1)


def test_slots_and_area_lie_apart() -> None:
    first, second = SLOT_OFFSETS_BYTES
    assert first + SLOT_BYTES <= second
    assert second + SLOT_BYTES <= AREA_START_BYTES
    assert first % BLOCK_BYTES == second % BLOCK_BYTES == AREA_START_BYTES % BLOCK_BYTES == 0
