"""The manager's database file when it is gone, damaged, or replaced by a new one."""

import sqlite3
from pathlib import Path

import pytest

from vastskyd.core.errors import DamagedError, NotFoundError
from vastskyd.store.sqlite import SqliteStore
from vastskyd.store.vault import SqliteVault

NOW_S = 1_763_700_000.0
STAMP = "20251121T044000Z"
OLD = (("k", "a", b"old"),)
NEW = (("k", "a", b"new"), ("k", "b", b"too"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manager.db"


def make(path: Path) -> None:
    store = SqliteStore(path)
    store.commit(OLD, ())
    store.close()


def content(path: Path) -> dict[str, dict[str, bytes]]:
    store = SqliteStore(path)
    try:
        return store.load()
    finally:
        store.close()


def test_a_missing_database_is_not_made(path: Path) -> None:
    with pytest.raises(NotFoundError, match="is missing"):
        SqliteVault(path).open()
    assert not path.exists()


@pytest.mark.parametrize("damage", [b"garbage" * 999, b"SQLite format 3\0" + b"\xa5" * 8000])
def test_a_damaged_database_is_told_and_left_alone(path: Path, damage: bytes) -> None:
    path.write_bytes(damage)
    with pytest.raises(DamagedError):
        SqliteVault(path).open()
    assert path.read_bytes() == damage


def test_an_emptied_database_is_not_taken_for_records(path: Path) -> None:
    """Truncated to nothing it is a new database to SQLite; who asks it finds no cluster."""
    make(path)
    path.write_bytes(b"")
    vault = SqliteVault(path)
    assert vault.open().load() == {}
    vault.close()


@pytest.mark.parametrize("is_open", [False, True])
def test_new_records_take_the_place_of_the_old_ones_which_are_kept(
    path: Path, is_open: bool
) -> None:
    make(path)
    vault = SqliteVault(path)
    if is_open:
        vault.open()
    kept = vault.renew(NEW, NOW_S)
    assert kept == str(path.with_name(f"manager.db.{STAMP}"))
    assert content(Path(kept)) == {"k": {"a": b"old"}}
    assert vault.open().load() == {"k": {"a": b"new", "b": b"too"}}
    vault.close()
    assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_database_is_kept_byte_by_byte(path: Path) -> None:
    path.write_bytes(b"garbage" * 999)
    vault = SqliteVault(path)
    with pytest.raises(DamagedError):
        vault.open()
    kept = vault.renew(NEW, NOW_S)
    assert Path(kept).read_bytes() == b"garbage" * 999
    assert vault.open().load()["k"]["b"] == b"too"
    vault.close()


def test_what_sqlite_has_not_written_back_yet_is_kept_too(path: Path) -> None:
    """As a killed manager leaves it: the last commits stand in the log beside the file."""
    make(path)
    reader = sqlite3.connect(path)
    reader.execute("SELECT * FROM record").fetchall()
    store = SqliteStore(path)
    store.commit((("k", "late", b"1"),), ())
    assert path.with_name("manager.db-wal").stat().st_size > 0
    store._connection.close()
    vault = SqliteVault(path)
    kept = Path(vault.set_aside(NOW_S))
    reader.close()
    store.close()
    assert content(kept)["k"] == {"a": b"old", "late": b"1"}


def test_there_may_be_nothing_to_keep_and_two_may_have_one_time(path: Path) -> None:
    vault = SqliteVault(path)
    assert vault.set_aside(NOW_S) == ""
    assert vault.renew(OLD, NOW_S) == ""
    first, second = vault.renew(NEW, NOW_S), vault.renew(OLD, NOW_S)
    assert (Path(first).name, Path(second).name) == (
        f"manager.db.{STAMP}",
        f"manager.db.{STAMP}.2",
    )
    assert content(Path(first)) == {"k": {"a": b"old"}}
    assert content(path) == {"k": {"a": b"old"}}


def test_what_a_crash_left_of_a_renewal_is_no_database(path: Path) -> None:
    make(path.with_name("manager.db.new"))
    vault = SqliteVault(path)
    with pytest.raises(NotFoundError):
        vault.open()
    vault.renew(NEW, NOW_S)
    assert vault.open().load() == {"k": {"a": b"new", "b": b"too"}}
    vault.close()
    assert sorted(p.name for p in path.parent.iterdir()) == ["manager.db", "manager.db.lock"]
