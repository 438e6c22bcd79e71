"""A head's part in moving a leg: a place more in the array, and letting go of the old leg."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_layout import Stack, device, dropped
from vastskyd.core.model import LegState
from vastskyd.core.quorum import may_acknowledge
from vastskyd.core.steps import AddMember, RemoveMember, ResizeArray, ThawArray

S, J, R, B = LegState.IN_SYNC, LegState.JOINING, LegState.REBUILDING, LegState.BEHIND


def test_a_place_is_made_before_the_new_leg_is_added() -> None:
    stack = Stack((S, S, R), used=(0, 1), copies=2)
    assert stack.steps() == [ResizeArray("/dev/md9", 3)]
    (step,) = Stack((S, S, R), used=(0, 1), copies=2, places=3).steps()
    assert isinstance(step, AddMember)
    assert step.leg == device(2)


def test_no_place_is_made_for_a_leg_that_cannot_be_filled_yet() -> None:
    """Until then md would take the array for degraded for nothing."""
    assert Stack((S, S, R), used=(0, 1), there=(0, 1), copies=2).steps() == []


def test_no_place_is_made_while_md_copies_or_a_leg_is_away() -> None:
    assert Stack((S, S, R), used=(0, 1), copies=2, syncing=True).steps() == []
    stack = Stack((S, S, S, R), used=(0, 1, 2), dead=(1,), copies=3)
    assert not any(isinstance(step, ResizeArray) for step in stack.steps())


def test_the_old_leg_stays_while_the_new_one_is_filled() -> None:
    for state in (R, J):
        filling = (2,) if state is R else ()
        stack = Stack((S, S, state), used=(0, 1, 2), filling=filling, leaving=0, copies=2, places=3)
        assert dropped(stack) == []


def test_the_old_leg_goes_once_the_new_one_is_in_the_set() -> None:
    stack = Stack((S, S, S), leaving=0, copies=2, places=3)
    assert dropped(stack) == [device(0)]


def test_the_old_leg_stays_while_another_is_away() -> None:
    assert dropped(Stack((S, S, S), dead=(1,), leaving=0, copies=2, places=3)) == [device(1)]
    assert dropped(Stack((S, S, S), used=(0, 2), leaving=0, copies=2, places=3)) == []


def test_the_place_goes_with_the_leg() -> None:
    gone = Stack((S, S, S), faulty=(0,), copies=2, places=3)
    assert RemoveMember("/dev/md9", device(0)) in gone.steps()
    assert Stack((S, S), used=(0, 1), copies=2, places=3).steps() == [ResizeArray("/dev/md9", 2)]
    assert Stack((S, S), used=(0, 1), copies=2, places=3, syncing=True).steps() == []


def test_what_a_killed_mdadm_left_frozen_is_thawed() -> None:
    assert Stack((S, R), filling=(1,)).steps() == []
    assert Stack((S, R), filling=(1,), frozen=True).steps() == [ThawArray("/dev/md9")]


@settings(max_examples=500)
@given(st.data(), st.integers(1, 3))
def test_letting_go_leaves_as_many_as_there_are_to_be(data: st.DataObject, copies: int) -> None:
    states = data.draw(st.lists(st.sampled_from([S, J, R, B]), min_size=2, max_size=copies + 2))
    numbers = st.integers(0, len(states) - 1)
    stack = Stack(
        tuple(states),
        dead=tuple(data.draw(st.sets(numbers))),
        faulty=tuple(data.draw(st.sets(numbers))),
        filling=tuple(n for n, state in enumerate(states) if state in (R, B)),
        leaving=data.draw(numbers),
        copies=copies,
        places=len(states),
    )
    working = {
        n for n in range(len(states)) if n not in (*stack.dead, *stack.faulty, *stack.filling)
    }
    for leg in dropped(stack):
        number = next(n for n in range(len(states)) if device(n) == leg)
        in_sync = {n for n, state in enumerate(states) if state is S}
        if number in in_sync and number not in stack.dead:
            rest = working - {number}
            assert number == stack.leaving
            assert len(rest & in_sync) >= copies
            joining = {n for n, state in enumerate(states) if state is J}
            assert may_acknowledge(in_sync, joining, rest)  # type: ignore[arg-type]
