"""The manager's records and a host's identity survive a power cut: what is durable was synced."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.kernel.loops import flushes, loop_device
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.units import MIB
from vastskyd.store import identity, sqlite
from vastskyd.store.sqlite import SqliteStore

COMMITS = 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A disk, and where its file system is mounted."""
    with loop_device(tmp_path, 32 * MIB) as device:
        place = tmp_path / "mounted"
        place.mkdir()
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, place], check=True)
        try:
            yield device, place
        finally:
            subprocess.run(["umount", place], check=True)


def test_each_commit_is_flushed_before_it_returns(disk: tuple[str, Path]) -> None:
    device, place = disk
    with closing(SqliteStore(place / "cluster.db")) as store:
        for number in range(COMMITS):
            before = flushes(device)
            store.commit((("k", str(number), b"x"),), ())
            assert flushes(device) > before, f"commit {number}"


def test_the_name_of_a_new_database_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(sqlite, "sync_directory", synced.append)
    SqliteStore(tmp_path / "state" / "cluster.db").close()
    assert synced == [tmp_path / "state"]


def test_an_identity_is_synced_before_it_replaces_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        done.append("sync " + os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{tmp_path}"))
        real_fsync(fd)

    def replace(path: Path, target: Path) -> Path:
        done.append(f"rename {path.name}")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    identity.save(
        tmp_path,
        identity.Identity(
            cluster=ClusterId("c" * 16), cluster_name="c", node=NodeId("n"), roles=(),
            addresses=(), port=1, rack="", manager=NodeId("n"), manager_addresses=(),
            manager_port=1,
        ),
    )  # fmt: skip
    assert done == ["sync /node.json.new", "rename node.json.new", "sync "]
