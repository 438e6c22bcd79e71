"""The configuration file: what is accepted, and how mistakes are told."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.config.check import Setting, check_text
from vastskyd.config.files import load, read
from vastskyd.config.settings import CHECKS, COMBINATIONS, EFFECTS, RIGHT, Config, LogLevel
from vastskyd.config.written import written
from vastskyd.core.errors import InvalidError
from vastskyd.core.model import Encryption, Record, Role
from vastskyd.core.units import GIB

EXAMPLE = Path(__file__).parents[2] / "packaging" / "vastskyd.toml"
TABLES = set(RIGHT) - set(EFFECTS)


def written_files(tmp_path: Path, text: str, **drop_ins: str) -> Path:
    path = tmp_path / "vastskyd.toml"
    path.write_text(text)
    directory = tmp_path / "vastskyd.toml.d"
    directory.mkdir()
    for name, content in drop_ins.items():
        (directory / f"{name}.toml").write_text(content)
    return path


def mistakes(path: Path) -> list[str]:
    """As `load` says them, below the directory of the file."""
    with pytest.raises(InvalidError) as caught:
        load(path)
    return caught.value.message.replace(f"{path.parent}/", "").splitlines()


def keys(of: type[Record] = Config, prefix: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(of):
        if isinstance(field.type, type) and issubclass(field.type, Record):
            yield from keys(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


# --- what is accepted -------------------------------------------------------------------------

EVERYTHING = """
state_dir = "/srv/state"
runtime_dir = "/run/other"
roles = ["storage", "head"]
addresses = ["10.0.1.7", "fd00::7"]
port = 99
rack = "r12"
log_level = "debug"
auto_enroll = ["/dev/disk/by-id/nvme-A*", "/dev/disk/by-path/pci-0000:01:*"]
[timeouts]
leg_timeout_s = 7
heartbeat_s = 1.5
dead_after_s = 9
rebuild_delay_s = 0
failover_delay_s = 1
[rebuild]
per_disk = 2
rate_min_kib_s = 0
rate_max_kib_s = 4096
[scrub]
interval_h = 0
[smart]
interval_s = 60
reallocated = 0
pending = 2
media_errors = 3
wear_percent = 80
temperature_c = 70
forget_d = 7
[placement]
segment_max = "1.5T"
data_encryption = "none"
"""


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path / "vastskyd.toml")
    assert config == Config()
    assert config.port == 8884
    assert config.roles is None
    assert config.placement.segment_max_bytes == 64 * GIB


def test_every_option_is_read(tmp_path: Path) -> None:
    reading = read(written_files(tmp_path, EVERYTHING))
    config = reading.config
    assert not reading.mistakes
    assert set(reading.origins) == set(keys())
    assert not [key for key in keys() if config.value_of(key) == Config().value_of(key)]
    assert config.roles == (Role.STORAGE, Role.HEAD)
    assert config.addresses == ("10.0.1.7", "fd00::7")
    assert config.log_level is LogLevel.DEBUG
    assert config.timeouts.leg_timeout_s == 7.0
    assert config.placement.segment_max_bytes == 1536 * GIB
    assert config.placement.data_encryption is Encryption.NONE
    assert config.state_path == Path("/srv/state")


def test_drop_ins_are_merged_in_name_order_and_within_tables(tmp_path: Path) -> None:
    path = written_files(
        tmp_path,
        "port = 1\n[timeouts]\nheartbeat_s = 5\ndead_after_s = 20",
        b_late="\nport = 3",
        a_early="port = 2\n[timeouts]\ndead_after_s = 30",
    )
    reading = read(path)
    assert reading.config.port == 3
    timeouts = reading.config.timeouts
    assert (timeouts.heartbeat_s, timeouts.dead_after_s) == (5, 30)
    where = {key: str(place.file.name) + f":{place.line}" for key, place in reading.origins.items()}
    assert where == {
        "port": "b_late.toml:2",
        "timeouts.heartbeat_s": "vastskyd.toml:3",
        "timeouts.dead_after_s": "a_early.toml:3",
    }
    assert [file.name for file in reading.files] == ["vastskyd.toml", "a_early.toml", "b_late.toml"]


def test_a_pipe_among_the_drop_ins_is_a_mistake_and_not_waited_for(tmp_path: Path) -> None:
    path = written_files(tmp_path, "", more="")
    os.mkfifo(tmp_path / "vastskyd.toml.d" / "x.toml")
    (mistake,) = read(path).mistakes
    assert "x.toml" in str(mistake)
    assert "it is a pipe or a device" in str(mistake)


def test_what_editors_leave_beside_is_no_drop_in(tmp_path: Path) -> None:
    path = written_files(tmp_path, "", **{".#mine": "prot = 1", ".mine": "?"})
    (tmp_path / "vastskyd.toml.d" / "mine.toml~").write_text("prot = 1")
    assert load(path) == Config()


# --- one mistake ------------------------------------------------------------------------------

BIG = "9" * 400
ONE: list[tuple[str, str]] = [
    # a value out of its range, or of the wrong type
    ("port = 0", "1: port cannot be 0; write a TCP port from 1 to 65535"),
    ('\nport = "8884"', '2: port cannot be "8884"; did you mean port = 8884?'),
    ("port = true", "1: port cannot be true; write a TCP"),
    ("port = [1]", "1: port cannot be [1]; write a TCP"),
    ("rack = 12", '1: rack cannot be 12; did you mean rack = "12"?'),
    ('rack = "a b"', '1: rack cannot be "a b"; write at most 63 letters'),
    ('rack = """\n\n"""', '1: rack cannot be "\\n"; write'),
    ("[timeouts]\nheartbeat_s = nan", "2: timeouts.heartbeat_s cannot be nan; write seconds"),
    ("[timeouts]\nrebuild_delay_s = inf", "2: timeouts.rebuild_delay_s cannot be inf; write"),
    ("[timeouts]\nleg_timeout_s = -1", "2: timeouts.leg_timeout_s cannot be -1; write"),
    (f"[timeouts]\nleg_timeout_s = {BIG}", "2: timeouts.leg_timeout_s cannot be 0x"),
    ("timeouts.heartbeat_s = 'x'", '1: timeouts.heartbeat_s cannot be "x"; write seconds'),
    ("timeouts = 3", "1: timeouts cannot be 3; write a table: [timeouts]"),
    ("[[timeouts]]", "1: timeouts cannot be a list of tables; write a table: [timeouts]"),
    ("[port]", "1: port cannot be a table; write a TCP port"),
    ("timeouts = {\nheartbeat_s = 1}", "not TOML"),
    ("timeouts = { heartbeat_s = 0 }", "1: timeouts.heartbeat_s cannot be 0; write seconds"),
    ("roles = []", "1: roles cannot be []; write a list"),
    ('roles = "head"', '1: roles cannot be "head"; did you mean roles = ["head"]?'),
    ('roles = ["head", "head"]', '1: roles has "head" already; write'),
    ('roles = ["head",\n"boss"]', '2: roles cannot have "boss"; write a list of "manager"'),
    ('addresses = [\n"10.0.0.1",\n"host1"\n]', '3: addresses cannot have "host1"; write a list'),
    ('addresses = ["::1",\n"0:0::1"]', '2: addresses has "0:0::1" already; write'),
    ('addresses = ["10.0.0.1",\n"0.0.0.0"]', '2: addresses cannot have "0.0.0.0"; write a list of'),
    ('addresses = ["224.0.0.1"]', '1: addresses cannot have "224.0.0.1"; write a list of'),
    ('state_dir = "var"', '1: state_dir cannot be "var"; write an absolute directory'),
    ('log_level = "WARN"', '1: log_level cannot be "WARN"; did you mean log_level = "warning"?'),
    ('log_level = "loud"', '1: log_level cannot be "loud"; write "debug"'),
    ('auto_enroll = ["/dev/sd*"]', '1: auto_enroll cannot have "/dev/sd*"; write a list'),
    ('auto_enroll = ["/dev/disk/by-id/"]', '1: auto_enroll cannot have "/dev/disk/by-id/"; write'),
    ('auto_enroll = ["/dev/disk/by-id/../x"]', "1: auto_enroll cannot have"),
    ('auto_enroll = "/dev/disk/by-id/a*"', "did you mean auto_enroll = ["),
    (f"auto_enroll = {['/dev/disk/by-id/a'] * 65}", "1: auto_enroll cannot have 65 elements;"),
    ("[rebuild]\nper_disk = 0", "2: rebuild.per_disk cannot be 0; write a number of rebuilds"),
    ('[placement]\nsegment_max = "big"', '2: placement.segment_max cannot be "big"; write a size'),
    ('[placement]\nsegment_max = "1M"', '2: placement.segment_max cannot be "1M"; write a size'),
    (f'[placement]\nsegment_max = "{BIG}"', '2: placement.segment_max cannot be "999'),
    ('[placement]\ndata_encryption = "ssl"', '2: placement.data_encryption cannot be "ssl"'),
    # no such option
    ("# x\nprot = 1", "2: there is no option prot; did you mean port?"),
    ("[timeouts]\nheartbeat = 1", "2: there is no option timeouts.heartbeat; did you mean"),
    ("[timeouts]\nfrob = 1", "2: there is no option timeouts.frob; the options here are timeouts."),
    ("[timeout]\nheartbeat_s = 1", "1: there is no option timeout; did you mean timeouts?"),
    ("heartbeat_s = 1", "1: there is no option heartbeat_s; heartbeat_s belongs in the table [tim"),
    ("[scrub]\nport = 1", "2: there is no option scrub.port; port belongs above the first table"),
    ("intervall_h = 1", "1: there is no option intervall_h; did you mean scrub.interval_h?"),
    ('"timeouts.heartbeat_s" = 1', '1: there is no option "timeouts.heartbeat_s"; write timeouts.'),
    ('"a\\nb" = 1', '1: there is no option "a\\nb"; the options here are state_dir'),
    # together
    ("[timeouts]\nheartbeat_s = 4", "2: timeouts.dead_after_s = 6.0, the default would hold"),
    ("[timeouts]\nheartbeat_s = 4\ndead_after_s = 7.5", "3: timeouts.dead_after_s = 7.5 would"),
    ('state_dir = "/run/vastsky/x"', '1: state_dir = "/run/vastsky/x" is where things may vanish'),
    # not TOML
    ("port = 1\nrack = r12\nroles = ['head']", "2: not TOML: invalid value; write lines such as"),
    ("port = 1\nport = 2\n", "2: port stands at line 1 already; write each"),
    ("port = 1\nrack = [\n\n", "not TOML"),
    ("\ufeffport = 1", "1: it begins with a byte order mark; save"),
    (f"port = {'9' * 5000}", "not TOML"),
    (f"port = {'[' * 9999}{']' * 9999}", "nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), ONE, ids=[text[:40] for text, _ in ONE])
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    (line,) = mistakes(written_files(tmp_path, "", mine=text))
    assert line.startswith("vastskyd.toml.d/mine.toml:")
    assert said in line
    assert re.search(r"; \w+", line), "and what is right"


def test_of_two_files_that_do_not_go_together_both_are_named(tmp_path: Path) -> None:
    path = written_files(
        tmp_path, "[timeouts]\nheartbeat_s = 10", more="\n[timeouts]\ndead_after_s = 12"
    )
    (line,) = mistakes(path)
    assert line.startswith("vastskyd.toml.d/more.toml:3: timeouts.dead_after_s = 12.0 would")
    assert "timeouts.heartbeat_s = 10.0, at vastskyd.toml:2" in line


def test_a_drop_in_may_mend_what_two_files_only_say_together(tmp_path: Path) -> None:
    path = written_files(
        tmp_path, "[timeouts]\nheartbeat_s = 10", more="[timeouts]\ndead_after_s = 30"
    )
    assert load(path).timeouts.dead_after_s == 30


def test_not_utf8(tmp_path: Path) -> None:
    path = written_files(tmp_path, "")
    path.write_bytes(b"port = 1\nrack = '\xff'")
    assert mistakes(path) == ["vastskyd.toml:2: byte 0xff is not UTF-8; save the file as UTF-8"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "vastskyd.toml"
    path.mkdir()
    (tmp_path / "vastskyd.toml.d").write_text("")
    told = mistakes(path)
    assert [line.split(": ")[0] for line in told] == ["vastskyd.toml", "vastskyd.toml.d"]
    assert all("cannot be read: " in line for line in told)


def test_a_drop_in_that_links_to_nothing(tmp_path: Path) -> None:
    path = written_files(tmp_path, "")
    (tmp_path / "vastskyd.toml.d" / "mine.toml").symlink_to("nowhere")
    assert mistakes(path)[0].startswith("vastskyd.toml.d/mine.toml: cannot be read: No such file")


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="No such file"):
        load(tmp_path / "mine.toml", needed=True)


# --- all mistakes -----------------------------------------------------------------------------


def test_all_mistakes_of_all_files_are_told(tmp_path: Path) -> None:
    path = written_files(
        tmp_path,
        'prot = 1\nroles = [\n"boss",\n"head",\n"kid"]\n[timeouts]\nheartbeat_s = 0\n[x.y]\nz = 1',
        a="port = 0\n\n\nrack = 3",
        b="rack =",
        c="[timeouts]\nrebuild_delay_s = -1",
    )
    assert [": ".join(line.split(": ")[:1]) for line in mistakes(path)] == [
        "vastskyd.toml:1", "vastskyd.toml:3", "vastskyd.toml:5", "vastskyd.toml:7",
        "vastskyd.toml:8", "vastskyd.toml.d/a.toml:1", "vastskyd.toml.d/a.toml:4",
        "vastskyd.toml.d/b.toml:1", "vastskyd.toml.d/c.toml:2",
    ]  # fmt: skip


def test_a_mistake_elsewhere_hides_no_combination(tmp_path: Path) -> None:
    path = written_files(tmp_path, "prot = 1", a="[timeouts]\nheartbeat_s = 50")
    assert len(mistakes(path)) == 2


def test_what_a_mistake_leaves_open_is_not_counted_against_it(tmp_path: Path) -> None:
    """dead_after_s is mistyped: that it does not fit heartbeat_s is not known."""
    path = written_files(tmp_path, "[timeouts]\ndead_after = 99\nheartbeat_s = 40")
    assert len(mistakes(path)) == 1


WRONG = {
    "state_dir": "x", "runtime_dir": 3, "roles": ["x"], "addresses": ["x"], "port": -1,
    "rack": "?", "log_level": "x", "auto_enroll": ["/dev/sda"],
} | {key: "?" for key in EFFECTS if "." in key}  # fmt: skip
VALID = {key: Config().value_of(key) for key in EFFECTS if key != "roles"}


@given(
    st.lists(st.sampled_from(sorted(VALID)), unique=True), st.sets(st.sampled_from(sorted(VALID)))
)
def test_each_wrong_setting_is_told_and_each_right_one_kept(
    order: list[str], bad: set[str]
) -> None:
    lines = [f"{key} = {written((WRONG if key in bad else VALID)[key])}" for key in order]
    found = list(check_text(Path("x"), "\n".join(lines)))
    assert {each.key: each.place.line for each in found} == {
        key: number for number, key in enumerate(order, 1)
    }
    assert {each.key for each in found if isinstance(each, Setting)} == set(order) - bad


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*sorted(RIGHT), "x", ""]), inner, max_size=3),
))  # fmt: skip
def test_no_value_is_too_strange(value: Any) -> None:
    for key in RIGHT:
        text = f"{key} = {written(value)}"
        for found in check_text(Path("x"), text):
            if not isinstance(found, Setting):
                assert re.fullmatch(r"x:1: .+; .+", str(found)), text


# --- the tables of settings -------------------------------------------------------------------


def test_every_option_has_its_hint_and_its_effect() -> None:
    assert set(keys()) == set(EFFECTS)
    assert {key.rpartition(".")[0] for key in EFFECTS} - {""} == TABLES
    assert set(CHECKS) <= set(EFFECTS)
    assert {key for each in COMBINATIONS for key in each.keys} <= set(EFFECTS)
    assert all(RIGHT[table] == f"a table: [{table}]" for table in TABLES)


def test_the_defaults_fit_together() -> None:
    assert all(each.fits(Config()) for each in COMBINATIONS)


def test_the_shipped_example_is_the_defaults() -> None:
    assert load(EXAMPLE) == Config()


def test_the_shipped_example_documents_every_option_with_its_default(tmp_path: Path) -> None:
    path = tmp_path / "vastskyd.toml"
    path.write_text(re.sub(r"^#(?=\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    reading = read(path)
    assert not reading.mistakes
    assert set(reading.origins) == set(EFFECTS)
    shown_as_examples = {"roles", "addresses", "auto_enroll"}
    for key in set(EFFECTS) - shown_as_examples:
        assert reading.config.value_of(key) == Config().value_of(key), key


# --- vastskyd --check-config ------------------------------------------------------------------


def check_config(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vastskyd", "--check-config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_check_config_says_what_an_editor_can_read(tmp_path: Path) -> None:
    path = written_files(tmp_path, "prot = 1\nport = 0")
    done = check_config("--config", path)
    assert done.returncode == 2
    assert not done.stdout
    for number, line in enumerate(done.stderr.splitlines(), 1):
        assert line.startswith(f"{path}:{number}: ")
    path.write_text("port = 1")
    done = check_config("--config", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert check_config("--config", tmp_path / "none.toml").returncode == 2
