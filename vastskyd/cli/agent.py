"""Who asks for a password on this terminal while a call is under way: pkttyagent(1).

polkit has somebody asked by the agent that is registered for the caller. A graphical session has
one, and that one comes first; over ssh there is none. So vastskyctl brings one, as systemctl does.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vastskyd.cli.output import say

PROGRAM = "/usr/bin/pkttyagent"
REGISTER_S = 10.0  # polkitd may have to be started first
END_S = 2.0
_PATH = "/usr/bin:/bin"
# Which bus, and how to speak to the person.
_HANDED_ON = ("DBUS_SYSTEM_BUS_ADDRESS", "LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "TERM")
_PR_SET_PDEATHSIG = 1  # prctl(2), which Python has not


@dataclass(frozen=True)
class _Agent:
    """`registered` is closed at its other end when it is, or has ended. `before`: how the terminal
    was."""

    process: subprocess.Popen[bytes]
    registered: int
    terminal: int
    before: list[Any]


@contextmanager
def asking() -> Iterator[None]:
    """Within, whoever sits at this terminal can be asked, if there is anybody to ask and anything
    to ask for. Afterwards the terminal is as it was, and nothing is left behind."""
    agent = _start() if _can_ask() else None
    if agent is None:
        yield
        return
    try:
        _wait_until_registered(agent)
        yield
    finally:
        _end(agent)


def _can_ask() -> bool:
    return (
        os.geteuid() != 0
        and sys.stdin is not None
        and sys.stdin.isatty()
        and _in_foreground(sys.stdin.fileno())
        and os.access(PROGRAM, os.X_OK)
    )


def _in_foreground(terminal: int) -> bool:
    """Who reads from a terminal in the background is stopped by it."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it is not this session's
        return False


def _start() -> _Agent | None:
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    registered, theirs = os.pipe()
    command = [PROGRAM, "--process", f"{os.getpid()},{_start_time()}", "--notify-fd", str(theirs)]
    try:
        process = subprocess.Popen(
            [*command, "--fallback"],
            pass_fds=(theirs,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what it could not do, vastskyd's answer says
            env={"PATH": _PATH} | {k: os.environ[k] for k in _HANDED_ON if k in os.environ},
            cwd="/",
            preexec_fn=_ended_with(os.getpid()),  # noqa: PLW1509 - there are no threads
        )
    except (OSError, subprocess.SubprocessError):
        os.close(registered)
        return None
    finally:
        os.close(theirs)
    return _Agent(process, registered, terminal, before)


def _start_time() -> str:
    """With it nobody who is given this process's number later is taken for it."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()[19]


def _ended_with(maker: int) -> Callable[[], None]:
    """To be called in the child: the kernel ends it when its maker ends, however that is."""
    import ctypes  # noqa: PLC0415 - slow to load, and only for this

    prctl = ctypes.CDLL(None).prctl

    def end_with_maker() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != maker:
            os._exit(1)  # it has ended just now

    return end_with_maker


def _wait_until_registered(agent: _Agent) -> None:
    try:
        select.select([agent.registered], [], [], REGISTER_S)
    finally:
        os.close(agent.registered)


def _end(agent: _Agent) -> None:
    asks = _terminal(agent) != agent.before
    agent.process.terminate()
    agent.process.send_signal(signal.SIGCONT)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            agent.process.wait(END_S)
    finally:
        agent.process.kill()
        agent.process.wait()
        if _terminal(agent) != agent.before and _in_foreground(agent.terminal):
            termios.tcsetattr(agent.terminal, termios.TCSADRAIN, agent.before)
        if asks:
            say(err=True)  # what comes next does not stand behind its question


def _terminal(agent: _Agent) -> list[Any]:
    try:
        return termios.tcgetattr(agent.terminal)
    except termios.error:  # it is gone
        return agent.before
