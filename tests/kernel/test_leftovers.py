"""What an earlier vastskyd has left in its unit's control group."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vastskyd.kernel.leftovers import end_leftovers

OWN = {"SYSTEMD_EXEC_PID": str(os.getpid())}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as program:
        yield program
        program.kill()


class Tree:
    """/proc and /sys/fs/cgroup, as far as they are looked at."""

    def __init__(self, root: Path, group: str, *pids: int) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/cgroup").write_text(f"0::{group}\n")
        directory = self.cgroups / group.lstrip("/")
        directory.mkdir(parents=True)
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def end(self, environ: dict[str, str]) -> tuple[str, ...]:
        return end_leftovers(environ, self.proc, self.cgroups)


def test_all_others_in_the_units_group_are_ended(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    tree = Tree(tmp_path, "/system.slice/vastskyd.service", os.getpid(), sleeper.pid)
    (tree.proc / str(sleeper.pid)).mkdir()
    (tree.proc / str(sleeper.pid) / "comm").write_text("mdadm\n")
    assert tree.end(OWN) == (f"mdadm (pid {sleeper.pid})",)
    assert sleeper.wait(10) == -9
    assert tree.end(OWN) == ()


@pytest.mark.parametrize("environ", [{}, {"SYSTEMD_EXEC_PID": "1"}, {"SYSTEMD_EXEC_PID": "x"}])
def test_what_systemd_did_not_start_ends_nobody(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]", environ: dict[str, str]
) -> None:
    tree = Tree(tmp_path, "/system.slice/vastskyd.service", os.getpid(), sleeper.pid)
    assert tree.end(environ) == ()
    assert sleeper.poll() is None


def test_a_session_is_no_service(tmp_path: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    tree = Tree(tmp_path, "/user.slice/session-1.scope", os.getpid(), sleeper.pid)
    assert tree.end(OWN) == ()
    assert sleeper.poll() is None
