"""The SQLite store: what a killed manager, a damaged file and another version leave."""

import os
import random
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vastskyd.core.errors import ConflictError, DamagedError, DeviceError, NoSpaceError
from vastskyd.store.sqlite import MIGRATIONS, SqliteStore

# Commits for ever: n under two keys and in a log; says n once it is acknowledged.
_WRITER = """
import os, sys
from pathlib import Path
from vastskyd.store.sqlite import SqliteStore

store = SqliteStore(Path(sys.argv[1]))
n = int(store.load().get("pair", {}).get("a", b"0"))
while True:
    n += 1
    text = str(n).encode()
    store.commit(
        (("pair", "a", text), ("log", str(n), b"x" * (n % 9000)), ("pair", "b", text)),
        (("log", str(n - 50)),),
    )
    os.write(1, text + b"\\n")
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cluster.db"


def test_a_killed_writer_loses_nothing_acknowledged_and_leaves_no_half(path: Path) -> None:
    """SIGKILL at random moments: the process dies, the kernel lives. (A power cut is the lab's.)"""
    seed = 20260
    chance = random.Random(seed)
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(chance.randrange(1, 120))]
            child.kill()
            lines += child.stdout.readlines()
        acknowledged = int([line for line in lines if line.endswith(b"\n")][-1])
        store = SqliteStore(path)
        records = store.load()
        store.close()
        written = int(records["pair"]["a"])
        assert records["pair"] == {"a": b"%d" % written, "b": b"%d" % written}
        assert acknowledged <= written <= acknowledged + 1
        expected = {str(n): n % 9000 for n in range(max(1, written - 49), written + 1)}
        assert {key: len(value) for key, value in records["log"].items()} == expected


def test_a_commit_that_fails_halfway_does_nothing(path: Path) -> None:
    store = SqliteStore(path)
    store.commit((("k", "a", b"1"),), ())
    with pytest.raises(DeviceError):
        store.commit((("k", "a", b"2"), ("k", "b", None)), (("k", "a"),))  # type: ignore[arg-type]
    assert store.load() == {"k": {"a": b"1"}}
    store.commit((("k", "a", b"3"),), ())
    assert store.load() == {"k": {"a": b"3"}}
    store.close()


def test_a_second_manager_is_refused_until_the_first_is_gone(path: Path) -> None:
    first = SqliteStore(path)
    with pytest.raises(ConflictError, match="in use"):
        SqliteStore(path)
    child = subprocess.run(
        [sys.executable, "-c", _WRITER, str(path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert "ConflictError" in child.stderr
    first.close()
    first.close()
    SqliteStore(path).close()


def test_people_may_read_it_meanwhile(path: Path) -> None:
    store = SqliteStore(path)
    store.commit((("k", "a", b"1"),), ())
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as reader:
        assert reader.execute("SELECT content FROM record").fetchall() == [(b"1",)]
    reader.close()
    store.close()


def test_nobody_else_may_read_it(path: Path) -> None:
    store = SqliteStore(path)
    store.commit((("k", "a", b"1"),), ())
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
    store.close()


def test_it_is_durable_by_its_settings(path: Path) -> None:
    store = SqliteStore(path)
    connection = store._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_newer_database_is_refused(path: Path) -> None:
    store = SqliteStore(path, (*MIGRATIONS, lambda _connection: None))
    store.close()
    before = path.read_bytes()
    with pytest.raises(DamagedError, match="version 2; this vastskyd knows version 1") as caught:
        SqliteStore(path)
    assert "upgrade" in caught.value.hint
    assert path.read_bytes() == before


def test_a_file_without_tables_is_version_0_and_is_migrated(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    store = SqliteStore(path)
    store.commit((("k", "a", b"1"),), ())
    assert store.load() == {"k": {"a": b"1"}}
    store.close()


def test_a_migration_changes_records_once(path: Path) -> None:
    def rename(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE record SET kind = kind || '2'")

    store = SqliteStore(path)
    store.commit((("k", "a", b"1"),), ())
    store.close()
    for _ in range(2):
        store = SqliteStore(path, (*MIGRATIONS, rename))
        assert store.load() == {"k2": {"a": b"1"}}
        store.close()


def test_a_migration_that_fails_leaves_the_version_before(path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM record")
        raise RuntimeError("power")

    store = SqliteStore(path)
    store.commit((("k", "a", b"1"),), ())
    store.close()
    with pytest.raises(RuntimeError):
        SqliteStore(path, (*MIGRATIONS, half))
    store = SqliteStore(path)
    assert store.load() == {"k": {"a": b"1"}}
    store.close()


@pytest.mark.parametrize("damage", ["text", "middle", "cut"])
def test_a_damaged_file_says_so_and_what_to_do(path: Path, damage: str) -> None:
    store = SqliteStore(path)
    store.commit(tuple(("k", str(n), os.urandom(900)) for n in range(200)), ())
    store.close()
    content = path.read_bytes()
    if damage == "text":
        path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    elif damage == "middle":
        path.write_bytes(content[:8192] + b"\xa5" * 40960 + content[49152:])
    else:
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedError) as caught:
        SqliteStore(path)
    assert "cluster recover" in caught.value.hint


def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE people (name)")
    other.close()
    with pytest.raises(DamagedError, match="not vastskyd's"):
        SqliteStore(path)


def test_after_a_refusal_the_lock_is_free(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * 4096)
    for _ in range(2):
        with pytest.raises(DamagedError):
            SqliteStore(path)


def test_a_full_file_system_is_told_and_nothing_is_half_done(path: Path) -> None:
    store = SqliteStore(path)
    store.commit((("k", "a", b"1"),), ())
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NoSpaceError, match="full") as caught:
        store.commit((("k", "a", b"2"), ("k", "b", b"x" * 100_000)), ())
    assert "make room" in caught.value.hint
    assert store.load() == {"k": {"a": b"1"}}
    store.close()


def test_after_an_io_error_it_takes_no_more(path: Path) -> None:
    """What an fsync lost stays lost: the kernel reports it once."""
    store = SqliteStore(path)

    class Failing:
        in_transaction = False

        def execute(self, _statement: str) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    real = store._connection
    store._connection = Failing()  # type: ignore[assignment]
    with pytest.raises(DeviceError, match="I/O error"):
        store.commit((("k", "a", b"1"),), ())
    store._connection = real
    with pytest.raises(DeviceError, match="closed to writing"):
        store.commit((("k", "a", b"1"),), ())
    store.close()
