"""ports.Vault: the manager's database file, and those that were in its place before."""

import time
from pathlib import Path

from vastskyd.core.errors import DeviceError, NotFoundError
from vastskyd.store.identity import sync_directory
from vastskyd.store.sqlite import SqliteStore

# What SQLite, and we, keep beside a database.
_BESIDE = ("-wal", "-shm")
_NEW = ".new"


class SqliteVault:
    """One database at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: SqliteStore | None = None

    def open(self) -> SqliteStore:
        """Never makes one: a missing database is not an empty one."""
        self.close()
        if not self._path.exists():
            raise NotFoundError(
                f"{self._path} is missing",
                hint="if it was moved away, put it back, then `systemctl restart vastskyd`",
            )
        self._store = SqliteStore(self._path)
        return self._store

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def set_aside(self, now_s: float) -> str:
        """What is written of it later, by whoever has it open, goes with it."""
        self.close()
        if not self._path.exists():
            return ""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
        kept = self._free_name(f"{self._path.name}.{stamp}")
        try:
            # The file itself goes last: as long as it is there, its log is found beside it.
            for suffix in (*_BESIDE, ""):
                part = self._path.with_name(self._path.name + suffix)
                if part.exists():
                    part.rename(kept.with_name(kept.name + suffix))
            sync_directory(self._path.parent)
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be set aside: {error.strerror}") from error
        return str(kept)

    def _free_name(self, name: str) -> Path:
        kept = self._path.with_name(name)
        number = 1
        while kept.exists():
            number += 1
            kept = self._path.with_name(f"{name}.{number}")
        return kept

    def renew(self, puts: tuple[tuple[str, str, bytes], ...], now_s: float) -> str:
        """After a crash on the way the old database is there, or none."""
        new = self._path.with_name(self._path.name + _NEW)
        self._remove(new)
        store = SqliteStore(new)
        try:
            store.commit(puts, ())
        finally:
            store.close()
        kept = self.set_aside(now_s)
        try:
            new.rename(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be made: {error.strerror}") from error
        self._remove(new)
        return kept

    def _remove(self, database: Path) -> None:
        for suffix in (*_BESIDE, ".lock", ""):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
