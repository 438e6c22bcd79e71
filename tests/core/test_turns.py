"""The manager's turns, without a cluster: what a report may cause, and what the nodes are told."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.store import MemoryStore
from vastskyd.core.documents import (
    ExtentCondition,
    ExtentFact,
    ExtentWish,
    HeadReport,
    LegCondition,
    LegFact,
    Report,
    SegmentFact,
    StorageReport,
    VolumeCondition,
    VolumeFact,
)
from vastskyd.core.errors import DamagedError
from vastskyd.core.facts import Facts, NodeFacts
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import (
    TOLD,
    Attachment,
    AttachmentState,
    Cluster,
    Disk,
    DiskState,
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
from vastskyd.core.plan import advance
from vastskyd.core.state import ClusterState, Draft, load
from vastskyd.core.turn import Policy, Turn
from vastskyd.core.units import MIB

HEAD = NodeId("h")
VOLUME = VolumeId("a" * 24)
IN, JOIN, BEHIND = LegState.IN_SYNC, LegState.JOINING, LegState.BEHIND
ACTIVE, HELD, OUT = LegCondition.ACTIVE, LegCondition.HELD, LegCondition.OUT


def extent_id(number: int) -> ExtentId:
    return ExtentId(f"{number:016x}")


def cluster(
    legs: tuple[LegState, ...], attachment: AttachmentState | None = AttachmentState.ATTACHED
) -> ClusterState:
    """One volume of one segment, leg i on storage node s{i}, attached on h at epoch 3."""
    draft = Draft(ClusterState())
    draft.put(Cluster(id=ClusterId("c" * 16), name="c", manager=HEAD, created_s=0.0))
    addresses = ("10.0.0.9", "10.0.1.9")
    draft.put(Node(id=HEAD, roles=(Role.HEAD,), addresses=addresses, port=8884, export_port=10810))
    for number in range(len(legs)):
        node = NodeId(f"s{number}")
        addresses = (f"10.0.0.{number}", f"10.0.1.{number}")
        port = 10811 + number
        draft.put(
            Node(id=node, roles=(Role.STORAGE,), addresses=addresses, port=8884, export_port=port)
        )
        draft.put(
            Disk(
                id=DiskId(f"d{number}"), node=node, path="/dev/sda", serial="", size_bytes=64 * MIB,
                area_start_bytes=4 * MIB, area_end_bytes=63 * MIB, state=DiskState.ONLINE,
            )
        )  # fmt: skip
        draft.put(
            Extent(
                id=extent_id(number), disk=DiskId(f"d{number}"), offset_bytes=4 * MIB,
                length_bytes=22 * MIB, volume=VOLUME, segment=0, state=ExtentState.READY,
                wipe_first=False,
            )
        )  # fmt: skip
    segment = Segment(
        index=0,
        length_bytes=16 * MIB,
        legs=tuple(Leg(extent=extent_id(i), state=state) for i, state in enumerate(legs)),
        initialised=True,
    )
    on = None
    if attachment is not None:
        on = Attachment(head=HEAD, epoch=3, state=attachment, export_key="k")
    draft.put(
        Volume(
            id=VOLUME, name="v", size_bytes=16 * MIB, copies=len(legs), layout=Layout.RAID1,
            state=VolumeState.AVAILABLE, segments=(segment,), epoch=3, attachment=on,
        )
    )  # fmt: skip
    return draft


def head_facts(
    conditions: tuple[LegCondition, ...],
    *,
    revision: int = 7,
    sent: int = 7,
    session: int = 1,
    recorded: int = 0,
) -> Facts:
    """`recorded`: the set's revision that the legs' disks know."""
    legs = tuple(LegFact(extent=extent_id(i), condition=c) for i, c in enumerate(conditions))
    seen = VolumeFact(
        id=VOLUME,
        epoch=3,
        condition=VolumeCondition.ACTIVE,
        segments=(SegmentFact(index=0, created=True, legs=legs),),
    )
    facts = Facts()
    for number in range(len(conditions)):
        ready = ExtentFact(
            id=extent_id(number), condition=ExtentCondition.READY, epoch=3, exported_to=HEAD,
            set_revision=recorded,
        )  # fmt: skip
        storage = StorageReport(extents=(ready,))
        facts[NodeId(f"s{number}")] = NodeFacts(online=True).with_report(
            report(storage, HeadReport(), revision)
        )
    facts[HEAD] = NodeFacts(online=True, sent_revision=sent, session_revision=session).with_report(
        report(StorageReport(), HeadReport(volumes=(seen,)), revision)
    )
    return facts


def report(storage: StorageReport, head: HeadReport, revision: int) -> Report:
    return Report(boot_id="b", life="l", sequence=1, revision=revision, storage=storage, head=head)


def turn(state: ClusterState, facts: Facts) -> Turn:
    tokens: Iterator[int] = itertools.count(1000)
    return Turn(
        Draft(state), facts, Policy(), 0.0, 0.0, lambda digits: f"{next(tokens):0{digits}x}"
    )


def legs_after(state: ClusterState, facts: Facts) -> tuple[LegState, ...]:
    it = turn(state, facts)
    advance(it)
    return tuple(leg.state for leg in it.draft.volumes[VOLUME].segments[0].legs)


def test_a_report_is_worth_one_step_into_the_set() -> None:
    """A leg that was taken in at once could be dropped by a head that never heard of it."""
    facts = head_facts((ACTIVE, ACTIVE), recorded=9)
    assert legs_after(cluster((IN, BEHIND)), facts) == (IN, JOIN)
    assert legs_after(cluster((IN, JOIN)), facts) == (IN, IN)


def test_an_older_document_takes_no_leg_into_the_set() -> None:
    facts = head_facts((ACTIVE, ACTIVE), revision=6)
    assert legs_after(cluster((IN, JOIN)), facts) == (IN, JOIN)


@pytest.mark.parametrize("conditions", [(ACTIVE, ACTIVE), (ACTIVE, OUT), (ACTIVE, HELD)])
def test_a_report_of_an_earlier_session_changes_nothing(
    conditions: tuple[LegCondition, ...],
) -> None:
    facts = head_facts(conditions, session=8)
    for states in ((IN, IN), (IN, JOIN), (IN, BEHIND)):
        assert legs_after(cluster(states), facts) == states


def test_a_held_leg_leaves_when_there_is_no_other_choice() -> None:
    assert legs_after(cluster((IN, IN)), head_facts((ACTIVE, HELD))) == (IN, BEHIND)
    assert legs_after(cluster((IN, IN, IN)), head_facts((ACTIVE, ACTIVE, HELD))) == (IN, IN, IN)
    after = legs_after(cluster((IN, IN, IN)), head_facts((ACTIVE, OUT, HELD)))
    assert after == (IN, BEHIND, BEHIND)


# --- orders -----------------------------------------------------------------------------------

conditions_of = st.tuples(*[st.sampled_from(list(ExtentCondition))] * 3)
states_of = st.tuples(*[st.sampled_from(list(LegState))] * 3)


@given(states_of, st.sampled_from([*AttachmentState, None]), conditions_of, st.integers(0, 4))
def test_what_nodes_are_told(
    states: tuple[LegState, ...],
    attachment: AttachmentState | None,
    conditions: tuple[ExtentCondition, ...],
    epoch: int,
) -> None:
    facts = head_facts((ACTIVE,) * 3)
    for number, condition in enumerate(conditions):
        fact = ExtentFact(id=extent_id(number), condition=condition, epoch=epoch, exported_to=HEAD)
        old = facts[NodeId(f"s{number}")]
        facts[NodeId(f"s{number}")] = old.with_report(
            report(StorageReport(extents=(fact,)), HeadReport(), 7)
        )
    told = orders(turn(cluster(states, attachment), facts))
    volumes = told[HEAD].head.volumes
    assert bool(volumes) == (attachment in TOLD)
    for number, state in enumerate(states):
        (spec,) = told[NodeId(f"s{number}")].storage.extents
        assert spec.wish is ExtentWish.KEEP
        assert spec.epoch == 3
        given = attachment not in (None, AttachmentState.UNFENCED)
        served = given and state is not LegState.FAILED
        assert spec.head == (HEAD if served else None)
        assert bool(spec.export_key) == served
    for volume in volumes:
        assert volume.attached == (attachment is not AttachmentState.DETACHING)
        named = {leg.extent: leg for leg in volume.segments[0].legs}
        for number, state in enumerate(states):
            leg = named.get(extent_id(number))
            assert (leg is None) == (state is LegState.FAILED)
            if leg is not None and leg.endpoints:
                assert conditions[number] is ExtentCondition.READY
                assert epoch == 3
                assert [endpoint.network for endpoint in leg.endpoints] == [0, 1]


# --- the store --------------------------------------------------------------------------------


@given(states_of, st.sampled_from([*AttachmentState, None]))
def test_records_survive_the_store(
    states: tuple[LegState, ...], attachment: AttachmentState | None
) -> None:
    made = cluster(states, attachment)
    assert isinstance(made, Draft)
    store = MemoryStore()
    store.commit(made.puts(), made.deletes())
    back = load(store.load())
    assert (back.nodes, back.disks, back.extents, back.volumes, back.cluster) == (
        made.nodes, made.disks, made.extents, made.volumes, made.cluster
    )  # fmt: skip
    after = Draft(back)
    assert not after.changed
    after.delete(back.volumes[VOLUME])
    store.commit(after.puts(), after.deletes())
    assert not load(store.load()).volumes


def test_a_record_that_cannot_be_read_is_named() -> None:
    for content in (b"", b"\xc1", b"\x81\xa1\xff\x00"):
        with pytest.raises(DamagedError, match="nodes/x"):
            load({"nodes": {"x": content}})
    with pytest.raises(DamagedError, match="teapots"):
        load({"teapots": {}})
