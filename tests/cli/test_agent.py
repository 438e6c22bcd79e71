"""Who is not root is asked for a password on the terminal, by an agent that lasts as long as the
call; a program stands in for pkttyagent."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_terminal import LIMIT_S, Terminal
from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.fake_polkit import FakePolkit
from tests.dbus.private_bus import private_bus
from tests.dbus.somebody_else import NOBODY, needs_root, reachable_directory
from vastskyd.core import api
from vastskyd.dbus.server import serve

pytestmark = needs_root

# As in tests.dbus.somebody_else.
PERSON = """
import ctypes, os, sys
from vastskyd.cli import agent, client, progress
from vastskyd.cli.main import main
agent.PROGRAM = {agent!r}
agent.REGISTER_S, agent.END_S = {register_s}, 0.5
os.setgid({uid}); os.setuid({uid})
main(prog_name="vastskyctl")
"""
# It notes what it does in a file, and writes "Password: " with the terminal's echo off, as the real
# one does when polkit has it ask.
AGENT = """\
#!/bin/bash
note() { echo "$*" >>@/noted; }
trap 'note ended; kill $!; exit' TERM
note "$$" "$*"
env >@/environment
while (($#)); do
    [[ $1 = --notify-fd ]] && fd=$2
    shift
done
sleep 0.2
note registered
[[ -e @/never ]] || exec {fd}>&-
stty -echo </dev/tty
echo -n "Password: " >/dev/tty
sleep 20 &
wait
"""


class Desk:
    """Where people sit: vastskyd, polkit, and what stands in for pkttyagent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cluster = FakeCluster()
        self.polkit = FakePolkit()
        self.agent = directory / "pkttyagent"
        self.agent.write_text(AGENT.replace("@", str(directory)))
        self.agent.chmod(0o755)

    def program(self, uid: int = NOBODY, register_s: float = LIMIT_S) -> list[str]:
        person = PERSON.format(agent=str(self.agent), uid=uid, register_s=register_s)
        return [sys.executable, "-c", person]

    def terminal(self, *arguments: str, uid: int = NOBODY, register_s: float = LIMIT_S) -> Terminal:
        return Terminal(
            *arguments, program=self.program(uid, register_s),
            more={"SECRET": "x", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    def noted(self) -> list[str]:
        noted = self.directory / "noted"
        return noted.read_text().splitlines() if noted.exists() else []

    def asks_for(self) -> int:
        """vastskyctl's process id."""
        return int(self.noted()[0].split()[2].split(",")[0])

    def until_asked(self) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not self.polkit.asked:
            assert time.monotonic() < end_s
            time.sleep(0.01)

    def is_gone(self) -> bool:
        """The agent."""
        agent = Path("/proc") / self.noted()[0].split()[0]
        end_s = time.monotonic() + LIMIT_S
        while agent.exists() and time.monotonic() < end_s:
            time.sleep(0.01)
        return not agent.exists()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    with reachable_directory() as directory, private_bus(directory) as address:
        os.chmod(directory, 0o777)
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        there = Desk(directory)
        stop, ready = asyncio.Event(), threading.Event()
        loop = asyncio.new_event_loop()

        async def run() -> None:
            await there.polkit.start(address)
            server = await serve(there.cluster, address)
            ready.set()
            await stop.wait()
            await server.close()
            await there.polkit.stop()

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
        thread.start()
        assert ready.wait(LIMIT_S)
        yield there
        loop.call_soon_threadsafe(stop.set)
        thread.join(LIMIT_S)
        assert not thread.is_alive()
        loop.close()


def test_somebody_is_asked_while_the_call_lasts(desk: Desk) -> None:
    desk.polkit.answer = (True, False)
    with desk.terminal("volume", "detach", "data", "--no-wait") as terminal:
        assert terminal.finish() == 0
        assert "has begun" in terminal.said
        assert desk.is_gone()
        assert terminal.echoes
        begun, *then = desk.noted()
        asked = rf"\d+ --process {terminal.process.pid},\d+ --notify-fd \d+ --fallback"
        assert re.fullmatch(asked, begun)
        assert then == ["registered", "ended"]
    assert [flags for *_, flags in desk.polkit.asked] == [1]
    assert isinstance(desk.cluster.changes()[0], api.DetachVolume)


def test_it_is_waited_for_until_it_is_registered(desk: Desk) -> None:
    desk.polkit.silent = True
    with desk.terminal("volume", "delete", "data", "--yes") as terminal:
        desk.until_asked()
        assert desk.noted()[1:] == ["registered"]
        terminal.read_until("Password: ")
        terminal.until_silent()


def test_its_environment_is_clean(desk: Desk) -> None:
    with desk.terminal("volume", "detach", "data") as terminal:
        assert terminal.finish() == 6
    lines = (desk.directory / "environment").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines} - {"_", "PWD", "SHLVL"}  # the shell's own
    assert names <= {"PATH", "TERM", "LC_ALL", "LANG", "DBUS_SYSTEM_BUS_ADDRESS"}
    assert {"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"} <= set(lines)


def test_it_ends_with_a_call_that_is_refused(desk: Desk) -> None:
    with desk.terminal("volume", "delete", "data", "--yes") as terminal:
        assert terminal.finish() == 6
        assert desk.is_gone()
        assert terminal.echoes
        assert "Password: \r\nvastskyctl: the password was wrong" in terminal.said
    assert not desk.cluster.changes()


def test_it_ends_when_the_person_presses_ctrl_c(desk: Desk) -> None:
    desk.polkit.silent = True
    with desk.terminal("volume", "delete", "data", "--yes") as terminal:
        desk.until_asked()
        terminal.read_until("Password: ")
        terminal.write("\x03")
        assert terminal.finish() == 130
        assert "Traceback" not in terminal.said
        assert desk.is_gone()
        assert terminal.echoes
    assert not desk.cluster.changes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_does_not_outlive_vastskyctl(desk: Desk, number: signal.Signals) -> None:
    """Of which the terminal's shell sees the end."""
    desk.polkit.silent = True
    shell = ["bash", "-c", '"$@"; echo "status $?"; sleep 20', "bash"]
    program = [*shell, *desk.program(), "volume", "delete", "data", "--yes"]
    with Terminal(program=program) as terminal:
        desk.until_asked()
        terminal.read_until("Password: ")
        os.kill(desk.asks_for(), number)
        terminal.read_until(f"status {128 + number}")
        assert desk.is_gone()
    assert desk.noted()[-1] == "ended", "it was not killed, and could tidy up"


def test_one_that_does_not_want_to_end_is_killed(desk: Desk) -> None:
    desk.agent.write_text(desk.agent.read_text().replace("trap '", "trap '' TERM INT; : '"))
    with desk.terminal("volume", "delete", "data", "--yes") as terminal:
        assert terminal.finish() == 6
        assert desk.is_gone()
        assert terminal.echoes


def test_one_that_does_not_register_is_not_waited_for_long(desk: Desk) -> None:
    (desk.directory / "never").touch()
    with desk.terminal("volume", "delete", "data", "--yes", register_s=0.5) as terminal:
        assert terminal.finish() == 6
        assert desk.is_gone()
        assert terminal.echoes
    assert len(desk.polkit.asked) == 1


@pytest.mark.parametrize("spoilt", ["missing", "no program", "ends at once"])
def test_without_one_the_answer_is_as_without_a_person(desk: Desk, spoilt: str) -> None:
    if spoilt == "missing":
        desk.agent.unlink()
    else:
        desk.agent.write_text("#!/bin/false\n" if spoilt == "ends at once" else "\0")
    desk.polkit.answer = (False, True)
    with desk.terminal("volume", "detach", "data") as terminal:
        assert terminal.finish() == 6
        assert "nobody was asked for it" in terminal.said
        assert "Traceback" not in terminal.said


@pytest.mark.parametrize(
    ("arguments", "uid", "flags"),
    [
        (["volume", "detach", "data"], 0, None),
        (["volume", "list"], NOBODY, None),
        (["job", "wait", "j1"], NOBODY, None),
        (["cluster", "recover", "--dry-run"], NOBODY, None),
        (["--no-ask-password", "volume", "detach", "data"], NOBODY, 0),
    ],
    ids=str,
)
def test_nobody_is_asked_without_need(
    desk: Desk, arguments: list[str], uid: int, flags: int | None
) -> None:
    """And root is not asked at polkit either."""
    desk.polkit.answer = (True, False)
    with desk.terminal(*arguments, uid=uid) as terminal:
        assert terminal.finish() == 0
    assert desk.noted() == []
    assert [asked[3] for asked in desk.polkit.asked] == ([] if flags is None else [flags])


def test_nobody_is_asked_without_a_terminal(desk: Desk) -> None:
    done = subprocess.run(
        [*desk.program(), "volume", "detach", "data"], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 6
    assert desk.noted() == []
    assert [flags for *_, flags in desk.polkit.asked] == [0]


def test_nobody_is_asked_in_the_background(desk: Desk) -> None:
    """Whoever reads from the terminal there is stopped."""
    in_background = 'set -m; "$@" & wait $!; echo "status $?"'
    program = ["bash", "-c", in_background, "bash", *desk.program(), "volume", "detach", "data"]
    with Terminal(program=program) as terminal:
        terminal.read_until("status 6")
    assert desk.noted() == []
