"""The manager's turns when a volume moves: the epoch, who is fenced first, and when a volume moves
by itself."""

from dataclasses import replace

import msgspec
import pytest

from tests.core.test_turns import (
    ACTIVE,
    BEHIND,
    HEAD,
    IN,
    OUT,
    VOLUME,
    cluster,
    extent_id,
    head_facts,
)
from tests.core.test_turns import turn as turn_of
from vastskyd.core.documents import ExtentFact
from vastskyd.core.facts import Facts
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.model import (
    Attachment,
    AttachmentState,
    DiskState,
    LegState,
    Node,
    Role,
    Volume,
)
from vastskyd.core.moving import let_go, move
from vastskyd.core.orders import orders
from vastskyd.core.plan import advance
from vastskyd.core.state import Draft
from vastskyd.core.turn import Turn

OTHER = NodeId("h2")
FENCING, ATTACHING = AttachmentState.FENCING, AttachmentState.ATTACHING
AWAY_S = 1000.0


def storage(number: int) -> NodeId:
    return NodeId(f"s{number}")


def on_extent(facts: Facts, number: int, *, epoch: int) -> None:
    """The storage host of a leg has this epoch on its disk."""
    (fact,) = facts[storage(number)].extents.values()
    after: ExtentFact = msgspec.structs.replace(fact, epoch=epoch)
    facts[storage(number)] = replace(facts[storage(number)], extents={after.id: after})


def gone(facts: Facts, *nodes: NodeId, reached_by: NodeId | None = None) -> None:
    for node in nodes:
        facts[node] = replace(facts[node], online=False, reached_by=reached_by, since_s=-AWAY_S)


def two_heads(legs: int, attachment: AttachmentState = AttachmentState.ATTACHED) -> Draft:
    draft = Draft(cluster((IN,) * legs, attachment))
    addresses = ("10.0.0.8", "10.0.1.8")
    draft.put(Node(id=OTHER, roles=(Role.HEAD,), addresses=addresses, port=8884, export_port=10810))
    return draft


def facts_of(legs: int) -> Facts:
    facts = head_facts((ACTIVE,) * legs)
    facts[OTHER] = replace(facts[OTHER], online=True)
    return facts


def moved(legs: int, facts: Facts, *, forced: bool = False) -> Turn:
    """From HEAD, which had it at epoch 3, to OTHER."""
    turn = turn_of(two_heads(legs), facts)
    move(turn, turn.draft.volumes[VOLUME], OTHER, "because", forced=forced)
    return turn


def the(turn: Turn) -> Volume:
    return turn.draft.volumes[VOLUME]


def attachment(turn: Turn) -> Attachment:
    found = the(turn).attachment
    assert found is not None
    return found


# --- the epoch --------------------------------------------------------------------------------


def test_a_move_raises_the_epoch_and_fences_first() -> None:
    turn = moved(2, facts_of(2))
    on = attachment(turn)
    assert (the(turn).epoch, on.epoch, on.head, on.state) == (4, 4, OTHER, FENCING)
    assert on.export_key != "k", "the old head knows the old one"


def test_each_attachment_has_an_epoch_of_its_own() -> None:
    """Also that of a volume which nobody has: a head that is away may still have its stack."""
    turn = turn_of(Draft(cluster((IN, IN), None)), facts_of(2))
    move(turn, the(turn), HEAD)
    assert (the(turn).epoch, attachment(turn).epoch) == (4, 4)


def test_while_the_old_head_is_being_fenced_no_head_has_the_volume() -> None:
    turn = moved(2, facts_of(2))
    advance(turn)
    assert attachment(turn).state is FENCING
    told = orders(turn)
    assert told[HEAD].head.volumes == told[OTHER].head.volumes == ()
    for number in range(2):
        (spec,) = told[storage(number)].storage.extents
        assert (spec.epoch, spec.head) == (4, OTHER)


@pytest.mark.parametrize(("legs", "fenced", "enough"), [(2, 1, True), (3, 1, False), (3, 2, True)])
def test_a_move_waits_until_a_recovery_quorum_is_fenced(
    legs: int, fenced: int, enough: bool
) -> None:
    """Of those that cannot be asked there are never a write quorum: the old head acknowledges
    nothing with them."""
    facts = facts_of(legs)
    for number in range(legs):
        if number < fenced:
            on_extent(facts, number, epoch=4)
        else:
            gone(facts, storage(number))
    turn = moved(legs, facts)
    advance(turn)
    assert attachment(turn).state is (ATTACHING if enough else FENCING)


def test_a_leg_that_can_be_fenced_is_waited_for() -> None:
    facts = facts_of(2)
    on_extent(facts, 0, epoch=4)
    turn = moved(2, facts)
    advance(turn)
    assert attachment(turn).state is FENCING
    on_extent(facts, 1, epoch=4)
    advance(turn)
    assert attachment(turn).state is ATTACHING


def test_a_forced_move_gives_up_the_legs_that_it_did_not_fence() -> None:
    """They may have newer writes, and must not come back with them."""
    facts = facts_of(3)
    on_extent(facts, 0, epoch=4)
    gone(facts, storage(1), storage(2))
    turn = moved(3, facts, forced=True)
    advance(turn)
    assert attachment(turn).state is ATTACHING
    kept = {leg.extent for leg in the(turn).segments[0].legs if leg.state is LegState.IN_SYNC}
    assert kept == {extent_id(0)}


def test_a_report_of_the_epoch_before_changes_nothing() -> None:
    """The head had the volume once already, and is slow to take that stack down."""
    facts = facts_of(2)
    turn = moved(2, facts)
    on = msgspec.structs.replace(attachment(turn), state=ATTACHING)
    turn.draft.put(msgspec.structs.replace(the(turn), attachment=on))
    seen = facts[HEAD].volumes[VOLUME]
    first, second = seen.segments[0].legs
    out = msgspec.structs.replace(second, condition=OUT)
    segment = msgspec.structs.replace(seen.segments[0], legs=(first, out))
    old = msgspec.structs.replace(seen, segments=(segment,))
    facts[OTHER] = replace(facts[HEAD], volumes={VOLUME: old})
    advance(turn)
    assert attachment(turn).state is ATTACHING
    assert the(turn).segments[0].in_sync() == (extent_id(0), extent_id(1))


# --- heads that could not be fenced -----------------------------------------------------------


def given_up(facts: Facts, legs: int = 3) -> Turn:
    """A move from HEAD to OTHER that came to nothing."""
    turn = moved(legs, facts)
    let_go(turn, the(turn), attachment(turn))
    return turn


def test_what_is_not_fenced_counts_as_the_last_heads_and_is_exported_to_nobody() -> None:
    facts = facts_of(3)
    gone(facts, HEAD, storage(1), storage(2))
    turn = given_up(facts)
    advance(turn)
    on = attachment(turn)
    assert (on.head, on.state, on.epoch) == (HEAD, AttachmentState.UNFENCED, 4)
    told = orders(turn)
    assert told[HEAD].head.volumes == told[OTHER].head.volumes == ()
    for number in range(3):
        (spec,) = told[storage(number)].storage.extents
        assert (spec.epoch, spec.head, spec.export_key) == (4, None, "")


@pytest.mark.parametrize(("fenced", "enough"), [(1, False), (2, True)])
def test_it_is_detached_once_a_recovery_quorum_is_fenced(fenced: int, enough: bool) -> None:
    facts = facts_of(3)
    gone(facts, HEAD)
    for number in range(fenced):
        on_extent(facts, number, epoch=4)
    turn = given_up(facts)
    advance(turn)
    assert (the(turn).attachment is None) == enough


def test_a_move_that_follows_one_that_was_not_fenced_fences_the_first_head() -> None:
    facts = facts_of(3)
    turn = moved(3, facts)
    move(turn, the(turn), HEAD, "because")
    move(turn, the(turn), OTHER, "because")
    assert attachment(turn).fences == HEAD
    let_go(turn, the(turn), attachment(turn))
    move(turn, the(turn), OTHER, "because")
    assert (attachment(turn).fences, attachment(turn).epoch) == (HEAD, 7)


def test_a_volume_that_nobody_had_is_nobodys_again() -> None:
    turn = turn_of(Draft(cluster((IN, IN), None)), facts_of(2))
    move(turn, the(turn), HEAD)
    let_go(turn, the(turn), attachment(turn))
    assert attachment(turn).state is AttachmentState.DETACHING


# --- moving by itself -------------------------------------------------------------------------


def with_standby(legs: int = 2) -> Draft:
    draft = two_heads(legs)
    volume = draft.volumes[VOLUME]
    draft.put(msgspec.structs.replace(volume, standby=(HEAD, OTHER)))
    return draft


def owner_after(facts: Facts) -> NodeId:
    turn = turn_of(with_standby(), facts)
    advance(turn)
    return attachment(turn).head


def test_a_volume_leaves_a_head_that_nobody_reaches() -> None:
    facts = facts_of(2)
    gone(facts, HEAD)
    assert owner_after(facts) == OTHER


def test_a_head_that_others_reach_keeps_its_volume() -> None:
    facts = facts_of(2)
    gone(facts, HEAD, reached_by=storage(0))
    assert owner_after(facts) == HEAD


def test_a_head_is_given_some_time() -> None:
    facts = facts_of(2)
    facts[HEAD] = replace(facts[HEAD], online=False, since_s=-1.0)
    assert owner_after(facts) == HEAD


def test_a_manager_that_starts_takes_no_silence_for_death() -> None:
    facts = facts_of(2)
    facts[HEAD] = replace(facts[HEAD], online=False, seen=False, since_s=-10.0)
    assert owner_after(facts) == HEAD


def test_a_volume_goes_to_a_head_that_is_there() -> None:
    facts = facts_of(2)
    gone(facts, HEAD, OTHER)
    turn = turn_of(with_standby(), facts)
    advance(turn)
    assert (attachment(turn).head, the(turn).epoch) == (HEAD, 3)


# --- legs that are given up -------------------------------------------------------------------


def test_a_detached_volume_keeps_its_legs_however_long_their_hosts_are_away() -> None:
    """All that there is of it is on them."""
    draft = Draft(cluster((IN, IN), None))
    facts = head_facts((ACTIVE, ACTIVE))
    facts[storage(2)] = facts[storage(3)] = replace(facts[storage(0)], extents={}, disks={})
    gone(facts, storage(0), storage(1))
    spare = draft.disks[DiskId("d0")]
    for number in (2, 3):
        addresses = (f"10.0.0.{number}", f"10.0.1.{number}")
        node = storage(number)
        draft.put(Node(id=node, roles=(Role.STORAGE,), addresses=addresses, port=1, export_port=2))
        draft.put(msgspec.structs.replace(spare, id=DiskId(f"d{number}"), node=node))
    turn = turn_of(draft, facts)
    advance(turn)
    assert the(turn).segments[0].in_sync() == (extent_id(0), extent_id(1))


def test_a_leg_of_the_set_is_replaced_only_after_its_head_has_dropped_it() -> None:
    """Until then the head may acknowledge by it."""
    draft = Draft(cluster((IN, IN, IN)))
    volume = draft.volumes[VOLUME]
    legs = volume.segments[0].legs[:2]
    segment = msgspec.structs.replace(volume.segments[0], legs=legs)
    draft.put(msgspec.structs.replace(volume, copies=2, segments=(segment,)))
    draft.delete(draft.extents[extent_id(2)])
    failed = msgspec.structs.replace(draft.disks[DiskId("d1")], state=DiskState.FAILED)
    draft.put(failed)
    facts = head_facts((ACTIVE, ACTIVE, ACTIVE))
    gone(facts, HEAD)
    turn = turn_of(draft, facts)
    advance(turn)
    assert [leg.extent for leg in the(turn).segments[0].legs] == [extent_id(0), extent_id(1)]


def test_a_leg_that_is_lost_is_replaced_by_one_that_holds_nothing_yet() -> None:
    draft = Draft(cluster((IN, BEHIND, IN)))
    volume = draft.volumes[VOLUME]
    legs = volume.segments[0].legs[:2]
    segment = msgspec.structs.replace(volume.segments[0], legs=legs)
    draft.put(msgspec.structs.replace(volume, copies=2, segments=(segment,)))
    draft.delete(draft.extents[extent_id(2)])
    facts = head_facts((ACTIVE, OUT, ACTIVE))
    gone(facts, storage(1))
    turn = turn_of(draft, facts)
    advance(turn)
    states = [leg.state for leg in the(turn).segments[0].legs]
    assert states == [IN, LegState.REBUILDING]
    assert turn.node_of(the(turn).segments[0].legs[1].extent) == storage(2)
