"""Vagrant's machines as the tests use them, by pytest-vagrant: it knows one machine a Vagrantfile,
here each of them is named to vagrant."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from tests.lab.host import say
from tests.vagrant.box import NAME, Box
from vastskyd.core import answers
from vastskyd.core.model import Record

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("head1", "store1", "store2")
ALL = ("mgr1", "head1", "head2", "store1", "store2", "store3")
NETWORKS = ("10.77.0", "10.78.0")
UP_LIMIT_S = 900
VAGRANT_LIMIT_S = 300
RUN_LIMIT_S = 120
POLL_S = 2.0

A = TypeVar("A", bound=Record)


def vagrant(*words: str, limit_s: float = VAGRANT_LIMIT_S) -> str:
    """What vagrant says; it says why it failed, too."""
    done = subprocess.run(
        ["vagrant", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )
    if done.returncode != 0:
        said = "\n".join(line for line in done.stdout.splitlines() if "\tfrom " not in line)
        pytest.fail(f"vagrant {' '.join(words)}: exit {done.returncode}\n{said[-4000:]}")
    return done.stdout


class Shell:
    """How pytest-vagrant's Machine runs vagrant: of this machine."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, cmd: str, cwd: str) -> str:
        done = subprocess.run(
            [*cmd.split(), self._name],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=VAGRANT_LIMIT_S,
            check=True,
        )
        return done.stdout


class Host:
    """One machine, and a session on it for as long as it is up."""

    def __init__(self, name: str) -> None:
        import pytest_vagrant  # noqa: PLC0415 - ./run test-vagrant installs it, nobody else needs it

        self.name = name
        self._machine = pytest_vagrant.Machine(
            box=NAME,
            name=name,
            version=None,
            slug=name,
            cwd=str(ROOT),
            shell=Shell(name),
            ssh_factory=pytest_vagrant.SSH,
        )
        self._session: Any = None
        self._worker = ThreadPoolExecutor(1)

    @property
    def addresses(self) -> str:
        """As vastskyctl takes them."""
        number = 10 + ALL.index(self.name)
        return " ".join(f"--address {network}.{number}" for network in NETWORKS)

    @property
    def is_running(self) -> bool:
        return bool(self._machine.status.running)

    def run(self, command: str, limit_s: float = RUN_LIMIT_S) -> str:
        """By root; what it prints. A command that fails is pytest-vagrant's RunResultError, with
        all that it said."""
        if self._session is None:
            self._session = self._machine.ssh()
            self._session.open()
        quoted = command.replace("'", "'\\''")
        words = f"sudo timeout -k 5 {limit_s:.0f} bash -c '{quoted}'"
        try:
            # A host that is gone does not end the session: it just never answers.
            result = self._worker.submit(self._session.run, words).result(limit_s + 30)
        except NotInTime:
            self.leave()
            raise
        return str(result.stdout)

    def ask(self, answer: type[A], words: str) -> A:
        """What vastskyctl tells a program, as its type."""
        return msgspec.json.decode(self.run(f"vastskyctl {words} --json"), type=answer)

    def leave(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def cut_power(self) -> None:
        self.leave()
        vagrant("halt", "--force", self.name)

    def power_on(self) -> None:
        vagrant("up", self.name, limit_s=UP_LIMIT_S)

    def close(self) -> None:
        self.leave()
        self._worker.shutdown(wait=False)


class Hosts:
    """The machines of a test: the first is the manager, all heads are heads."""

    def __init__(self, names: Sequence[str]) -> None:
        self._hosts = {name: Host(name) for name in names}

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    @property
    def all(self) -> list[Host]:
        return list(self._hosts.values())

    @property
    def manager(self) -> Host:
        return self.all[0]

    @property
    def heads(self) -> list[Host]:
        return [host for host in self.all if host.name.startswith("head")]

    @property
    def stores(self) -> list[Host]:
        return [host for host in self.all if host.name.startswith("store")]

    def up(self) -> None:
        begun = time.monotonic()
        vagrant("up", *self._hosts, limit_s=UP_LIMIT_S)
        say(f"{' '.join(self._hosts)} are up after {time.monotonic() - begun:.0f} s")

    def destroy(self) -> None:
        """Whatever became of them."""
        for host in self.all:
            host.close()
        vagrant("destroy", "--force")

    def volume(self, name: str) -> answers.VolumeView:
        (found,) = self.manager.ask(answers.VolumeList, "volume list").volumes
        assert found.name == name
        return found

    def save_journals(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for host in self.all:
            if host.is_running:
                said = host.run("journalctl -b --no-pager -n 2000")
                (folder / f"{host.name}.journal").write_text(said)


def chosen(box: Box) -> tuple[str, ...]:
    """All where they are fast; VASTSKY_VAGRANT_HOSTS says otherwise."""
    wanted = os.environ.get("VASTSKY_VAGRANT_HOSTS", "").split()
    return tuple(wanted) or (ALL if box.accel == "kvm" else SMALL)


def eventually(what: str, check: Callable[[], Any], limit_s: float) -> None:
    """Asks until it is so."""
    begun = time.monotonic()
    while not check():
        if time.monotonic() - begun > limit_s:
            pytest.fail(f"not within {limit_s:.0f} s: {what}")
        time.sleep(POLL_S)
    say(f"{what}: after {time.monotonic() - begun:.0f} s")
