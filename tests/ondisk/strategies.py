"""Descriptions of every kind, for hypothesis."""

from hypothesis import strategies as st

from vastskyd.core.description import DiskDescription, ExtentRecord, ExtentRecordState
from vastskyd.core.documents import LegHint
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import Layout, LegState

_AREA_START_BYTES = 4 << 20


def hexes(digits: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=digits, max_size=digits)


_LEGS = st.builds(
    LegHint,
    extent=hexes(16).map(ExtentId),
    disk=hexes(16).map(DiskId),
    node=st.text("abc-", max_size=63).map(NodeId),
    offset_bytes=st.integers(0, 1 << 60),
    state=st.sampled_from(LegState),
)


@st.composite
def descriptions(draw: st.DrawFn) -> DiskDescription:
    """Ranges are cut from the area one after another, each an extent, clean, or neither."""
    position = _AREA_START_BYTES
    extents: list[ExtentRecord] = []
    clean: list[tuple[int, int]] = []
    for number, (gap, length, kind) in enumerate(
        draw(
            st.lists(
                st.tuples(st.integers(0, 1 << 40), st.integers(1, 1 << 45), st.sampled_from("xxc")),
                max_size=12,
            )
        )
    ):
        start = position + gap
        position = start + length
        if kind == "c":
            clean.append((start, position))
        else:
            extents.append(draw(_extent(f"{number:016x}", start, length)))
    return DiskDescription(
        cluster=ClusterId(draw(hexes(16))),
        cluster_name=draw(st.text(max_size=20)),
        disk=DiskId(draw(hexes(16))),
        area_start_bytes=_AREA_START_BYTES,
        area_end_bytes=position + draw(st.integers(0, 1 << 30)),
        extents=tuple(extents),
        clean=tuple(clean),
    )


@st.composite
def _extent(draw: st.DrawFn, identity: str, offset: int, length: int) -> ExtentRecord:
    return ExtentRecord(
        id=ExtentId(identity),
        offset_bytes=offset,
        length_bytes=length,
        volume=VolumeId(draw(hexes(24))),
        segment=draw(st.integers(0, 9999)),
        state=draw(st.sampled_from(ExtentRecordState)),
        epoch=draw(st.integers(0, 1 << 40)),
        segment_length_bytes=draw(st.integers(0, 1 << 50)),
        initialised=draw(st.booleans()),
        leg_state=draw(st.none() | st.sampled_from(LegState)),
        volume_name=draw(st.text("abc.-_", max_size=64)),
        volume_size_bytes=draw(st.integers(0, 1 << 60)),
        copies=draw(st.integers(0, 3)),
        layout=draw(st.sampled_from(Layout)),
        set_revision=draw(st.integers(0, 1 << 60)),
        legs=tuple(draw(st.lists(_LEGS, max_size=5))),
        deleted=draw(st.booleans()),
    )
