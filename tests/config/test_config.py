"""The configuration file: what is accepted, and how a mistake is told."""

import re
from pathlib import Path

import msgspec
import pytest

from vastskyd.config import RIGHT, Config, LogLevel, load
from vastskyd.core.errors import InvalidError
from vastskyd.core.model import Encryption, Record, Role
from vastskyd.core.units import GIB

EXAMPLE = Path(__file__).parents[2] / "packaging" / "vastskyd.toml"


def written(tmp_path: Path, text: str, **drop_ins: str) -> Path:
    path = tmp_path / "vastskyd.toml"
    path.write_text(text)
    directory = tmp_path / "vastskyd.toml.d"
    directory.mkdir()
    for name, content in drop_ins.items():
        (directory / f"{name}.toml").write_text(content)
    return path


def keys(of: type[Record] = Config, prefix: str = "") -> set[str]:
    found = set()
    for field in msgspec.structs.fields(of):
        found.add(prefix + field.name)
        if isinstance(field.type, type) and issubclass(field.type, Record):
            found |= keys(field.type, f"{prefix}{field.name}.")
    return found


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path / "vastskyd.toml")
    assert config == Config()
    assert config.port == 8884
    assert config.roles is None
    assert config.placement.segment_max_bytes == 64 * GIB


def test_every_option_is_read(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            """
            state_dir = "/srv/state"
            runtime_dir = "/run/other"
            roles = ["storage", "head"]
            addresses = ["10.0.1.7", "fd00::7"]
            port = 99
            rack = "r12"
            log_level = "debug"
            [timeouts]
            leg_timeout_s = 7
            heartbeat_s = 1.5
            dead_after_s = 9
            rebuild_delay_s = 0
            [rebuild]
            per_disk = 2
            rate_min_kib_s = 0
            rate_max_kib_s = 4096
            [placement]
            segment_max = "1.5T"
            data_encryption = "none"
            """,
        )
    )
    assert config.roles == (Role.STORAGE, Role.HEAD)
    assert config.addresses == ("10.0.1.7", "fd00::7")
    assert config.log_level is LogLevel.DEBUG
    assert config.timeouts.leg_timeout_s == 7.0
    assert config.placement.segment_max_bytes == 1536 * GIB
    assert config.placement.data_encryption is Encryption.NONE
    assert config.state_path == Path("/srv/state")


def test_drop_ins_are_merged_in_name_order_and_within_tables(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "port = 1\n[timeouts]\nheartbeat_s = 5\ndead_after_s = 20",
        b_late="port = 3",
        a_early="port = 2\n[timeouts]\ndead_after_s = 30",
    )
    config = load(path)
    assert config.port == 3
    assert (config.timeouts.heartbeat_s, config.timeouts.dead_after_s) == (5, 30)


def test_a_drop_in_may_mend_what_two_files_only_say_together(tmp_path: Path) -> None:
    path = written(tmp_path, "[timeouts]\nheartbeat_s = 10", more="[timeouts]\ndead_after_s = 30")
    assert load(path).timeouts.dead_after_s == 30


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("port = 0", 1, "port cannot be 0"),
        ('\nport = "8884"', 2, "port cannot be '8884'"),
        ("port = true", 1, "port cannot be True"),
        ("# x\nprot = 1", 2, "no option prot"),
        ("[timeouts]\nheartbeat = 1", 2, "no option timeouts.heartbeat"),
        ("[timeout]\nheartbeat_s = 1", 1, "no option timeout"),
        ("[timeouts]\nheartbeat_s = nan", 2, "heartbeat_s cannot be nan"),
        ("[timeouts]\nrebuild_delay_s = inf", 2, "rebuild_delay_s cannot be inf"),
        ("[timeouts]\nleg_timeout_s = -1", 2, "leg_timeout_s cannot be -1"),
        ("timeouts.heartbeat_s = 'x'", 1, "heartbeat_s cannot be 'x'"),
        ("timeouts = 3", 1, "timeouts cannot be 3"),
        ("roles = []", 1, "roles cannot be []"),
        ('roles = ["head", "head"]', 1, "roles cannot be"),
        ('roles = ["boss"]', 1, "roles cannot be ['boss']"),
        ('addresses = ["host1"]', 1, "addresses cannot be ['host1']"),
        ('addresses = ["10.0.0.1", "10.0.0.1"]', 1, "addresses cannot be"),
        ('state_dir = "var"', 1, "state_dir cannot be 'var'"),
        ('rack = "a b"', 1, "rack cannot be 'a b'"),
        ('log_level = "loud"', 1, "log_level cannot be 'loud'"),
        ("[rebuild]\nper_disk = 0", 2, "per_disk cannot be 0"),
        ('[placement]\nsegment_max = "big"', 2, "segment_max cannot be 'big'"),
        ('[placement]\nsegment_max = "1M"', 2, "segment_max cannot be '1M'"),
        (f'[placement]\nsegment_max = "{"9" * 400}"', 2, "segment_max cannot be '999"),
        ('[placement]\ndata_encryption = "ssl"', 2, "data_encryption cannot be 'ssl'"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = written(tmp_path, "", mine=text)
    with pytest.raises(InvalidError) as caught:
        load(path)
    assert f"mine.toml, line {line}: " in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint


def test_a_mistyped_key_is_answered_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load(written(tmp_path, "[timeouts]\nheart_beat_s = 1"))
    assert "timeouts.heartbeat_s" in caught.value.hint


def test_broken_toml_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="line 2"):
        load(written(tmp_path, "port = 1\nrack = r12"))


def test_not_utf8(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.write_bytes(b"rack = '\xff'")
    with pytest.raises(InvalidError, match="UTF-8"):
        load(path)


def test_a_directory_in_the_files_place(tmp_path: Path) -> None:
    path = tmp_path / "vastskyd.toml"
    path.mkdir()
    with pytest.raises(InvalidError, match="cannot be read"):
        load(path)


def test_dead_before_two_heartbeats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="dead_after_s"):
        load(written(tmp_path, "[timeouts]\nheartbeat_s = 4"))


def test_every_option_has_its_hint() -> None:
    assert keys() == set(RIGHT)


def test_the_shipped_example_is_the_defaults() -> None:
    assert load(EXAMPLE) == Config()


def test_the_shipped_example_documents_every_option_with_its_default(tmp_path: Path) -> None:
    shown = re.sub(r"^#(?=\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    path = tmp_path / "vastskyd.toml"
    path.write_text(shown)
    config = load(path)
    assert config.timeouts == Config().timeouts
    assert config.rebuild == Config().rebuild
    assert config.placement == Config().placement
    assert (config.port, config.state_dir, config.log_level) == (
        Config().port,
        Config().state_dir,
        Config().log_level,
    )
    for key in keys():
        assert re.search(rf"^(\[{key}\]|#{key.rpartition('.')[2]} = )", EXAMPLE.read_text(), re.M)
