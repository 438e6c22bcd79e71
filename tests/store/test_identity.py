"""The node's identity file."""

from pathlib import Path

import msgspec
import pytest

from vastskyd.core.errors import DamagedError, DeviceError
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import Role
from vastskyd.store.identity import Identity, load, save

IDENTITY = Identity(
    cluster=ClusterId("c" * 16),
    cluster_name="lab",
    node=NodeId("store1"),
    roles=(Role.STORAGE, Role.HEAD),
    addresses=("10.0.1.7", "10.0.2.7"),
    port=8884,
    rack="r1",
    manager=NodeId("man1"),
    manager_addresses=("10.0.1.1",),
    manager_port=8884,
)


def test_a_new_host_has_none(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert load(tmp_path / "missing") is None


def test_round_trip_and_replacement(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    save(state_dir, IDENTITY)
    assert load(state_dir) == IDENTITY
    other = msgspec.structs.replace(IDENTITY, rack="r2")
    save(state_dir, other)
    assert load(state_dir) == other
    assert [path.name for path in state_dir.iterdir()] == ["node.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b'{"cluster": 3}', b"\xff", b'{"\xff": 1}']
)
def test_a_damaged_file_is_not_taken_for_a_new_host(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.json").write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        load(tmp_path)
    assert caught.value.hint


def test_a_save_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, IDENTITY)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DeviceError, match="No space left"):
        save(tmp_path, msgspec.structs.replace(IDENTITY, rack="r2"))
    assert load(tmp_path) == IDENTITY
    assert [path.name for path in tmp_path.iterdir()] == ["node.json"]
