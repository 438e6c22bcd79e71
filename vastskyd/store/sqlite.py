"""The manager's records in one SQLite file.

WAL with synchronous=FULL: a commit is on the disk when it returns. A lock file beside the database
keeps a second manager off it; reading it with sqlite3 while the manager runs is fine.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from vastskyd.core.errors import (
    ConflictError,
    DamagedError,
    DeviceError,
    NoSpaceError,
    VastskyError,
)
from vastskyd.store.identity import sync_directory

_BUSY_TIMEOUT_S = 5.0
_RESTORE = "`vastskyctl cluster recover` makes the records anew from the disks and heads"

Migration = Callable[[sqlite3.Connection], None]


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT")
    connection.execute(
        "CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, content BLOB NOT NULL,"
        " PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID"
    )


# The function at index N makes version N + 1 of version N; version 0 is a new file.
MIGRATIONS: tuple[Migration, ...] = (_create_tables,)


class SqliteStore:
    """ports.Store. May be called from any thread, by one at a time; others wait."""

    def __init__(self, path: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
        """Opens or creates the database, checks it and brings it to this program's version.

        ConflictError: another process has it. DamagedError: it is corrupted, not ours, or newer
        than this program. DeviceError: the file system refuses.
        """
        self._path = path.resolve()
        self._mutex = threading.Lock()
        self._lost = ""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _take_lock(self._path)
        except OSError as error:
            raise DeviceError(f"{self._path}: {error.strerror}") from error
        try:
            self._connection = _open(self._path, migrations)
        except BaseException:
            os.close(self._lock)
            raise

    def load(self) -> dict[str, dict[str, bytes]]:
        """All records: kind → key → content."""
        records: dict[str, dict[str, bytes]] = {}
        with self._mutex:
            try:
                rows = self._connection.execute("SELECT kind, key, content FROM record")
                for kind, key, content in rows:
                    records.setdefault(kind, {})[key] = content
            except sqlite3.Error as error:
                raise _meaning(self._path, error) from error
        return records

    def commit(
        self, puts: tuple[tuple[str, str, bytes], ...], deletes: tuple[tuple[str, str], ...]
    ) -> None:
        """Atomic, and durable when it returns. Deletes come before puts.

        DeviceError, NoSpaceError: none of it was done. After an I/O error it is not known what
        reached the disk: then every later commit fails too, until the database is opened anew.
        """
        with self._mutex:
            if self._lost:
                raise DeviceError(
                    f"{self._path}: closed to writing after: {self._lost}",
                    hint="`journalctl -k` says what is wrong with the disk under it; then"
                    " `systemctl restart vastskyd`",
                )
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(
                    "DELETE FROM record WHERE kind = ? AND key = ?", deletes
                )
                self._connection.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", puts)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if _code(error) == sqlite3.SQLITE_IOERR:
                    self._lost = str(error)
                raise _meaning(self._path, error) from error
            finally:
                if self._connection.in_transaction:
                    self._connection.rollback()

    def close(self) -> None:
        """Lets another process have the database. Idempotent."""
        with self._mutex:
            self._connection.close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1


def _take_lock(path: Path) -> int:
    """A descriptor that holds the lock. Not SQLite's own lock: POSIX record locks vanish when any
    part of the process closes the file once."""
    name = path.with_name(path.name + ".lock")
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConflictError(
            f"{path} is in use by another vastskyd",
            hint=f"`fuser -v {path}` shows which; end it, and start vastskyd again",
        ) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _open(path: Path, migrations: tuple[Migration, ...]) -> sqlite3.Connection:
    try:
        # SQLite would create it readable by others; it holds the digests of join secrets.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}") from error
    try:
        _check(path, connection)
        _configure(connection)
        _migrate(path, connection, migrations)
        sync_directory(path.parent)
    except sqlite3.Error as error:
        connection.close()
        raise _meaning(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _check(path: Path, connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DamagedError(f"{path} is damaged: {verdict}", hint=_RESTORE)


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _migrate(path: Path, connection: sqlite3.Connection, migrations: tuple[Migration, ...]) -> None:
    """Each step is one transaction with its version: a crash leaves a whole version."""
    version = _version(path, connection)
    if version > len(migrations):
        raise DamagedError(
            f"{path} is of version {version}; this vastskyd knows version {len(migrations)}",
            hint="it was written by a later vastskyd: upgrade this host to the same version",
        )
    for number, migration in enumerate(migrations[version:], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            migration(connection)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (number,))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.rollback()


def _version(path: Path, connection: sqlite3.Connection) -> int:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    if not tables:
        return 0
    if "meta" not in tables or "record" not in tables:
        raise DamagedError(f"{path} is a database, but not vastskyd's", hint=_RESTORE)
    row = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    if row is None:
        raise DamagedError(f"{path} does not say its version", hint=_RESTORE)
    return int(row[0])


def _meaning(path: Path, error: sqlite3.Error) -> VastskyError:
    code = _code(error)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedError(f"{path} is damaged: {error}", hint=_RESTORE)
    if code == sqlite3.SQLITE_FULL:
        return NoSpaceError(
            f"{path}: {error}", hint=f"make room in {path.parent}: `df {path.parent}`"
        )
    return DeviceError(f"{path}: {error}")


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 for an error that Python's module raised itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
