"""When a setting takes effect is as EFFECTS says, and as the journal says at a reload."""

import logging
from pathlib import Path

import msgspec
import pytest

from tests.config.test_config import EVERYTHING
from tests.fakes.addresses import FakeAddresses
from tests.kernel.calls_here import CallsHere
from vastskyd.__main__ import _reload
from vastskyd.config.files import load, read
from vastskyd.config.settings import EFFECTS, Config, Effect
from vastskyd.core import api
from vastskyd.core.model import Encryption, Role
from vastskyd.core.state import load as load_state
from vastskyd.roles.daemon import Host, tuning
from vastskyd.store import identity
from vastskyd.store.sqlite import SqliteStore


@pytest.fixture
def other(tmp_path: Path) -> Config:
    """Nothing in it is the default."""
    path = tmp_path / "other.toml"
    path.write_text(EVERYTHING)
    return load(path)


def with_one(key: str, other: Config) -> Config:
    tables: object = other.value_of(key)
    for part in reversed(key.split(".")):
        tables = {part: tables}
    return msgspec.convert(tables, Config)


@pytest.mark.parametrize("key", EFFECTS)
def test_a_reload_is_enough_where_it_says_so(key: str, other: Config) -> None:
    """log_level is the program's own; see the next test."""
    reaches = tuning(with_one(key, other)) != tuning(Config())
    assert reaches == (EFFECTS[key] is Effect.RELOAD and key != "log_level")


@pytest.mark.parametrize("key", EFFECTS)
def test_the_journal_names_what_waits_for_more(
    key: str, other: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(Config(state_dir=str(tmp_path)), CallsHere())
    changed = msgspec.structs.replace(with_one(key, other), state_dir=str(tmp_path))
    if key == "state_dir":
        changed = with_one(key, other)
    host.reconfigure(changed)
    assert (f"restart vastskyd for the new {key}" in caplog.messages) == (
        EFFECTS[key] is Effect.RESTART
    )


async def test_what_a_host_joins_with_is_what_was_reloaded_last(
    tmp_path: Path, other: Config, caplog: pytest.LogCaptureFixture
) -> None:
    here = FakeAddresses(*other.addresses)
    host = Host(Config(state_dir=str(tmp_path)), CallsHere(), addresses=here)
    roles = (Role.MANAGER, Role.HEAD)
    host.reconfigure(msgspec.structs.replace(other, roles=roles))
    await host.init(api.InitCluster(name="demo", node="m1"))
    made = identity.load(tmp_path)
    assert made is not None
    assert (made.port, made.rack, made.addresses) == (other.port, other.rack, other.addresses)
    assert made.roles == roles
    store = SqliteStore(tmp_path / "manager.db")
    (cluster,) = load_state(store.load()).cluster.values()
    store.close()
    assert cluster.encryption is Encryption.NONE

    caplog.clear()
    host.reconfigure(msgspec.structs.replace(other, roles=roles, port=1, rack="elsewhere"))
    assert caplog.messages[1:] == [
        "this host is in its cluster already: it keeps what it joined with of port, rack"
    ]


def test_one_mistake_and_all_goes_on_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    host = Host(Config(state_dir=str(tmp_path)), CallsHere())
    told: list[Config] = []
    monkeypatch.setattr(host, "reconfigure", told.append)
    path = tmp_path / "vastskyd.toml"
    path.write_text('log_level = "error"\nport = 0\nrack = 1')
    before = root.level
    _reload(host, lambda: load(path))
    assert not told
    assert root.level == before
    assert [line.startswith(f"{path}:") for line in caplog.messages] == [True, True, False]

    path.write_text('log_level = "error"')
    _reload(host, lambda: load(path))
    assert told == [read(path).config]
    assert root.level == logging.ERROR


def test_systemd_has_its_answer_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for it, and `systemctl reload` with it, for the unit's TimeoutStartSec=."""
    told: list[str] = []
    monkeypatch.setattr("vastskyd.__main__.notify", told.append)
    host = Host(Config(state_dir=str(tmp_path)), CallsHere())

    def fault() -> Config:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        _reload(host, fault)
    assert told[0].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert told[1:] == ["READY=1"]
