"""The lab by hand: `python -m tests.lab up`, then `run`, `ssh`, `kill`, … and `down`."""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import select
import shutil
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import server
from .host import LabError, cache_dir, labs_dir
from .template import DEFAULT_MEMORY_MIB

Arguments = argparse.Namespace


def do_up(arguments: Arguments) -> int:
    """Bring a lab up."""
    server.start(arguments.name, arguments.hosts, arguments.memory, arguments.deb)
    return do_list(arguments)


def do_hold(arguments: Arguments) -> int:
    """Hold a lab in this process (what `up` starts)."""
    server.hold(arguments.name, arguments.hosts, arguments.memory, arguments.deb)
    return 0


def do_list(arguments: Arguments) -> int:
    """Show the hosts."""
    others = [name for name in server.running() if name != arguments.name]
    if arguments.name not in server.running():
        print(f"no lab {arguments.name}; running: {', '.join(others) or 'none'}")
        return 1
    reply = server.ask(arguments.name, {"op": "list"})
    print(f"lab {arguments.name}, files in {reply['folder']}")
    for host in reply["hosts"]:
        disks = " ".join(host["disks"])
        print(f"{host['name']:12} {host['state']:8} {host['A']:12} {host['B']:12} {disks}")
    if others:
        print(f"other labs: {', '.join(others)}")
    return 0


def do_run(arguments: Arguments) -> int:
    """Run a command in a host; several words are one command line for bash."""
    return run_in(arguments, " ".join(arguments.command), arguments.timeout, b"")


def run_in(arguments: Arguments, command: str, timeout_s: float, stdin: bytes) -> int:
    """Run a command in a host, show what it said and return its exit status."""
    order = {"op": "run", "host": arguments.host, "timeout": timeout_s, "command": command}
    text = base64.b64encode(stdin).decode()
    reply = server.ask(arguments.name, {**order, "stdin": text})
    sys.stdout.write(reply["stdout"])
    sys.stdout.flush()
    sys.stderr.write(reply["stderr"])
    if reply["exit"] == 124:
        print(f"lab: not done within {timeout_s:.0f} s", file=sys.stderr)
    code = int(reply["exit"]) if reply["exit"] is not None else 255
    return code if code >= 0 else 128 - code


def do_put(arguments: Arguments) -> int:
    """Copy a file into a host, or into all hosts (`all`)."""
    hosts = [] if arguments.host == "all" else [arguments.host]
    target = arguments.target
    if target.endswith("/"):
        target += Path(arguments.source).name
    source = str(Path(arguments.source).resolve())
    server.ask(arguments.name, {"op": "put", "hosts": hosts, "source": source, "path": target})
    return 0


def do_get(arguments: Arguments) -> int:
    """Copy a file out of a host."""
    target = str(Path(arguments.target).resolve())
    order = {"op": "get", "host": arguments.host, "path": arguments.source}
    server.ask(arguments.name, {**order, "target": target})
    return 0


def do_install(arguments: Arguments) -> int:
    """Install built Debian packages on all hosts, or on some."""
    debs = [str(Path(word).resolve()) for word in arguments.words if word.endswith(".deb")]
    if not debs:
        raise LabError("which packages? Name at least one file that ends in .deb")
    hosts = [word for word in arguments.words if not word.endswith(".deb")]
    server.ask(arguments.name, {"op": "install", "debs": debs, "hosts": hosts})
    return 0


def act(name: str, *fields: str) -> Callable[[Arguments], int]:
    """An order that is one act of a guest."""

    def do(arguments: Arguments) -> int:
        values = [getattr(arguments, field) for field in fields]
        order = {"op": "guest", "act": name, "host": arguments.host, "arguments": values}
        server.ask(arguments.name, order)
        return 0

    return do


def do_cut(arguments: Arguments) -> int:
    """Cut a host from a network."""
    return act("cut_silently" if arguments.silently else "cut_link", "network")(arguments)


def do_plug(arguments: Arguments) -> int:
    """Plug a disk in: a new one, or one that was unplugged."""
    order = {"op": "plug", "host": arguments.host, "disk": arguments.disk, "mib": arguments.mib}
    server.ask(arguments.name, order)
    return 0


def do_smart(arguments: Arguments) -> int:
    """Let a disk's SMART health fail, or be well again."""
    values: list[Any] = [arguments.disk, not arguments.well]
    order = {"op": "guest", "act": "smart_fail", "host": arguments.host, "arguments": values}
    server.ask(arguments.name, order)
    return 0


def do_bad(arguments: Arguments) -> int:
    """Let sectors of a disk fail, or serve again."""
    act_name = "heal_sectors" if arguments.well else "fail_sectors"
    values: list[Any] = [arguments.disk]
    if not arguments.well:
        values += [arguments.sector, True, arguments.writes]
    order = {"op": "guest", "act": act_name, "host": arguments.host, "arguments": values}
    server.ask(arguments.name, order)
    return 0


def do_console(arguments: Arguments) -> int:
    """Show a host's console."""
    path = labs_dir() / arguments.name / arguments.host / "console.log"
    if not path.exists():
        raise LabError(f"no console at {path}")
    sys.stdout.write(path.read_text(errors="replace"))
    return 0


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Give all keys to the guest."""
    old = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, old)


def do_ssh(arguments: Arguments) -> int:
    """Open a shell in a host; Ctrl-] leaves it. Without a terminal: run what is typed in."""
    if not sys.stdin.isatty():
        return run_in(arguments, "exec bash -ls", 3600, sys.stdin.buffer.read())
    columns, rows = shutil.get_terminal_size()
    order = {"op": "shell", "host": arguments.host, "rows": rows, "columns": columns}
    order["term"] = os.environ.get("TERM", "dumb")
    failed: list[str] = []
    with socket.socket(socket.AF_UNIX) as port:
        try:
            port.connect(str(labs_dir() / arguments.name / arguments.host / "shell.sock"))
        except OSError as error:
            raise LabError(f"{arguments.host}: no shell: {error}") from error

        def serve() -> None:
            try:
                server.ask(arguments.name, order)
            except LabError as error:
                failed.append(str(error))
            port.shutdown(socket.SHUT_RDWR)

        threading.Thread(target=serve, daemon=True).start()
        with raw_terminal():
            copy_terminal(port)
    if failed:
        raise LabError(failed[0])
    return 0


def copy_terminal(port: socket.socket) -> None:
    """Carry bytes between the terminal and the guest's shell."""
    sources: list[Any] = [port, sys.stdin]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if port in ready:
            data = port.recv(65536)
            if not data:
                return
            os.write(1, data)
        if sys.stdin in ready:
            keys = os.read(0, 4096)
            if keys == b"\x1d":
                return
            if not keys:
                return
            port.sendall(keys)


def do_down(arguments: Arguments) -> int:
    """Take a lab down."""
    server.stop(arguments.name)
    return 0


def do_clean(_arguments: Arguments) -> int:
    """Remove the cache."""
    if server.running():
        raise LabError(f"take these labs down first: {', '.join(server.running())}")
    shutil.rmtree(cache_dir())
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    default = os.environ.get("VASTSKY_LAB", "lab")

    def command(name: str, do: Callable[[Arguments], int], text: str, *words: str) -> Any:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--name", default=default, help=f"which lab (default: {default})")
        for word in words:
            made.add_argument(word)
        made.set_defaults(do=do)
        return made

    for name, do in (("up", do_up), ("hold", do_hold)):
        made = command(name, do, do.__doc__ or "")
        made.add_argument("--hosts", default=server.DEFAULT_HOSTS, help="NAME[:DISKS[xMIB]],…")
        made.add_argument("--memory", type=int, default=DEFAULT_MEMORY_MIB, help="MiB of a host")
        made.add_argument(
            "--deb", type=Path, nargs="+", action="extend", default=[], help="install"
        )
    command("list", do_list, "show the hosts")
    made = command("run", do_run, "run a command in a host", "host")
    made.add_argument("--timeout", type=float, default=60, help="seconds")
    made.add_argument("command", nargs=argparse.REMAINDER)
    command("ssh", do_ssh, "open a shell in a host; Ctrl-] leaves it", "host")
    command("put", do_put, "copy a file into a host, or into `all`", "host", "source", "target")
    command("get", do_get, "copy a file out of a host", "host", "source", "target")
    made = command("install", do_install, "install Debian packages on all hosts or some")
    made.add_argument("words", nargs="+", metavar="X.deb|HOST")
    command("kill", act("kill"), "cut the power of a host", "host")
    command("poweron", act("power_on"), "boot a host from its disks", "host")
    command("reboot", act("reboot"), "reboot a host in good order", "host")
    command("poweroff", act("shutdown"), "power a host off in good order", "host")
    command("pause", act("pause"), "stop a host's CPU", "host")
    command("resume", act("resume"), "let a paused host go on", "host")
    made = command("cut", do_cut, "cut a host from a network", "host")
    made.add_argument("network", choices=["A", "B"])
    made.add_argument("--silently", action="store_true", help="the carrier stays")
    made = command("heal", act("restore", "network"), "end a cut", "host")
    made.add_argument("network", choices=["A", "B"])
    made = command("plug", do_plug, "plug a disk in: a new or an unplugged one", "host", "disk")
    made.add_argument("--mib", type=int, default=256, help="size of a new disk")
    command("unplug", act("unplug_disk", "disk"), "pull a disk out", "host", "disk")
    made = command("smart", do_smart, "let a disk's SMART health fail", "host", "disk")
    made.add_argument("--well", action="store_true", help="healthy again")
    made = command("bad", do_bad, "let sectors of a disk fail", "host", "disk")
    made.add_argument("sector", type=int, nargs="*", help="of 512 bytes; none: all")
    made.add_argument("--writes", action="store_true", help="writes fail too")
    made.add_argument("--well", action="store_true", help="all serve again")
    command("console", do_console, "show a host's console", "host")
    command("down", do_down, "take the lab down")
    command("clean", do_clean, "remove the cache")
    return top


def main() -> int:
    """Do what the command line says."""
    arguments = parser().parse_args()
    try:
        return int(arguments.do(arguments))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
