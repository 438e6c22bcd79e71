"""A list in pages is the list, whatever comes and goes between two pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.api import PAGE_MOST, ListVolumes, Paged
from vastskyd.core.errors import InvalidError
from vastskyd.core.paging import page

names = st.sets(st.text("abc1é", min_size=1, max_size=4), max_size=20)


def walk(pages: list[set[str]], limit: int) -> list[str]:
    """All names, each page taken from what there is by then; the last one stands still."""
    seen: list[str] = []
    after = ""
    for turn in range(100):
        there = pages[min(turn, len(pages) - 1)]
        shown, after = page(there, str, ListVolumes(after=after, limit=limit))
        assert len(shown) <= limit
        seen += shown
        if not after:
            return seen
    raise AssertionError("the pages do not end")


@given(names, st.integers(1, 7))
def test_pages_make_the_list(there: set[str], limit: int) -> None:
    assert walk([there], limit) == sorted(there)


@given(st.lists(names, min_size=1, max_size=4), st.integers(1, 7))
def test_what_stays_is_seen_once(states: list[set[str]], limit: int) -> None:
    seen = walk(states, limit)
    assert len(set(seen)) == len(seen)
    pages = max(1, -(-len(seen) // limit))
    if pages >= len(states):  # else the walk ended before the last state
        assert set.intersection(*states) <= set(seen)


@pytest.mark.parametrize("limit", [0, -1, PAGE_MOST + 1])
def test_a_page_is_bounded(limit: int) -> None:
    with pytest.raises(InvalidError, match="a page cannot have"):
        page(["a"], str, Paged(limit=limit))
