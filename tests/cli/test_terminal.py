"""On a terminal: a bar, colours, questions; and the shell's completion."""

import codecs
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import msgspec
import pytest
from click.shell_completion import BashComplete

from tests.cli.test_commands import _command, _commands
from tests.dbus.fake_cluster import GIB, FakeCluster, job
from vastskyd.cli.main import main
from vastskyd.core import api
from vastskyd.core.errors import UnreachableError
from vastskyd.core.model import JobState
from vastskyd.dbus.messages import Message, MessageBus, MessageFlag
from vastskyd.dbus.paths import BUS_NAME

CTL = [sys.executable, "-c", "from vastskyd.cli.main import main; main(prog_name='vastskyctl')"]
LIMIT_S = 15
COMPLETIONS = Path(__file__).resolve().parents[2] / "packaging/completions"


class Terminal:
    """A command on a pseudo terminal of its own."""

    def __init__(
        self, *arguments: str, more: dict[str, str] | None = None, program: list[str] = CTL
    ) -> None:
        ours, theirs = pty.openpty()
        self._fd = ours
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a letter
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "50"}
        environment.pop("NO_COLOR", None)
        environment |= more or {}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *program, *arguments], env=environment,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        self.said = ""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def read_until(self, text: str) -> None:
        end = time.monotonic() + LIMIT_S
        while text not in self.said and time.monotonic() < end and self._read():
            pass
        assert text in self.said

    def _read(self) -> bool:
        try:
            if select.select([self._fd], [], [], 0.1)[0]:
                self.said += self._decoder.decode(os.read(self._fd, 4096))
        except OSError:  # the other side is gone
            return False
        return True

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def until_silent(self) -> None:
        """Who asks for a password prints first that it does."""
        end = time.monotonic() + LIMIT_S
        while self.echoes:
            assert time.monotonic() < end
            time.sleep(0.01)

    def write(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def finish(self) -> int:
        end = time.monotonic() + LIMIT_S
        while time.monotonic() < end and self._read():
            pass
        return self.process.wait(LIMIT_S)


def test_a_bar_for_a_job(cluster: FakeCluster) -> None:
    cluster.steps = [
        *(job(done_bytes=n * GIB, total_bytes=4 * GIB, message="copying") for n in range(4)),
        job(state=JobState.DONE),
    ]
    with Terminal("volume", "create", "data", "1G") as terminal:
        assert terminal.finish() == 0
        assert "copying" in terminal.said
        assert "4.0 GiB" in terminal.said
        assert terminal.said.rstrip().endswith("create data: done")


def test_leaving_a_job_alone(cluster: FakeCluster) -> None:
    cluster.steps = [job(message="copying")]
    with Terminal("volume", "create", "data", "1G") as terminal:
        terminal.read_until("copying")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130
        assert "vastskyctl job wait j1" in terminal.said
        assert "Traceback" not in terminal.said


def test_deleting_asks(cluster: FakeCluster) -> None:
    with Terminal("volume", "delete", "data") as terminal:
        terminal.read_until("all its data?")
        terminal.write("n\n")
        assert terminal.finish() == 1
    assert not cluster.asked
    with Terminal("volume", "delete", "data") as terminal:
        terminal.read_until("all its data?")
        terminal.write("y\n")
        assert terminal.finish() == 0
    assert cluster.wanted[0] == api.DeleteVolume(volume="data")


def test_colours_are_for_terminals(cluster: FakeCluster) -> None:
    with Terminal("volume", "list") as terminal:
        assert terminal.finish() == 0
        assert "\x1b[33mdegraded" in terminal.said


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colours_where_they_are_not_wanted(
    cluster: FakeCluster, environment: dict[str, str]
) -> None:
    with Terminal("volume", "list", more=environment) as terminal:
        assert terminal.finish() == 0
        assert "degraded" in terminal.said
        assert "\x1b" not in terminal.said


def test_an_empty_no_color_says_nothing(cluster: FakeCluster) -> None:
    with Terminal("volume", "list", more={"NO_COLOR": ""}) as terminal:
        assert terminal.finish() == 0
        assert "\x1b[33mdegraded" in terminal.said


def test_watching(cluster: FakeCluster) -> None:
    with Terminal("status", "--watch") as terminal:
        terminal.read_until("Problems")
        assert "until Ctrl-C" in terminal.said
        assert "\x1b[33mdegraded" in terminal.said
        seen = len(terminal.said)
        cluster.fault = UnreachableError("the manager did not answer")
        terminal.read_until("the manager did not answer")
        assert "Problems" not in terminal.said[seen:]
        cluster.fault = None
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.said


def test_watching_on_what_cannot_be_drawn_on(cluster: FakeCluster) -> None:
    with Terminal("status", "--watch", more={"TERM": "dumb"}) as terminal:
        terminal.read_until("Problems")
        assert "\x1b" not in terminal.said
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130


def test_watching_on_a_small_screen(cluster: FakeCluster) -> None:
    with Terminal("status", "--watch", more={"LINES": "7"}) as terminal:
        terminal.read_until("more lines")
        page = terminal.said.rpartition("\x1b[H")[2]
        assert "Health" in page
        assert "Problems" not in page
        assert page.count("\n") <= 6
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130


def test_following_events(cluster: FakeCluster) -> None:
    events = cluster.events
    cluster.events = events[:2]
    with Terminal("events", "--follow", "-n", "1") as terminal:
        terminal.read_until("thing 2")
        cluster.events = events[:3]
        terminal.read_until("thing 3")
        assert terminal.said.count("thing 2") == 1
        assert "thing 1" not in terminal.said


def complete(*arguments: str) -> list[str]:
    *before, last = arguments
    completer = BashComplete(main, {}, "vastskyctl", "_VASTSKYCTL_COMPLETE")
    return [each.value for each in completer.get_completions(before, last)]


@pytest.mark.usefixtures("cluster")
def test_completion_knows_live_names() -> None:
    assert complete("volume", "show", "") == ["data", "empty"]
    assert complete("volume", "attach", "data", "") == ["m1"], "heads only"
    assert complete("volume", "set", "data", "--standby", "") == ["m1"]
    assert complete("node", "remove", "st") == ["store2"]
    assert complete("disk", "list", "--node", "") == ["m1", "store2"]
    assert complete("disk", "retire", "") == complete("disk", "show", "m") == ["m1:/dev/sdb"]
    assert complete("disk", "show", "d") == ["d1"], "an id, if that is what is typed"
    assert complete("volume", "detach", "data", "") == ["empty"], "of several each once"
    assert complete("disk", "retire", "m1:/dev/sdb", "m") == []
    assert complete("disk", "enrol", "") == ["m1", "store2"]
    assert complete("disk", "enrol", "store2", "") == ["/dev/sdc"]
    assert complete("disk", "enrol", "m1", "") == [], "what is enrolled is not offered"
    assert complete("disk", "enrol", "store2", "/dev/sdc", "") == []
    assert complete("disk", "enrol", "store2:") == ["store2:/dev/sdc"]
    assert complete("disk", "enrol", "m1:/dev/sda", "") == ["store2:/dev/sdc"]
    assert complete("disk", "enrol", "store2:/dev/sdc", "") == [], "once is enough"
    assert complete("job", "wait", "") == complete("job", "show", "") == ["j1"]
    assert complete("config", "show", "scr") == ["scrub.interval_h", "scrub"]
    assert "create" in complete("volume", "c")


@pytest.mark.parametrize("path", [(), *_commands(main)], ids=" ".join)
def test_completion_knows_every_option(path: tuple[str, ...]) -> None:
    command = _command(path) if path else main
    long = {name for param in command.params for name in param.opts if name.startswith("--")}
    assert set(complete(*path, "--")) == long | {"--help"}


def test_completion_knows_every_command() -> None:
    for *before, last in _commands(main):
        assert last in complete(*before, "")


def test_completion_knows_the_disks_of_this_host(cluster: FakeCluster) -> None:
    cluster.change(node="store2")
    assert complete("disk", "enrol", "") == ["m1", "store2", "/dev/sdc"]
    assert complete("disk", "enrol", "/d") == ["/dev/sdc"]
    assert complete("disk", "enrol", "/dev/sdc", "") == []


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """vastskyctl, in a directory of its own."""
    found = tmp_path / "bin" / "vastskyctl"
    found.parent.mkdir()
    found.write_text(f'#!/bin/sh\nexec {shlex.join(CTL)} "$@"\n')
    found.chmod(0o755)
    return found


def in_shell(program: Path, *command: str) -> str:
    """What a shell that has the program prints. It has to be there: a test that needs what the
    machine lacks does not pass."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=True,
        env=os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}",
                          "HOME": str(program.parent)},
    )  # fmt: skip
    assert not done.stderr
    return done.stdout


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["volume", "show", ""], ["data", "empty"]),
        (["volume", "attach", "data", "m"], ["m1"]),
        (["vol"], ["volume"]),
        (["volume", "create", "data", "1G", "--st"], ["--standby"]),
        (["--no-a"], ["--no-ask-password"]),
        (["cluster", "init", "--role", "st"], ["storage"]),
        # As bash parts the words, and what it wants in place of the last of them.
        (["disk", "show", "m1", ":", "/dev"], ["/dev/sdb"]),
        (["disk", "show", "m1", ":"], ["/dev/sdb"]),
        (["disk", "enrol", "m1", ":", "/dev/sda", "store2", ":", "/d"], ["/dev/sdc"]),
        (["disk", "show", "m"], ["m1:/dev/sdb"]),
        (["cluster", "init", "--role", "=", "st"], ["storage"]),
        (["cluster", "init", "--role", "="], ["manager", "storage", "head"]),
    ],
)
def test_completion_in_bash(program: Path, words: list[str], offered: list[str]) -> None:
    typed = shlex.join(["vastskyctl", *words])
    script = f"""
        source {COMPLETIONS / "vastskyctl"}
        COMP_WORDS=({typed}) COMP_CWORD={len(words)}
        $(complete -p vastskyctl | sed "s/.* -F \\([^ ]*\\) .*/\\1/") vastskyctl
        printf "%s\\n" "${{COMPREPLY[@]}}"
    """
    assert in_shell(program, "bash", "--norc", "-c", script).split() == offered


def test_bash_is_given_names_as_they_have_to_be_typed(cluster: FakeCluster, program: Path) -> None:
    """udev writes what it does not like in a name of a disk as backslash, x, and two digits."""
    odd = msgspec.structs.replace(cluster.volumes[0], name=r"od\x20d $(x)")
    cluster.volumes = (odd,)
    script = f"""
        source {COMPLETIONS / "vastskyctl"}
        COMP_WORDS=(vastskyctl volume show o) COMP_CWORD=3
        _vastskyctl_completion vastskyctl
        eval "set -- ${{COMPREPLY[0]}}"
        printf "%s|" "$@"
    """
    assert in_shell(program, "bash", "--norc", "-c", script) == rf"{odd.name}|"


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("volume show ", ["data", "empty"]),
        ("volume attach data m", ["m1"]),
        ("disk show m1:", ["m1:/dev/sdb"]),
        ("volume create data 1G --st", ["--standby\tA head that takes"]),
        ("vol", ["volume\tVolumes: made of extents of many disks,"]),
    ],
)
def test_completion_in_fish(program: Path, line: str, offered: list[str]) -> None:
    script = f"source {COMPLETIONS / 'vastskyctl.fish'}; complete -C 'vastskyctl {line}'"
    said = in_shell(program, "fish", "--no-config", "-c", script).splitlines()
    assert len(said) == len(offered)
    assert all(map(str.startswith, said, offered))


ZSH = """
    zmodload zsh/zpty
    zpty shell zsh -f -i
    zpty -w shell "PS1= fpath=({directory} $fpath); autoload -Uz compinit; compinit -u -D"
    zpty -w shell "zstyle ':completion:*' list-colors ''; LISTMAX=1000; echo rea''dy"
    zpty -r -m shell said '*ready*'
    zpty -w -n shell $'vastskyctl {line}\t'
    zpty -r -m shell said '*{wanted}*' && print -- found
    zpty -d shell
"""


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("volume show d", "vastskyctl volume show data"),
        ("volume att", "volume attach"),
        ("volume create data 1G --st", "data 1G --standby"),
        ("disk show m", "disk show m1:/dev/sdb"),
        ("disk show m1:", "disk show m1:/dev/sdb"),
        ("volume ", "Compare the copies of attached"),
    ],
)
def test_completion_in_zsh(program: Path, line: str, wanted: str) -> None:
    script = ZSH.format(directory=COMPLETIONS, line=line, wanted=wanted)
    assert in_shell(program, "zsh", "-f", "-c", script) == "found\n"


def test_completion_never_fails(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> None:
    cluster.fault = KeyError("inside")
    assert complete("volume", "show", "") == []
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    assert complete("volume", "show", "") == []


ASKED = {
    "bash": "source {file}; COMP_WORDS=(vastskyctl v) COMP_CWORD=1"
    " _vastskyctl_completion vastskyctl",
    "fish": "source {file}; complete -C 'vastskyctl v'",
    "zsh": "compdef() {{}}; words=(vastskyctl v) CURRENT=2; source {file}; _vastskyctl_completion",
}
FILES = {"bash": "vastskyctl", "fish": "vastskyctl.fish", "zsh": "_vastskyctl"}
BARE = {"bash": "--norc", "fish": "--no-config", "zsh": "-f"}


@pytest.mark.parametrize("shell", ASKED)
def test_a_program_that_fails_writes_nothing_between_what_is_typed(
    program: Path, shell: str
) -> None:
    """In the middle of an upgrade, say. `in_shell` looks at standard error."""
    program.write_text("#!/bin/sh\necho Traceback >&2; exit 1\n")
    script = ASKED[shell].format(file=COMPLETIONS / FILES[shell])
    assert in_shell(program, shell, BARE[shell], "-c", f"{script}; true") == ""


@pytest.mark.usefixtures("bus_address")
def test_completion_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stopped vastskyd meant it: a press of a key must not bring it back."""
    called: list[Message] = []
    call = MessageBus.call

    async def noted(bus: MessageBus, message: Message) -> Message | None:
        called.append(message)
        return await call(bus, message)

    monkeypatch.setattr(MessageBus, "call", noted)
    assert complete("volume", "show", "") == []
    assert complete("disk", "enrol", "") == []
    to_vastskyd = [each for each in called if each.destination == BUS_NAME]
    assert to_vastskyd
    assert all(MessageFlag.NO_AUTOSTART in each.flags for each in to_vastskyd)


def test_completion_asks_no_more_of_who_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster
) -> None:
    """Each question may take its second."""
    cluster.fault = UnreachableError("the manager did not answer")
    assert complete("disk", "enrol", "") == []
    assert len(cluster.asked) == 1


def test_shipped_completions_call_the_program() -> None:
    shipped = {path.name: path.read_text() for path in COMPLETIONS.iterdir()}
    assert set(shipped) == {"vastskyctl", "_vastskyctl", "vastskyctl.fish"}
    shells = {"vastskyctl": "bash", "_vastskyctl": "zsh", "vastskyctl.fish": "fish"}
    for name, script in shipped.items():
        assert f"_VASTSKYCTL_COMPLETE={shells[name]}_complete" in script
