"""Single steps of the in-sync set, by name; tests/core/test_quorum.py walks through all."""

from tests.core.test_quorum import ACTIVE, BEHIND, FILLING, HELD, IN, JOIN, OUT, fact, name, segment
from vastskyd.core.documents import SegmentFact
from vastskyd.core.model import LegState
from vastskyd.core.quorum import grown, may_acknowledge, shrunk

REBUILDING = LegState.REBUILDING


def test_a_rebuilt_leg_joins_before_it_is_in_the_set() -> None:
    assert grown(segment((IN, REBUILDING)), fact((ACTIVE, ACTIVE))) == {name(1): JOIN}


def test_a_leg_is_whole_once_md_has_filled_it() -> None:
    for state in (BEHIND, REBUILDING, JOIN):
        for condition in (FILLING, HELD, OUT):
            assert grown(segment((IN, state)), fact((ACTIVE, condition))) == {}


def test_a_head_without_an_array_says_nothing_of_the_set() -> None:
    legs = fact((ACTIVE, OUT)).legs
    seen = SegmentFact(index=0, created=False, legs=legs)
    assert shrunk(segment((IN, IN)), seen) == {}
    assert grown(segment((IN, BEHIND)), SegmentFact(index=0, created=False, legs=legs)) == {}


def test_the_last_leg_stays_in_the_set() -> None:
    assert shrunk(segment((IN, IN)), fact((HELD, HELD))) == {}
    assert shrunk(segment((IN, IN)), fact((OUT, HELD))) == {}
    assert shrunk(segment((IN, BEHIND)), fact((HELD, OUT))) == {}


def test_a_write_needs_a_quorum_of_the_set_and_of_the_set_with_who_joins() -> None:
    a, b, c = name(0), name(1), name(2)
    assert may_acknowledge((a, b, c), (), (a, b))
    assert not may_acknowledge((a, b), (), (a,))
    assert not may_acknowledge((a,), (b,), (a,))
    assert not may_acknowledge((a, b), (c,), (a, c))


def test_a_leg_that_joins_may_leave_first() -> None:
    """Before any leg of the set does: else the two could differ in what was acknowledged."""
    assert shrunk(segment((IN, IN, JOIN)), fact((ACTIVE, OUT, HELD))) == {name(2): BEHIND}
