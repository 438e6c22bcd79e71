"""vastskyctl config: of files, with no vastskyd anywhere."""

from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from tests.cli.conftest import runner
from vastskyd.cli.main import main
from vastskyd.config.settings import EFFECTS, Config, Effect
from vastskyd.config.view import ConfigView


@pytest.fixture(autouse=True)
def no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vastskyd.toml"
    path.write_text('addresses = ["10.0.0.1"]\n[timeouts]\nheartbeat_s = 1\n')
    drop_in = tmp_path / "vastskyd.toml.d" / "mine.toml"
    drop_in.parent.mkdir()
    drop_in.write_text("# mine\nport = 99")
    return path


def run(*arguments: str | Path) -> Result:
    return runner().invoke(main, ["config", "show", *map(str, arguments)])


def rows(done: Result) -> list[list[str]]:
    return [line.split() for line in done.stdout.splitlines()]


def test_each_setting_with_its_value_and_where_it_comes_from(file: Path) -> None:
    titles, *settings = rows(run("--config", file))
    assert titles == ["SETTING", "VALUE", "FROM", "EFFECT"]
    assert [row[0] for row in settings] == list(EFFECTS)
    said = {row[0]: row[1:] for row in settings}
    assert said["port"] == ["99", f"{file}.d/mine.toml:2", "join"]
    assert said["addresses"] == ['["10.0.0.1"]', f"{file}:1", "join"]
    assert said["timeouts.heartbeat_s"] == ["1.0", f"{file}:3", "restart"]
    assert said["placement.segment_max"] == ['"64G"', "default", "reload"]
    assert said["roles"] == ["-", "default", "join"]
    assert said["rack"] == ['""', "default", "join"]


def test_some_settings_only(file: Path) -> None:
    names = [row[0] for row in rows(run("--config", file, "port", "scrub"))[1:]]
    assert names == ["port", "scrub.interval_h"]
    done = run("--config", file, "scrub.interval")
    assert done.exit_code == 3
    assert "no setting 'scrub.interval'" in done.stderr


def test_for_programs(file: Path) -> None:
    shown = msgspec.json.decode(run("--config", file, "--json").stdout, type=ConfigView)
    assert shown.files == (str(file), f"{file}.d/mine.toml")
    settings = {each.key: each for each in shown.settings}
    assert (settings["port"].value, settings["port"].default) == (99, 8884)
    assert (settings["port"].file, settings["port"].line) == (f"{file}.d/mine.toml", 2)
    assert settings["roles"].value is None
    assert settings["addresses"].value == ("10.0.0.1",)
    assert (settings["rack"].file, settings["rack"].line) == ("", 0)
    assert settings["log_level"].effect is Effect.RELOAD
    for key, each in settings.items():
        default = Config().value_of(key)
        assert each.default == default


def test_a_wrong_file_is_told_as_vastskyd_tells_it(file: Path) -> None:
    file.write_text("prot = 1\nport = 0")
    done = run("--config", file)
    assert done.exit_code == 2
    assert not done.stdout
    said = done.stderr.splitlines()
    assert said[1].startswith(f"{file}:1: there is no option prot")
    assert said[2].startswith(f"{file}:2: port cannot be 0")
    assert "--check-config" in said[3]
    assert run("--config", file.with_name("none.toml")).exit_code == 2
