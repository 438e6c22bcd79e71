"""Records made anew: nothing wrong is claimed, whatever is missing and however late the disks are.

A segment goes through random commits, which its disks hear of late or never; then some of the
disks are found, and the records rebuilt from them.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vastskyd.core.description import DiskDescription, ExtentRecordState
from vastskyd.core.documents import ExtentCondition, ExtentFact, ExtentWish
from vastskyd.core.facts import Facts, NodeFacts
from vastskyd.core.guards import extent_length
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import (
    Cluster,
    Disk,
    DiskState,
    Encryption,
    Extent,
    ExtentState,
    Layout,
    Leg,
    LegState,
    Node,
    Role,
    Segment,
    Volume,
    VolumeState,
)
from vastskyd.core.orders import orders
from vastskyd.core.quorum import relied_on
from vastskyd.core.recovering import Rebuilt, rebuild
from vastskyd.core.recovering_hosts import Case
from vastskyd.core.recovery import _recorded, replace_lost_legs
from vastskyd.core.state import ClusterState, Draft
from vastskyd.core.turn import Policy, Turn
from vastskyd.core.units import MIB
from vastskyd.core.wishes import described
from vastskyd.core.witness import (
    DiskSighting,
    ExportSighting,
    Introduction,
    SegmentSighting,
    StackSighting,
    Witness,
)

CLUSTER = ClusterId("c" * 16)
VOLUME = VolumeId("a" * 24)
HOSTS = 7
EPOCH = 3
DATA = 16 * MIB
LENGTH = extent_length(DATA, with_array=True)


def disk_id(number: int) -> DiskId:
    return DiskId(f"d{number:015x}")


def node_id(number: int) -> NodeId:
    return NodeId(f"s{number}")


def extent_id(number: int) -> ExtentId:
    return ExtentId(f"{number:016x}")


@dataclass
class World:
    """The truth, and what each disk holds of it. Leg n lies on disk n of host n."""

    copies: int
    turn: Turn = field(init=False)
    disks: dict[int, DiskDescription] = field(default_factory=dict)
    next_host: int = 0

    def __post_init__(self) -> None:
        draft = Draft(ClusterState())
        draft.put(Cluster(id=CLUSTER, name="t", manager=NodeId("m"), created_s=0.0))
        for number in range(HOSTS):
            draft.put(
                Node(id=node_id(number), roles=(Role.STORAGE,), addresses=("10.0.0.1",), port=1,
                     export_port=2)
            )  # fmt: skip
            draft.put(
                Disk(id=disk_id(number), node=node_id(number), path="p", serial="s",
                     size_bytes=64 * MIB, area_start_bytes=4 * MIB, area_end_bytes=63 * MIB,
                     state=DiskState.ONLINE)
            )  # fmt: skip
            self.disks[number] = DiskDescription(
                cluster=CLUSTER,
                disk=disk_id(number),
                area_start_bytes=4 * MIB,
                area_end_bytes=63 * MIB,
            )
        self.turn = Turn(draft, Facts(), Policy(), 0.0, 0.0, lambda digits: "0" * digits)
        legs = tuple(self.new_leg(LegState.IN_SYNC) for _ in range(self.copies))
        segment = Segment(index=0, length_bytes=DATA, legs=legs, initialised=True)
        draft.put(
            Volume(
                id=VOLUME, name="v", size_bytes=DATA, copies=self.copies,
                layout=Layout.RAID1, state=VolumeState.AVAILABLE, segments=(segment,), epoch=EPOCH,
            )
        )  # fmt: skip
        for number in range(self.copies):
            self.describe(number)

    def new_leg(self, state: LegState) -> Leg:
        number = self.next_host
        self.next_host += 1
        self.turn.draft.put(
            Extent(id=extent_id(number), disk=disk_id(number), offset_bytes=4 * MIB,
                   length_bytes=LENGTH, volume=VOLUME, segment=0, state=ExtentState.READY,
                   wipe_first=False)
        )  # fmt: skip
        return Leg(extent=extent_id(number), state=state)

    @property
    def volume(self) -> Volume:
        return self.turn.draft.volumes[VOLUME]

    @property
    def segment(self) -> Segment:
        return self.volume.segments[0]

    def commit(self, changes: dict[ExtentId, LegState], *, fresh: Leg | None = None) -> None:
        legs = tuple(
            msgspec.structs.replace(leg, state=changes[leg.extent])
            if leg.extent in changes
            else leg
            for leg in self.segment.legs
        )
        if fresh is not None:
            lost = next(leg for leg in legs if leg.state is LegState.BEHIND)
            legs = tuple(fresh if leg is lost else leg for leg in legs)
            self.turn.release(lost.extent)
        self.turn.put_segment(self.volume, msgspec.structs.replace(self.segment, legs=legs))

    def describe(self, number: int) -> None:
        """The disk's host hears of how things are, and its export was there before."""
        document = orders(self.turn)[node_id(number)].storage
        now = described(self.disks[number], list(document.extents))
        records = tuple(
            msgspec.structs.replace(record, state=ExtentRecordState.READY)
            if record.state is ExtentRecordState.PREPARING
            else record
            for record in now.extents
        )
        self.disks[number] = msgspec.structs.replace(now, extents=records)
        self.turn.facts[node_id(number)] = NodeFacts(
            online=True,
            extents={
                record.id: ExtentFact(
                    id=record.id,
                    condition=ExtentCondition.READY,
                    epoch=record.epoch,
                    set_revision=record.set_revision,
                )
                for record in records
            },
        )

    def describe_first(self, number: int) -> None:
        if extent_id(number) not in {record.id for record in self.disks[number].extents}:
            self.describe(number)

    def wiped(self, number: int) -> None:
        """What was released there is gone."""
        kept = tuple(
            record
            for record in self.disks[number].extents
            if record.state is not ExtentRecordState.WIPING
        )
        self.disks[number] = msgspec.structs.replace(self.disks[number], extents=kept)

    def step(self, choose: int) -> None:
        """One thing that the rules allow now."""
        segment = self.segment
        in_sync = segment.in_sync()
        may: list[tuple[str, ExtentId | None]] = []
        if len(in_sync) > 1:
            may += [("lose", extent) for extent in in_sync]
        may += [("rejoin", e) for e in segment.in_state(LegState.BEHIND, LegState.REBUILDING)]
        for extent in segment.in_state(LegState.JOINING):
            may.append(("lose", extent))
            if _recorded(self.turn, segment, {extent: LegState.IN_SYNC}):
                may.append(("enter", extent))
        if segment.in_state(LegState.BEHIND) and self.next_host < HOSTS:
            may.append(("replace", None))
        for number in range(self.next_host):
            may += [(f"describe {number}", None), (f"wiped {number}", None)]
        what, of = may[choose % len(may)]
        state = {"lose": LegState.BEHIND, "rejoin": LegState.JOINING, "enter": LegState.IN_SYNC}
        if of is not None:
            if what == "rejoin":  # to be filled it was exported, and for that described
                self.describe_first(int(of, 16))
            self.commit({of: state[what]})
        elif what == "replace":
            self.commit({}, fresh=self.new_leg(LegState.REBUILDING))
        elif what.startswith("describe"):
            self.describe(int(what.split()[1]))
        else:
            self.wiped(int(what.split()[1]))

    def witness(self, number: int) -> Witness:
        disk = self.disks[number]
        said = Introduction(
            node=node_id(number), roles=(Role.STORAGE,), addresses=("10.0.0.1",), port=1, rack="",
            revision=5,
            disks=(DiskSighting(id=disk.disk, path="p", serial="s", size_bytes=64 * MIB,
                                generation=1),),
        )  # fmt: skip
        return Witness(said, {disk.disk: disk})

    def recover(self, numbers: set[int], *others: Witness) -> Rebuilt:
        seen = {node_id(number): self.witness(number) for number in numbers}
        return rebuild(case({**seen, **{other.said.node: other for other in others}}))


def case(witnesses: dict[NodeId, Witness]) -> Case:
    return Case(
        cluster=CLUSTER,
        cluster_name="t",
        manager=NodeId("m"),
        encryption=Encryption.TLS,
        witnesses=witnesses,
        now_s=1.0,
        new_token=tokens("f"),
    )


def tokens(first: str) -> Callable[[int], str]:
    """No two are the same."""
    numbers = itertools.count()
    return lambda digits: first + f"{next(numbers):0{digits - 1}x}"


STEPS = st.lists(st.integers(0, 10_000), max_size=25)
SEEN = st.sets(st.integers(0, HOSTS - 1))


def usable(rebuilt: Rebuilt, extent: ExtentId) -> bool:
    record = rebuilt.records.extents.get(extent)
    disk = rebuilt.records.disk_of(extent)
    return (
        record is not None
        and record.state is ExtentState.READY
        and disk is not None
        and disk.state is DiskState.ONLINE
    )


@settings(max_examples=400, deadline=None)
@given(copies=st.sampled_from([2, 3]), steps=STEPS, seen=SEEN)
def test_a_volume_that_may_be_attached_has_all_of_its_set(
    copies: int, steps: list[int], seen: set[int]
) -> None:
    world = World(copies)
    for choose in steps:
        world.step(choose)
    rebuilt = world.recover(seen)
    committed = world.segment.in_sync()
    for extent in committed:
        record = rebuilt.records.extents.get(extent)
        assert record is None or record.state is not ExtentState.RELEASED
    volume = rebuilt.records.volumes.get(VOLUME)
    if volume is None:
        return
    segment = volume.segments[0]
    assert segment.initialised
    assert segment.in_doubt
    assert volume.epoch >= EPOCH
    needed = relied_on(segment)
    if needed and all(usable(rebuilt, extent) for extent in needed):
        assert set(committed) <= set(needed), "md would be given a set without the newest leg"


@settings(max_examples=100, deadline=None)
@given(copies=st.sampled_from([2, 3]), steps=STEPS)
def test_what_all_disks_were_told_is_what_is_rebuilt(copies: int, steps: list[int]) -> None:
    world = World(copies)
    for choose in steps:
        world.step(choose)
    for number in range(HOSTS):
        world.describe(number)
    rebuilt = world.recover(set(range(HOSTS)))
    assert not rebuilt.missing
    assert not rebuilt.blocked
    truth, made = world.volume, rebuilt.records.volumes[VOLUME]
    assert [(leg.extent, leg.state) for leg in made.segments[0].legs] == [
        (leg.extent, leg.state) for leg in truth.segments[0].legs
    ]
    assert made.segments[0].revision == truth.segments[0].revision
    for name in ("name", "size_bytes", "copies", "layout", "state", "epoch", "attachment"):
        assert getattr(made, name) == getattr(truth, name)
    live = {leg.extent for leg in truth.segments[0].legs}
    assert {e for e, x in rebuilt.records.extents.items() if x.state is ExtentState.READY} == live


@settings(max_examples=100, deadline=None)
@given(copies=st.sampled_from([2, 3]), steps=STEPS, seen=SEEN)
def test_a_head_says_what_its_volume_is_made_of(
    copies: int, steps: list[int], seen: set[int]
) -> None:
    world = World(copies)
    for choose in steps:
        world.step(choose)
    in_array = world.segment.in_state(LegState.IN_SYNC, LegState.JOINING)
    rebuilt = world.recover(seen, head(in_array))
    volume = rebuilt.records.volumes.get(VOLUME)
    if rebuilt.blocked:
        return
    assert volume is not None
    assert volume.attachment is not None
    assert (volume.attachment.head, volume.epoch) == ("h", EPOCH)
    segment = volume.segments[0]
    assert set(relied_on(segment)) == set(in_array)
    assert segment.in_sync()
    assert segment.revision > world.segment.revision
    assert set(in_array) <= set(rebuilt.records.extents)


def head(in_array: tuple[ExtentId, ...], epoch: int = EPOCH) -> Witness:
    stack = StackSighting(
        volume=VOLUME,
        epoch=epoch,
        exposed=True,
        segments=(SegmentSighting(index=0, in_sync=in_array),),
    )
    said = Introduction(
        node=NodeId("h"), roles=(Role.HEAD,), addresses=("10.0.0.9",), port=1, rack="r", revision=9,
        stacks=(stack,),
    )  # fmt: skip
    return Witness(said)


def test_a_volume_in_use_of_which_no_disk_is_seen_is_not_forgotten() -> None:
    """Its head would be told to take it down."""
    rebuilt = World(2).recover(set(), head((extent_id(0), extent_id(1))))
    assert "in use on h" in rebuilt.blocked[0]


def test_a_leg_in_use_on_an_unknown_disk_is_not_forgotten() -> None:
    rebuilt = World(2).recover({0, 1}, head((extent_id(0), extent_id(9))))
    assert extent_id(9) in rebuilt.blocked[0]


def test_a_head_that_was_fenced_does_not_have_the_volume() -> None:
    rebuilt = World(2).recover({0, 1}, head((extent_id(0), extent_id(1)), epoch=EPOCH - 1))
    assert rebuilt.records.volumes[VOLUME].attachment is None
    assert "moved away from h" in rebuilt.notes[0]


def test_an_export_tells_of_a_head_that_is_not_heard() -> None:
    world = World(2)
    witness = world.witness(0)
    export = ExportSighting(head=NodeId("h"), extent=extent_id(0), epoch=EPOCH, export_key="k")
    telling = replace(witness, said=msgspec.structs.replace(witness.said, exports=(export,)))
    rebuilt = world.recover({1}, telling)
    attachment = rebuilt.records.volumes[VOLUME].attachment
    assert attachment is not None
    assert (attachment.head, attachment.epoch, attachment.export_key) == ("h", EPOCH, "k")
    assert rebuilt.records.nodes[NodeId("h")].unseen
    assert "node h" in rebuilt.missing


def test_epochs_are_left_out_for_what_was_not_seen() -> None:
    rebuilt = World(2).recover({0})
    assert rebuilt.records.volumes[VOLUME].epoch > EPOCH + 100
    assert f"disk {disk_id(1)} of node s1" in rebuilt.missing[1]


def test_a_segment_of_which_nothing_is_seen_is_kept_a_place() -> None:
    world = World(2)
    for number, disk in world.disks.items():
        extents = tuple(
            msgspec.structs.replace(record, segments=3, segment=1, volume_size_bytes=3 * DATA)
            for record in disk.extents
        )
        world.disks[number] = msgspec.structs.replace(disk, extents=extents)
    rebuilt = world.recover({0, 1})
    first, second, third = rebuilt.records.volumes[VOLUME].segments
    assert (first.legs, third.legs) == ((), ())
    assert len(second.legs) == 2
    assert first.length_bytes == third.length_bytes > 0
    assert "volume v: no leg of segment 0" in rebuilt.missing


def test_a_deleted_volume_is_wiped_wherever_it_is_found() -> None:
    world = World(2)
    world.disks[2] = msgspec.structs.replace(world.disks[2], deleted=(VOLUME,))
    rebuilt = world.recover({0, 1, 2})
    assert not rebuilt.records.volumes
    assert {e.state for e in rebuilt.records.extents.values()} == {ExtentState.RELEASED}


def test_numbers_are_higher_than_any_that_was_given_out() -> None:
    rebuilt = World(2).recover({0, 1})
    (generation,) = rebuilt.records.generation.values()
    assert generation.number << 32 > 5


def test_a_volume_of_which_only_a_replaced_leg_is_seen_is_not_taken_for_deleted() -> None:
    """By the next recovery all of it would be wiped."""
    world = World(2)
    world.commit({extent_id(1): LegState.BEHIND})
    world.describe(1)
    world.commit({}, fresh=world.new_leg(LegState.REBUILDING))
    world.describe(1)
    (record,) = world.disks[1].extents
    assert record.state is ExtentRecordState.WIPING
    rebuilt = world.recover({1})
    assert rebuilt.records.extents[extent_id(1)].state is ExtentState.RELEASED
    assert rebuilt.records.extents[extent_id(0)].state is ExtentState.READY
    turn = replace(world.turn, draft=rebuilt.records)
    (spec,) = orders(turn)[node_id(1)].storage.extents
    assert (spec.wish, spec.hints.deleted) == (ExtentWish.RELEASE, False)


def test_a_volume_in_use_of_which_a_segment_is_not_seen_is_not_gone_on_with() -> None:
    world = World(2)
    for number, disk in world.disks.items():
        extents = tuple(msgspec.structs.replace(r, segments=2) for r in disk.extents)
        world.disks[number] = msgspec.structs.replace(disk, extents=extents)
    rebuilt = world.recover({0, 1}, head((extent_id(0), extent_id(1))))
    assert "of what its segment 1 is" in rebuilt.blocked[0]


# --- records that were lost while a volume was being created ------------------------------------


def half_made(copies: int, *, epoch: int = 0) -> World:
    """Of two segments the first is on its disks, as nobody has ever attached it."""
    world = World(copies)
    for number, disk in world.disks.items():
        extents = tuple(
            msgspec.structs.replace(
                record, segments=2, epoch=epoch, initialised=False, volume_size_bytes=2 * DATA
            )
            for record in disk.extents
        )
        world.disks[number] = msgspec.structs.replace(disk, extents=extents)
    return world


@pytest.mark.parametrize("copies", [1, 2])
def test_a_volume_that_was_being_created_is_completed(copies: int) -> None:
    world = half_made(copies)
    rebuilt = world.recover(set(range(HOSTS)))
    assert not rebuilt.missing
    assert "its segment 1, of which no leg was seen, is made anew" in rebuilt.notes[0]
    volume = rebuilt.records.volumes[VOLUME]
    assert (volume.state, volume.epoch) == (VolumeState.CREATING, 0)
    turn = replace(world.turn, draft=rebuilt.records, new_token=tokens("e"))
    replace_lost_legs(turn)
    first, second = turn.draft.volumes[VOLUME].segments
    assert {leg.extent for leg in first.legs} == {extent_id(number) for number in range(copies)}
    made = [turn.draft.extents[leg.extent] for leg in second.legs]
    assert len({extent.disk for extent in made}) == copies
    assert all(e.state is ExtentState.PREPARING and e.wipe_first for e in made)


def test_a_leg_that_its_disk_was_not_told_of_yet_is_no_reason_to_wait() -> None:
    world = half_made(2)
    world.disks[1] = msgspec.structs.replace(world.disks[1], extents=())
    rebuilt = world.recover(set(range(HOSTS)))
    assert not rebuilt.missing
    first, second = rebuilt.records.volumes[VOLUME].segments
    assert len(first.legs) == len(second.legs) == 2


def test_a_volume_that_was_given_to_a_head_is_not_completed() -> None:
    rebuilt = half_made(2, epoch=1).recover(set(range(HOSTS)))
    assert "volume v: no leg of segment 1" in rebuilt.missing
    assert rebuilt.records.volumes[VOLUME].segments[1].legs == ()


def test_a_volume_of_which_no_segment_is_seen_whole_is_not_completed() -> None:
    """The leg that is not there may have had an epoch."""
    rebuilt = half_made(2).recover({0})
    assert "volume v: no leg of segment 1" in rebuilt.missing
