"""Nothing that a volume carries is near an end of what stands below it: there it would be found a
second time."""

from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.documents import Endpoint, LegSpec, SegmentSpec, VolumeSpec
from vastskyd.core.ids import DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.layout import plan_volume
from vastskyd.core.model import Apart, Encryption, Layout, LegState
from vastskyd.core.names import LegName
from vastskyd.core.placement import PlacedSegment, Room, Site, place_volume
from vastskyd.core.sight import SeenArray, SeenLeg, SeenMember, SeenPath, Sight
from vastskyd.core.steps import CreateArray, MapLeg, MapVolume, Step
from vastskyd.core.units import MD_DATA_OFFSET_BYTES, MIB, align_up

VOLUME = VolumeId("a" * 24)
# Enough for all that is looked for at a device's ends; two labels of ZFS are the most.
SEEN_BYTES = 512 * 1024


def leg_name(index: int, copy: int) -> LegName:
    return LegName(VOLUME, index, ExtentId(f"{index:08x}{copy:08x}"), 1)


def spec(placed: tuple[PlacedSegment, ...], size: int, copies: int, made: bool) -> VolumeSpec:
    return VolumeSpec(
        id=VOLUME, name="v", size_bytes=size, copies=copies, epoch=1, attached=True,
        layout=Layout.LINEAR if copies == 1 else Layout.RAID1, encryption=Encryption.NONE,
        segments=tuple(
            SegmentSpec(index=index, length_bytes=place.length_bytes, initialised=made, legs=tuple(
                LegSpec(extent=leg_name(index, copy).extent, node=NodeId("s"),
                        state=LegState.IN_SYNC, local=False, export_name="x",
                        endpoints=(Endpoint(network=0, address="10.0.0.1", port=1),),
                        length_bytes=extent.length_bytes)
                for copy, extent in enumerate(place.extents)
            ))
            for index, place in enumerate(placed)
        ),
    )  # fmt: skip


def steps(wanted: VolumeSpec, *, legs: bool, arrays: bool) -> tuple[Step, ...]:
    """Of a head with so much of the volume's stack."""
    names = [
        leg_name(segment.index, copy)
        for segment in wanted.segments
        for copy in range(wanted.copies)
    ]
    seen = {
        name.extent: SeenLeg(
            name, f"/dev/leg-{name.extent}", (f"nbd-{name.extent}",), frozenset(), holds=True
        )
        for name in names
    }
    built = {
        (VOLUME, segment.index): SeenArray(
            f"/dev/md{segment.index}", VOLUME, segment.index,
            {f"leg-{leg.extent}": SeenMember(f"leg-{leg.extent}", True, False)
             for leg in segment.legs},
            True, False, wanted.copies, 0, 0,
        )
        for segment in wanted.segments
    }  # fmt: skip
    paths = tuple(SeenPath(f"/dev/nbd-{name.extent}", name.extent, 1, 0, True) for name in names)
    sight = Sight(seen if legs else {}, built if arrays else {}, {}, paths)
    return plan_volume(wanted, sight, {}, (), waited=True).steps


@given(st.integers(MIB, 90 * MIB), st.integers(1, 3))
def test_what_a_volume_carries_stands_on_nothing_below_it(size: int, copies: int) -> None:
    rooms = [
        Room(Site(DiskId(str(number)), NodeId(str(number))), [(4 * MIB, 200 * MIB)])
        for number in range(copies)
    ]
    placed = place_volume(size, copies, rooms, 20 * MIB, Apart.HOST, with_array=copies > 1)
    new, made = (spec(placed, align_up(size), copies, made) for made in (False, True))

    ends: dict[str, int] = {}  # by device
    for step in steps(made, legs=False, arrays=False):
        if isinstance(step, MapLeg):
            ends[f"/dev/leg-{step.name.extent}"] = step.size_bytes
    if copies > 1:
        for create in steps(new, legs=True, arrays=False):
            assert isinstance(create, CreateArray)
            ends[f"/dev/md{create.segment}"] = create.size_bytes
            assert {ends[leg] - create.size_bytes for leg in create.legs} == {MD_DATA_OFFSET_BYTES}

    (volume,) = steps(made, legs=True, arrays=copies > 1)
    assert isinstance(volume, MapVolume)
    assert len(volume.parts) == len(placed)
    assert sum(length for _, _, length in volume.parts) == align_up(size)
    for device, offset, length in volume.parts:
        assert offset >= SEEN_BYTES
        assert offset + length <= ends[device] - SEEN_BYTES
