"""No mistake hides another: all that are independent are told in one run, in their order."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.config.test_config import WRONG, mistakes, written_files
from tests.config.test_places import FRAGMENTS
from vastskyd.config.check import Mistake, check_text
from vastskyd.config.files import read
from vastskyd.config.settings import EFFECTS
from vastskyd.config.view import view
from vastskyd.config.written import written

VALUES: dict[str, object] = {
    "state_dir": "/srv/state", "runtime_dir": "/run/other", "roles": ["storage", "head"],
    "addresses": ["10.0.1.7", "fd00::7"], "port": 99, "rack": "r12", "log_level": "debug",
    "auto_enroll": ["/dev/disk/by-id/nvme-A*"], "timeouts.leg_timeout_s": 7.0,
    "timeouts.heartbeat_s": 1.5, "timeouts.dead_after_s": 9.0, "timeouts.rebuild_delay_s": 0.0,
    "timeouts.failover_delay_s": 1.0, "rebuild.per_disk": 2, "rebuild.rate_min_kib_s": 0,
    "rebuild.rate_max_kib_s": 4096, "scrub.interval_h": 0, "smart.interval_s": 60.0,
    "smart.reallocated": 0, "smart.pending": 2, "smart.media_errors": 3, "smart.wear_percent": 80,
    "smart.temperature_c": 70, "smart.forget_d": 7, "placement.segment_max": "1.5T",
    "placement.data_encryption": "none",
}  # fmt: skip
TABLES = sorted({key.rpartition(".")[0] for key in VALUES})
SPOILT: dict[str, Callable[[str, str, str], list[str]]] = {
    "range": lambda key, name, _: [f"! {name} = {written(WRONG[key])}"],
    "type": lambda _, name, __: [f"! {name} = true"],
    "key": lambda _, name, value: [f"! {name}x = {value}"],
    "no equals sign": lambda _, name, value: [f"! {name} {value}"],
    "no quotes": lambda _, name, __: [f"! {name} = r 12"],
    "half a string": lambda _, name, __: [f'! {name} = "r12'],
    "no end": lambda _, name, __: [f"! {name} = [", '  "10.0.0.1",'],
    "twice": lambda _, name, value: [f"{name} = {value}", f"! {name} = {value}"],
}


@dataclass
class Written:
    """A file's lines; those that begin with "! " are wrong."""

    marked: list[str] = field(default_factory=list)
    settings: dict[str, tuple[object, int]] = field(default_factory=dict)

    def text(self, ends: str) -> str:
        return ends.join(line.removeprefix("! ") for line in (*self.marked, ""))

    def wrong_lines(self) -> list[int]:
        return [number for number, line in enumerate(self.marked, 1) if line.startswith("! ")]


def put(file: Written, draw: st.DrawFn, key: str, name: str, spoils: tuple[str, ...]) -> None:
    """The setting by `name`, spoilt or not, with what people write between."""
    file.marked += draw(st.sampled_from([[], [], [""], ["# port = 0", " \t"]]))
    value = written(VALUES[key])
    if spoils and draw(st.integers(0, 2)) == 0:
        file.marked += SPOILT[draw(st.sampled_from(spoils))](key, name, value)
    else:
        file.marked.append(f"{name} = {value}" + draw(st.sampled_from(["", " # [x"])))
        file.settings[key] = (VALUES[key], len(file.marked))


@st.composite
def files(draw: st.DrawFn, spoils: tuple[str, ...]) -> tuple[Written, ...]:
    """Each setting in one of three files or none, the tables with a header or by dotted keys."""
    made = tuple(Written() for _ in range(3))
    of = {key: draw(st.integers(-1, 2)) for key in VALUES}
    for number, file in enumerate(made):
        headed = []
        for table in draw(st.permutations(TABLES)):
            keys = [key for key in VALUES if key.rpartition(".")[0] == table and of[key] == number]
            if table and draw(st.booleans()):
                headed.append((table, keys))
                continue
            for key in keys:
                put(file, draw, key, key, spoils)
        for table, keys in headed:
            bad = spoils and draw(st.integers(0, 4)) == 0
            header = (
                draw(st.sampled_from([f"! [{table}", f"! [{table}s_]"])) if bad else f"[{table}]"
            )
            file.marked.append(header)
            for key in keys:
                put(file, draw, key, key.rpartition(".")[2], spoils)
    return made


def read_of(directory: Path, made: tuple[Written, ...], ends: str = "\n") -> tuple[Path, ...]:
    main = directory / "vastskyd.toml"
    drop_ins = directory / "vastskyd.toml.d"
    drop_ins.mkdir()
    paths = (main, drop_ins / "a.toml", drop_ins / "b.toml")
    for path, each in zip(paths, made, strict=True):
        path.write_bytes(each.text(ends).encode())
    return paths


@pytest.mark.parametrize(
    "spoils", [("range", "type", "key"), tuple(SPOILT)], ids=["TOML", "not TOML"]
)
@given(data=st.data(), ends=st.sampled_from(["\n", "\r\n"]))
def test_all_that_was_spoilt_is_told_and_nothing_else(
    spoils: tuple[str, ...], data: st.DataObject, ends: str
) -> None:
    made = data.draw(files(spoils))
    with TemporaryDirectory() as directory:
        paths = read_of(Path(directory), made, ends)
        told = [(each.place.file, each.place.line) for each in read(paths[0]).mistakes]
    assert told == [
        (path, line)
        for path, each in zip(paths, made, strict=True)
        for line in each.wrong_lines()
    ]  # fmt: skip


@given(made=files(()))
def test_what_is_shown_is_what_is_used_and_where_it_stands(made: tuple[Written, ...]) -> None:
    with TemporaryDirectory() as directory:
        paths = read_of(Path(directory), made)
        reading = read(paths[0])
    assert not reading.mistakes
    shown = view(reading)
    assert shown.files == tuple(map(str, paths))
    stand = {
        key: (str(path), value, line)
        for path, each in zip(paths, made, strict=True)
        for key, (value, line) in each.settings.items()
    }
    assert [each.key for each in shown.settings] == list(EFFECTS)
    for each in shown.settings:
        value = list(each.value) if isinstance(each.value, tuple) else each.value
        if each.key in stand:
            assert (each.file, value, each.line) == stand[each.key]
        else:
            assert (each.file, each.line, each.value) == ("", 0, each.default)
        used = reading.config.value_of(each.key)
        assert used == each.value


@given(st.lists(FRAGMENTS | st.sampled_from(["port", "timeouts", "0", "\ufeff"])).map("".join))
def test_whatever_the_text_is_something_is_told_unless_it_is_right(text: str) -> None:
    found = tuple(check_text(Path("x"), text))
    try:
        tomllib.loads(text)
    except ValueError:
        assert any(isinstance(each, Mistake) for each in found)
    last = text.count("\n") + 1
    assert all(0 <= each.place.line <= last for each in found)


# --- one by one ---------------------------------------------------------------------------------

HIDDEN: list[tuple[str, tuple[str, ...]]] = [
    # in a table that is wrong as such
    ("[timeout]\nheartbeat_s = 0\nx = 1", (
        "1: there is no option timeout; did you mean timeouts?",
        "2: timeouts.heartbeat_s cannot be 0",
        "3: there is no option timeouts.x",
    )),
    ("[[timeouts]]\nheartbeat_s = 0\n[[timeouts]]\ndead_after_s = 0", (
        "1: timeouts cannot be a list of tables",
        "2: timeouts.heartbeat_s cannot be 0",
        "4: timeouts.dead_after_s cannot be 0",
    )),
    ("[placement.timeouts]\nheartbeat_s = 0", (
        "1: there is no option placement.timeouts; write it as [timeouts]",
        "2: timeouts.heartbeat_s cannot be 0",
    )),
    ("timeouts = [{ heartbeat_s = 0 }, 3]", (
        "1: timeouts cannot be", "1: timeouts.heartbeat_s cannot be 0",
    )),
    # a key and its value
    ("prot = 0", ("1: there is no option prot; did you mean port? write a TCP port",)),
    ("heartbeat_s = 0", ("1: there is no option heartbeat_s; heartbeat_s belongs in the table"
                         " [timeouts]; write seconds from",)),
    ("timeout = 3", ("1: there is no option timeout; did you mean timeouts? write a table",)),
    # in a list
    ('addresses = ["x", "::1",\n"0::1"]', (
        '1: addresses cannot have "x"', '2: addresses has "0::1" already',
    )),
    ('addresses = ["x", "::1", "::2", "::3", "::4"]', (
        '1: addresses cannot have "x"', "1: addresses cannot have 5 elements",
    )),
    ('roles = ["boss",\n"head", "head"]', ('1: roles cannot have "boss"', '2: roles has "head"')),
    # what is not TOML, and what is behind it
    ("rack = r12\nport = 0", ("1: not TOML: invalid value", "2: port cannot be 0")),
    ("[timeouts\nheartbeat_s = 0", ("1: not TOML", "2: timeouts.heartbeat_s cannot be 0")),
    ("addresses = [\n'10.0.0.1'\nport = 0", ("1: not TOML: unclosed", "3: port cannot be 0")),
    ("addresses = [\n10.0.0.1,\n]\nport = 0", ("1: not TOML: unclosed array, noticed at line 2",
                                              "4: port cannot be 0")),
    ('rack = """\nx\nport = 0', ("1: not TOML: unterminated", "3: port cannot be 0")),
    ("auto_enroll = [\n'x',\nrack r\n", ("1: not TOML", "3: not TOML")),
    ('rack = """\nsome words\nport = 0', ("1: not TOML", "3: port cannot be 0")),
    ("timeouts = {\nheartbeat_s = 1\n}\nport = 0", ("1: not TOML", "4: port cannot be 0")),
    ("port = 1\nport = 0", ("2: port cannot be 0", "2: port stands at line 1 already")),
    ("[scrub]\n[timeouts]\n[scrub]\ninterval_h = -1", ("3: scrub stands at line 1 already",
                                                       "4: scrub.interval_h cannot be -1")),
    ("timeouts = { }\ntimeouts.heartbeat_s = 0", (
        "2: timeouts.heartbeat_s cannot be 0", "2: timeouts stands at line 1 already",
    )),
    ("timeouts.heartbeat_s = 1\n[timeouts]\ndead_after_s = 0", (
        "2: timeouts stands at line 1 already", "3: timeouts.dead_after_s cannot be 0",
    )),
    (f"port = {'9' * 5000}\nrack = 1", ("1: not TOML: a number of too many", "2: rack cannot be")),
    (f"port = {'[' * 9999}\nrack = 1", ("1: not TOML: nested too deeply", "2: rack cannot be")),
    ("[x.y]\nz = 1\n[=]\nz = 1\n[scrub]\ninterval_h = -1\nx y", (
        "1: there is no option x;", "3: not TOML", "6: scrub.interval_h cannot be", "7: not TOML",
    )),
    ('"\\x" = 1\nport = 0', ("1: not TOML", "2: port cannot be 0")),
    # the text as such
    ("\ufeffport = 0\nrack = 1", ("1: it begins with a byte", "1: port cannot", "2: rack cannot")),
    ("\ufeff[timeouts]\nheartbeat_s = 50", ("1: it begins with", "2: timeouts.dead_after_s = 6.0")),
    # together, beside mistakes that have nothing to do with it
    ("rack = r12\n[timeouts]\nheartbeat_s = 50", ("1: not TOML", "3: timeouts.dead_after_s = 6.0")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), HIDDEN, ids=[text[:30] for text, _ in HIDDEN])
def test_what_a_mistake_might_hide(tmp_path: Path, text: str, said: tuple[str, ...]) -> None:
    told = mistakes(written_files(tmp_path, text))
    assert len(told) == len(said), told
    for line, start in zip(told, said, strict=True):
        assert line.startswith(f"vastskyd.toml:{start}")


@pytest.mark.parametrize("depth", [100, 150, 200, 250, 300, 350, 400, 480, 490, 500])
def test_no_depth_is_too_deep(tmp_path: Path, depth: int) -> None:
    told = mistakes(written_files(tmp_path, f"port = {'[' * depth}{']' * depth}\nrack = 1"))
    assert [line.split(" ")[0] for line in told] == ["vastskyd.toml:1:", "vastskyd.toml:2:"]


@pytest.mark.parametrize(
    "text",
    [
        "timeouts.heartbeat_s 50\ntimeouts.dead_after_s = 9",
        "[timeouts]\nheartbeat_s = 50 s",
        "[timeout]\nheartbeat_s = 50",
        "[timeouts]\nheartbeat_s = 50\n[timeouts]\nheartbeat_s = 2",
        "[timeouts\nheartbeat_s = 50",
    ],
)
def test_a_combination_is_not_told_of_what_is_in_doubt(tmp_path: Path, text: str) -> None:
    assert not [line for line in mistakes(written_files(tmp_path, text)) if "would hold" in line]


def test_another_file_leaves_in_doubt_only_what_it_can_set(tmp_path: Path) -> None:
    together = "[timeouts]\nheartbeat_s = 50\ndead_after_s = 60"
    path = written_files(tmp_path, "port 1", m=together)
    assert [line.split(" ")[0] for line in mistakes(path)] == [
        "vastskyd.toml:1:", "vastskyd.toml.d/m.toml:3:",
    ]  # fmt: skip
    (tmp_path / "vastskyd.toml.d" / "a.toml").mkdir()
    assert len(mistakes(path)) == 3, "what is read later counts, whatever is in the unreadable one"
    (tmp_path / "vastskyd.toml.d" / "z.toml").mkdir()
    assert [line.split(" ")[0] for line in mistakes(path)] == [
        "vastskyd.toml:1:", "vastskyd.toml.d/a.toml:", "vastskyd.toml.d/z.toml:",
    ]  # fmt: skip


def test_of_a_text_that_is_not_utf8_the_rest_is_looked_at(tmp_path: Path) -> None:
    path = written_files(tmp_path, "", mine="port = 0")
    path.write_bytes(b"# gr\xf6\xdfe\nrack = '\xe4'\nport = 0\n# \xe4\nprot = 1")
    assert [line.split(" ")[0] for line in mistakes(path)] == [
        "vastskyd.toml:1:", "vastskyd.toml:3:", "vastskyd.toml:5:", "vastskyd.toml.d/mine.toml:1:",
    ]  # fmt: skip
    path.write_bytes("port = 0\n".encode("utf-16"))
    assert len(mistakes(path)) == 2


def test_what_is_no_file_or_another_kind_of_file(tmp_path: Path) -> None:
    path = written_files(tmp_path, "port = 0")
    drop_ins = tmp_path / "vastskyd.toml.d"
    (drop_ins / "a.toml").symlink_to("/dev/zero")
    (drop_ins / "b.toml").write_text("#" * 200_000)
    (drop_ins / "c.toml").symlink_to("c.toml")
    told = mistakes(path)
    assert [line.split(": ")[0] for line in told] == [
        "vastskyd.toml:1", *(f"vastskyd.toml.d/{name}.toml" for name in "abc"),
    ]  # fmt: skip
    assert "it is larger than 128 KiB" in told[2]


def test_a_main_file_that_links_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "vastskyd.toml"
    path.symlink_to("nowhere")
    assert "No such file" in mistakes(path)[0]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('[timeouts]\nrebuild_delay_s = "10 min"', "rebuild_delay_s = 600?"),
        ('[timeouts]\nheartbeat_s = "1.5s"', "heartbeat_s = 1.5?"),
        ('[scrub]\ninterval_h = "7d"', "interval_h = 168?"),
        ('[smart]\nforget_d = "48h"', "forget_d = 2?"),
    ],
)
def test_a_time_with_its_unit_is_understood(tmp_path: Path, text: str, meant: str) -> None:
    (line,) = mistakes(written_files(tmp_path, text))
    assert line.endswith(f"did you mean {meant}")


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = written_files(tmp_path, "")
    drop_in = Path(str(tmp_path / "vastskyd.toml.d") + "/a\udcff.toml")
    drop_in.write_text("port = 9")
    shown = view(read(path))
    name = f"{path}.d/a\N{REPLACEMENT CHARACTER}.toml"
    assert shown.files[1] == name
    assert [each.file for each in shown.settings if each.key == "port"] == [name]
