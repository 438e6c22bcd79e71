"""Volumes that nobody has attached and that are not whole: when a head gets them, for how long, and
that nobody can use them there."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.test_layout import Stack
from tests.core.test_moving import OTHER, facts_of, gone, storage, two_heads
from tests.core.test_turns import (
    BEHIND,
    HEAD,
    IN,
    JOIN,
    VOLUME,
    extent_id,
    head_facts,
    report,
)
from tests.core.test_turns import turn as turn_of
from vastskyd.core.documents import (
    ExtentCondition,
    ExtentFact,
    ExtentWish,
    HeadReport,
    StorageReport,
    VolumeCondition,
)
from vastskyd.core.facts import Facts, NodeFacts
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.layout import plan_volume
from vastskyd.core.mending import AT_ONCE, LET_GO_S, PATIENCE_S, REST_S, hand_over
from vastskyd.core.model import (
    SERVING,
    Attachment,
    AttachmentState,
    DiskState,
    JobKind,
    Layout,
    LegState,
    Node,
    Role,
)
from vastskyd.core.moving import give
from vastskyd.core.orders import orders
from vastskyd.core.plan import advance
from vastskyd.core.quorum import recovery_quorum
from vastskyd.core.state import Draft
from vastskyd.core.steps import (
    AddMember,
    AssembleArray,
    Connect,
    MakeWritable,
    MapVolume,
    StopArray,
)

SPARE = NodeId("s9")
FENCING, ATTACHING = AttachmentState.FENCING, AttachmentState.ATTACHING
ATTACHED, DETACHING = AttachmentState.ATTACHED, AttachmentState.DETACHING
FAILED, REBUILDING = LegState.FAILED, LegState.REBUILDING


def detached(states: tuple[LegState, ...], *, copies: int = 0, room: bool = True) -> Draft:
    """Nobody has it; of two heads, and a storage host to spare."""
    draft = two_heads(len(states))
    volume = draft.volumes[VOLUME]
    segment = volume.segments[0]
    legs = tuple(
        msgspec.structs.replace(leg, state=state)
        for leg, state in zip(segment.legs, states, strict=True)
    )
    segment = msgspec.structs.replace(segment, legs=legs)
    draft = Draft(draft)
    draft.volumes[VOLUME] = msgspec.structs.replace(
        volume, segments=(segment,), attachment=None, copies=copies or len(states)
    )
    if room:
        node = Node(id=SPARE, roles=(Role.STORAGE,), addresses=("10.0.0.7",), port=1, export_port=2)
        draft.put(node)
        draft.put(msgspec.structs.replace(draft.disks[DiskId("d0")], id=DiskId("d9"), node=SPARE))
    return draft


def facts_with(states: int) -> Facts:
    facts = facts_of(states)
    facts[HEAD] = replace(facts[HEAD], volumes={}, sent_revision=8)
    facts[OTHER] = replace(facts[HEAD])
    facts[SPARE] = NodeFacts(online=True).with_report(report(StorageReport(), HeadReport(), 7))
    return facts


def lose_disk(draft: Draft, number: int, state: DiskState = DiskState.MISSING) -> None:
    draft.put(msgspec.structs.replace(draft.disks[DiskId(f"d{number}")], state=state))


class Days:
    """Turns of one manager, one after the other."""

    def __init__(self, draft: Draft, facts: Facts) -> None:
        self.now = turn_of(draft, facts)

    def pass_s(self, seconds: float) -> "Days":
        now = self.now
        self.now = replace(now, draft=Draft(now.draft), monotonic_s=now.monotonic_s + seconds)
        advance(self.now)
        return self

    def patience(self) -> "Days":
        return self.pass_s(0).pass_s(PATIENCE_S)

    @property
    def on(self) -> Attachment | None:
        return self.now.draft.volumes[VOLUME].attachment

    def with_state(self, state: AttachmentState) -> "Days":
        volume = self.now.draft.volumes[VOLUME]
        assert volume.attachment is not None
        on = msgspec.structs.replace(volume.attachment, state=state)
        self.now.draft.volumes[VOLUME] = msgspec.structs.replace(volume, attachment=on)
        return self

    def kinds(self) -> list[str]:
        return [event.kind for event in self.now.draft.events.values()]


def mended(days: Days) -> Attachment:
    assert days.on is not None
    assert days.on.mending
    return days.on


# --- when it begins -----------------------------------------------------------------------------


def test_a_whole_volume_is_left_alone() -> None:
    assert Days(detached((IN, IN)), facts_with(2)).patience().on is None


@pytest.mark.parametrize("state", [DiskState.MISSING, DiskState.FAILED, DiskState.FAILING])
def test_a_leg_whose_disk_is_lost_or_will_be(state: DiskState) -> None:
    draft = detached((IN, IN))
    lose_disk(draft, 1, state)
    days = Days(draft, facts_with(2)).pass_s(0).pass_s(PATIENCE_S - 1)
    assert days.on is None, "it may be on its way to another host"
    on = mended(days.pass_s(1))
    assert (on.state, on.epoch, days.now.draft.volumes[VOLUME].epoch) == (FENCING, 4, 4)
    assert days.now.draft.volumes[VOLUME].given() is None
    assert not days.now.running(JobKind.ATTACH, subject=VOLUME)


@pytest.mark.parametrize("state", [BEHIND, REBUILDING, JOIN])
def test_a_leg_that_could_be_filled(state: LegState) -> None:
    facts = facts_with(2)
    days = Days(detached((IN, state)), facts).patience()
    mended(days)
    gone(facts, storage(1))
    facts[storage(1)] = replace(facts[storage(1)], since_s=0.0)
    assert Days(detached((IN, state)), facts).patience().on is None, "its host may come back"


def test_a_host_is_awaited_and_its_legs_replaced_then() -> None:
    facts = facts_with(2)
    facts[storage(1)] = replace(facts[storage(1)], online=False, since_s=0.0)
    days = Days(detached((IN, IN)), facts).patience()
    assert days.on is None
    mended(days.pass_s(days.now.policy.rebuild_delay_s).patience())


@pytest.mark.parametrize("state", [DiskState.MISSING, DiskState.FAILED, DiskState.FAILING])
def test_without_room_nothing_is_begun(state: DiskState) -> None:
    draft = detached((IN, IN), room=False)
    lose_disk(draft, 1, state)
    assert Days(draft, facts_with(2)).patience().on is None


def test_nothing_is_begun_without_a_head_that_is_there() -> None:
    draft, facts = detached((IN, IN)), facts_with(2)
    lose_disk(draft, 1)
    gone(facts, HEAD, OTHER)
    assert Days(draft, facts).patience().on is None


def test_a_leg_that_is_away_for_a_while_is_not_left_behind() -> None:
    draft, facts = detached((IN,) * 5), facts_with(5)
    lose_disk(draft, 0)
    facts[storage(1)] = replace(facts[storage(1)], online=False, since_s=0.0)
    assert Days(draft, facts).patience().on is None


def test_a_volume_with_one_copy_is_nobodys_to_mend() -> None:
    draft = detached((IN,), copies=1)
    volume = draft.volumes[VOLUME]
    draft.volumes[VOLUME] = msgspec.structs.replace(volume, layout=Layout.LINEAR)
    lose_disk(draft, 0, DiskState.FAILING)
    assert Days(draft, facts_with(1)).patience().on is None


def test_the_head_with_the_fewest_volumes_gets_it() -> None:
    draft = detached((IN, BEHIND))
    volume = draft.volumes[VOLUME]
    busy = Attachment(head=HEAD, epoch=1, state=ATTACHED, export_key="k")
    other = msgspec.structs.replace(volume, id="b" * 24, name="w", segments=(), attachment=busy)
    draft.put(msgspec.structs.replace(other, epoch=1))
    assert mended(Days(draft, facts_with(2)).patience()).head == OTHER


def test_a_head_mends_a_few_at_a_time() -> None:
    draft = detached((IN, BEHIND))
    volume = draft.volumes[VOLUME]
    for number in range(3 * AT_ONCE):
        name = f"w{number}"
        draft.put(msgspec.structs.replace(volume, id=f"{number:024x}", name=name))
    days = Days(draft, facts_with(2)).patience()
    heads = [v.attachment.head for v in days.now.draft.volumes.values() if v.attachment]
    assert sorted(heads) == sorted([HEAD, OTHER] * AT_ONCE)


conditions_of = st.tuples(*[st.sampled_from(list(ExtentCondition))] * 3)
states_of = st.tuples(*[st.sampled_from(list(LegState))] * 3)
disks_of = st.tuples(*[st.sampled_from([s for s in DiskState if s is not DiskState.ENROLLING])] * 3)
online_of = st.tuples(*[st.booleans()] * 3)


@given(states_of, conditions_of, disks_of, online_of, st.booleans(), st.booleans())
def test_what_is_begun_is_safe_and_of_use(
    states: tuple[LegState, ...],
    conditions: tuple[ExtentCondition, ...],
    disks: tuple[DiskState, ...],
    online: tuple[bool, ...],
    room: bool,
    in_doubt: bool,
) -> None:
    """A recovery quorum answers; a whole volume is not touched; nobody is given a device; and
    without a fact more nothing is begun a second time."""
    draft, facts = detached(states, copies=3, room=room), facts_with(3)
    volume = draft.volumes[VOLUME]
    segment = msgspec.structs.replace(volume.segments[0], in_doubt=in_doubt)
    draft.volumes[VOLUME] = msgspec.structs.replace(volume, segments=(segment,))
    for number in range(3):
        draft.disks[DiskId(f"d{number}")] = msgspec.structs.replace(
            draft.disks[DiskId(f"d{number}")], state=disks[number]
        )
        fact = ExtentFact(id=extent_id(number), condition=conditions[number], epoch=3)
        facts[storage(number)] = NodeFacts(online=online[number]).with_report(
            report(StorageReport(extents=(fact,)), HeadReport(), 7)
        )
    days = Days(draft, facts).patience()
    if days.on is None:
        return
    on, after = mended(days), days.now.draft.volumes[VOLUME]
    before = segment.in_sync()
    near = [
        number
        for number in range(3)
        if states[number] is IN
        and online[number]
        and disks[number] in SERVING
        and conditions[number] is ExtentCondition.READY
    ]
    assert len(near) >= recovery_quorum(len(before))
    if in_doubt:
        assert len(near) == len(before)
    whole = all(s is IN for s in states) and all(d is DiskState.ONLINE for d in disks)
    assert not (whole and all(online) and ExtentCondition.FAILED not in conditions)
    assert after.epoch == on.epoch == 4
    days.with_state(ATTACHING)
    told = orders(days.now)[on.head].head.volumes
    assert [spec.exposed for spec in told] == [False]
    kept = [
        spec
        for spec in orders(days.now)[storage(0)].storage.extents
        if spec.wish is ExtentWish.KEEP  # a leg that was lost is replaced at once
    ]
    assert all(spec.hints.mending for spec in kept)


# --- while it goes on, and when it ends ---------------------------------------------------------


def mending_on(head: NodeId, state: AttachmentState = ATTACHED) -> tuple[Days, Facts]:
    """With a leg that is behind."""
    draft, facts = detached((IN, BEHIND)), facts_with(2)
    days = Days(draft, facts)
    give(days.now, draft.volumes[VOLUME], head, mending=True)
    return days.with_state(state), facts


def heal(days: Days) -> None:
    volume = days.now.draft.volumes[VOLUME]
    legs = tuple(msgspec.structs.replace(leg, state=IN) for leg in volume.segments[0].legs)
    segment = msgspec.structs.replace(volume.segments[0], legs=legs)
    days.now.draft.volumes[VOLUME] = msgspec.structs.replace(volume, segments=(segment,))


def test_it_ends_when_all_legs_are_in_sync() -> None:
    days, facts = mending_on(HEAD)
    assert mended(days.pass_s(0)).state is ATTACHED
    heal(days)
    assert mended(days.pass_s(0)).state is DETACHING
    assert "volume-mended" in days.kinds()
    facts[HEAD] = replace(facts[HEAD], sent_revision=7)
    assert days.pass_s(0).on is None
    assert days.pass_s(REST_S).pass_s(PATIENCE_S).on is None
    assert not {"volume-detached", "head-fenced"} & set(days.kinds())


def test_it_ends_when_there_is_no_room_left_and_is_not_begun_again() -> None:
    days, facts = mending_on(HEAD)
    days.now.draft.delete(days.now.draft.disks[DiskId("d9")])
    lose_disk(days.now.draft, 1)
    assert mended(days.pass_s(0)).state is DETACHING
    assert "mending-ended" in days.kinds()
    facts[HEAD] = replace(facts[HEAD], sent_revision=7)
    assert days.pass_s(0).on is None
    for _ in range(5):
        assert days.pass_s(REST_S).on is None


def test_a_head_that_goes_away_is_succeeded() -> None:
    days, facts = mending_on(HEAD)
    facts[HEAD] = replace(facts[HEAD], online=False, since_s=days.now.monotonic_s)
    assert mended(days.pass_s(1)).head == HEAD
    on = mended(days.pass_s(days.now.policy.failover_delay_s))
    assert (on.head, on.epoch, on.state) == (OTHER, 5, FENCING)
    assert "head-fenced" not in days.kinds(), "it had nobody to fence off"


def test_a_standby_head_is_not_given_what_is_only_mended() -> None:
    days, facts = mending_on(HEAD)
    volume = days.now.draft.volumes[VOLUME]
    days.now.draft.volumes[VOLUME] = msgspec.structs.replace(volume, standby=(OTHER,))
    gone(facts, HEAD)
    mended(days.pass_s(0))
    assert days.now.draft.volumes[VOLUME].given() is None


@pytest.mark.parametrize("state", [FENCING, ATTACHING, ATTACHED])
def test_what_does_not_get_on_is_given_up_for_a_while_and_then_tried_elsewhere(
    state: AttachmentState,
) -> None:
    days, facts = mending_on(HEAD, state)
    for number in range(2):  # the legs are not served yet, nor will be
        (fact,) = facts[storage(number)].extents.values()
        waits = msgspec.structs.replace(fact, epoch=4 if state is ATTACHED else 3)
        facts[storage(number)] = replace(facts[storage(number)], extents={waits.id: waits})
    assert mended(days.pass_s(0)).state is state
    assert mended(days.pass_s(days.now.policy.attach_timeout_s)).state is DETACHING
    assert days.kinds().count("mending-failed") == 1
    facts[HEAD] = replace(facts[HEAD], sent_revision=7)
    assert days.pass_s(0).on is None
    assert days.pass_s(REST_S - 1).on is None
    assert mended(days.pass_s(PATIENCE_S)).head == OTHER


def test_a_scrub_is_not_begun_on_it() -> None:
    days, _ = mending_on(HEAD)
    days.now = replace(days.now, wall_s=1e9)
    assert days.pass_s(0).now.draft.volumes[VOLUME].scrub is None


# --- who asks for it ----------------------------------------------------------------------------


def test_on_the_same_head_it_gets_its_device_and_nothing_is_built_anew() -> None:
    days, facts = mending_on(HEAD)
    before = mended(days)
    hand_over(days.now, days.now.draft.volumes[VOLUME], before, HEAD, forced=False)
    on = days.on
    assert on == msgspec.structs.replace(before, mending=False, state=ATTACHING)
    (seen,) = head_facts((LegState,) * 2)[HEAD].volumes.values()  # type: ignore[arg-type]
    for exposed in (False, True):
        fact = msgspec.structs.replace(
            seen, epoch=on.epoch, exposed=exposed, segments=(), condition=VolumeCondition.ACTIVE
        )
        facts[HEAD] = replace(facts[HEAD], volumes={VOLUME: fact})
        days.pass_s(0)
        assert days.on is not None
        assert days.on.state is (ATTACHED if exposed else ATTACHING), "its device is not there yet"


def test_on_another_head_it_is_let_go_of_first_or_fenced() -> None:
    days, facts = mending_on(HEAD)
    volume = days.now.draft.volumes[VOLUME]
    job = hand_over(days.now, volume, mended(days), OTHER, forced=False)
    (seen,) = head_facts((LegState,) * 2)[HEAD].volumes.values()  # type: ignore[arg-type]
    fact = msgspec.structs.replace(seen, epoch=4, condition=VolumeCondition.DETACHING, segments=())
    facts[HEAD] = replace(facts[HEAD], volumes={VOLUME: fact}, sent_revision=7)
    days.pass_s(0).pass_s(LET_GO_S - 1)
    assert mended(days).state is DETACHING
    shown = days.now.draft.volumes[VOLUME].given()
    assert shown is not None
    assert (shown.head, shown.state) == (OTHER, FENCING)
    days.pass_s(1)
    assert days.on is not None
    assert (days.on.head, days.on.epoch, days.on.mending) == (OTHER, 5, False)
    assert [j.id for j in days.now.running(JobKind.ATTACH, subject=VOLUME)] == [job.id]


# --- on the head --------------------------------------------------------------------------------


def steps(stack: Stack, **changes: object) -> list[type]:
    spec = msgspec.structs.replace(stack.spec(), exposed=False, **changes)
    plan = plan_volume(spec, stack.sight(), {}, (), waited=True)
    return [type(step) for step in plan.steps if not isinstance(step, Connect)]


def test_what_is_mended_runs_and_has_no_device() -> None:
    bare = Stack((IN, IN), array=False, exposed=False)
    assert steps(bare) == [AssembleArray]
    whole = Stack((IN, BEHIND), used=(0,), exposed=False)
    assert steps(replace(whole, read_only=True)) == [MakeWritable]
    assert steps(whole) == [AddMember]
    filling = replace(whole, used=(0, 1), filling=(1,))
    assert steps(filling) == []
    for stack, condition in (
        (replace(whole, read_only=True), VolumeCondition.ASSEMBLING),
        (bare, VolumeCondition.ASSEMBLING),
        (whole, VolumeCondition.ACTIVE),
        (filling, VolumeCondition.ACTIVE),
    ):
        spec = msgspec.structs.replace(stack.spec(), exposed=False)
        fact = plan_volume(spec, stack.sight(), {}, (), waited=True).fact
        assert fact is not None
        assert (fact.condition, fact.exposed) == (condition, False)
    assert steps(filling, attached=False) == [StopArray]


def test_it_gets_its_device_when_somebody_asks_for_it() -> None:
    filling = Stack((IN, BEHIND), used=(0, 1), filling=(1,), exposed=False)
    assert [type(step) for step in filling.steps()] == [MapVolume]
