"""What ports.Store promises, of the real one and of the fake."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.store import MemoryStore
from vastskyd.ports import Store
from vastskyd.store.sqlite import SqliteStore

Reopen = Callable[[], Store]


@pytest.fixture(params=["sqlite", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Gives the store as a manager that just started finds it."""
    opened: list[SqliteStore] = []
    records: dict[str, dict[str, bytes]] = {}

    def again() -> Store:
        if request.param == "memory":
            return MemoryStore(records)
        while opened:
            opened.pop().close()
        opened.append(SqliteStore(tmp_path / "cluster.db"))
        return opened[0]

    yield again
    for store in opened:
        store.close()


def test_a_new_store_is_empty(reopen: Reopen) -> None:
    assert reopen().load() == {}


def test_what_was_committed_is_there_after_reopening(reopen: Reopen) -> None:
    store = reopen()
    store.commit((("volume", "v1", b"one"), ("disk", "v1", b"\0\xff")), ())
    assert store.load() == reopen().load() == {"volume": {"v1": b"one"}, "disk": {"v1": b"\0\xff"}}


def test_a_put_replaces(reopen: Reopen) -> None:
    store = reopen()
    store.commit((("k", "a", b"1"),), ())
    store.commit((("k", "a", b"2"),), ())
    assert reopen().load() == {"k": {"a": b"2"}}


def test_the_last_put_of_one_commit_wins(reopen: Reopen) -> None:
    reopen().commit((("k", "a", b"1"), ("k", "a", b"2")), ())
    assert reopen().load() == {"k": {"a": b"2"}}


def test_deletes_and_a_kind_without_records_is_gone(reopen: Reopen) -> None:
    store = reopen()
    store.commit((("k", "a", b"1"), ("l", "a", b"2")), ())
    store.commit((), (("k", "a"),))
    assert store.load() == reopen().load() == {"l": {"a": b"2"}}


def test_deleting_what_is_not_there_is_well(reopen: Reopen) -> None:
    store = reopen()
    store.commit((), (("k", "a"),))
    assert store.load() == {}


def test_deletes_come_before_puts(reopen: Reopen) -> None:
    store = reopen()
    store.commit((("k", "a", b"1"),), ())
    store.commit((("k", "a", b"2"),), (("k", "a"),))
    assert reopen().load() == {"k": {"a": b"2"}}


def test_an_empty_commit_and_an_empty_value(reopen: Reopen) -> None:
    store = reopen()
    store.commit((), ())
    store.commit((("k", "", b""),), ())
    assert reopen().load() == {"k": {"": b""}}


def test_what_load_gave_is_the_callers(reopen: Reopen) -> None:
    store = reopen()
    store.commit((("k", "a", b"1"),), ())
    store.load()["k"]["a"] = b"other"
    assert store.load() == {"k": {"a": b"1"}}
