"""A lab that stays: a process in the background holds it, a unix socket takes orders."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .disks import MIB, Disk
from .host import LabError, labs_dir, read_json, say
from .lab import Lab, start_time, sweep

Message = dict[str, Any]
DEFAULT_HOSTS = "mgr1,head1,head2,store1:2,store2:2,store3:2"
SOCKET = "control.sock"


def parse_hosts(text: str) -> dict[str, list[Disk]]:
    """Hosts as written by hand: `mgr1,store1:2,store2:3x512` (disks, and MiB of each)."""
    hosts: dict[str, list[Disk]] = {}
    for word in text.split(","):
        name, _, disks = word.strip().partition(":")
        count, _, size = disks.partition("x")
        try:
            mib = int(size or 256)
            hosts[name] = [Disk(f"d{n + 1}", mib * MIB) for n in range(int(count or 0))]
        except ValueError:
            raise LabError(f"{word!r}: write NAME, NAME:DISKS or NAME:DISKSxMIB") from None
    return hosts


class Server:
    """Takes orders for one lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.ended = threading.Event()
        self._orders: dict[str, Callable[[Message], Message]] = {
            "list": self._list,
            "run": self._run,
            "put": self._put,
            "get": self._get,
            "install": self._install,
            "shell": self._shell,
            "guest": self._guest,
            "plug": self._plug,
            "down": self._down,
        }

    def serve(self, path: Path) -> None:
        """Take orders until one of them, or a signal, ends the lab."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(64)
            listener.settimeout(0.5)
            while not self.ended.is_set():
                with contextlib.suppress(TimeoutError):
                    client, _ = listener.accept()
                    threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(None)
        with client, client.makefile("rwb") as stream, contextlib.suppress(OSError):
            order = json.loads(stream.readline())
            try:
                reply = self._orders[order["op"]](order)
            except LabError as error:
                reply = {"error": str(error)}
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                reply = {"error": f"{type(error).__name__}: {error}"}
            stream.write(json.dumps(reply).encode() + b"\n")

    def _list(self, _order: Message) -> Message:
        hosts = [
            {
                "name": guest.name,
                "state": guest.state(),
                "A": guest.address("A"),
                "B": guest.address("B"),
                "disks": guest.disks,
            }
            for guest in self.lab.guests.values()
        ]
        return {"hosts": hosts, "folder": str(self.lab.folder)}

    def _run(self, order: Message) -> Message:
        stdin = base64.b64decode(order["stdin"])
        guest = self.lab[order["host"]]
        result = guest.run(order["command"], order["timeout"], check=False, stdin=stdin)
        return {
            "exit": 124 if result.timed_out else result.exit,
            "stdout": result.stdout,
            "stderr": result.stderr,
        }

    def _put(self, order: Message) -> Message:
        source = Path(order["source"])
        data = source.read_bytes()
        mode = source.stat().st_mode & 0o777
        self.lab.each(lambda guest: guest.put(order["path"], data, mode), order["hosts"])
        return {}

    def _get(self, order: Message) -> Message:
        Path(order["target"]).write_bytes(self.lab[order["host"]].get(order["path"]))
        return {}

    def _install(self, order: Message) -> Message:
        self.lab.install([Path(deb) for deb in order["debs"]], order["hosts"])
        return {}

    def _shell(self, order: Message) -> Message:
        keys = ("rows", "columns", "term")
        arguments = {key: order[key] for key in keys}
        self.lab[order["host"]].agent.call("shell", timeout_s=86400, **arguments)
        return {}

    def _guest(self, order: Message) -> Message:
        """One of the guest's own acts, by its name."""
        acts = (
            "kill", "power_on", "reboot", "shutdown", "pause", "resume", "cut_link",
            "cut_silently", "restore", "unplug_disk", "smart_fail",
            "fail_sectors", "heal_sectors",
        )  # fmt: skip
        if order["act"] not in acts:
            raise LabError(f"no such act: {order['act']}")
        getattr(self.lab[order["host"]], order["act"])(*order["arguments"])
        return {}

    def _plug(self, order: Message) -> Message:
        guest = self.lab[order["host"]]
        known = order["disk"] in guest.known_disks
        guest.plug_disk(order["disk"] if known else Disk(order["disk"], order["mib"] * MIB))
        return {}

    def _down(self, _order: Message) -> Message:
        self.lab.down()
        self.ended.set()
        return {}


def ask(name: str, order: Mapping[str, Any]) -> Message:
    """Give an order to a running lab."""
    path = labs_dir() / name / SOCKET
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            raise LabError(f"no lab {name}: start it with: python -m tests.lab up") from None
        with client.makefile("rwb") as stream:
            stream.write(json.dumps(order).encode() + b"\n")
            stream.flush()
            line = stream.readline()
    if not line:
        raise LabError(f"lab {name} went away")
    reply: Message = json.loads(line)
    if "error" in reply:
        raise LabError(reply["error"])
    return reply


def hold(name: str, hosts: str, memory_mib: int, debs: Sequence[Path]) -> None:
    """Bring a lab up and hold it until it is taken down: the process in the background."""
    lab = Lab(name, memory_mib)

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    try:
        lab.up(parse_hosts(hosts), debs)
        server = Server(lab)
        say("ready")
        server.serve(lab.folder / SOCKET)
    finally:
        lab.down()


def start(name: str, hosts: str, memory_mib: int, debs: Sequence[Path]) -> None:
    """Start the process that holds a lab and wait until the lab is ready."""
    sweep()
    folder = labs_dir() / name
    if folder.exists():
        raise LabError(f"lab {name} is there already: take it down, or choose another --name")
    parse_hosts(hosts)
    log = labs_dir() / f"{name}.log"
    argv = [sys.executable, "-m", __package__, "hold", "--name", name]
    argv += ["--hosts", hosts, "--memory", str(memory_mib)]
    for deb in debs:
        argv += ["--deb", str(deb.resolve())]
    with log.open("wb") as out:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        follow(process, log, folder / SOCKET)
    except BaseException:
        process.terminate()
        raise


def follow(process: subprocess.Popen[bytes], log: Path, ready_file: Path) -> None:
    """Show what a starting lab says until it is ready; each of its steps has a bound."""
    shown = 0
    ready = False
    while not ready:
        ready = ready_file.exists()
        ended = process.poll() is not None
        text = log.read_text(errors="replace")
        sys.stderr.write(text[shown:])
        shown = len(text)
        if ended:
            raise LabError("the lab did not come up")
        time.sleep(0.1)


def stop(name: str) -> None:
    """Take a lab down, even one whose process does not answer."""
    folder = labs_dir() / name
    with contextlib.suppress(LabError, OSError):
        ask(name, {"op": "down"})
    if (folder / "owner.json").exists():
        owner = read_json(folder / "owner.json")
        pid = int(owner["pid"])
        if start_time(pid) == owner["started"]:
            os.kill(pid, signal.SIGKILL)
            for _ in range(50):
                if not start_time(pid):
                    break
                time.sleep(0.1)
    sweep()
    (labs_dir() / f"{name}.log").unlink(missing_ok=True)
    if folder.exists():
        raise LabError(f"lab {name}: {folder} is still there")


def running() -> list[str]:
    """The names of the labs on this machine that take orders."""
    return sorted(path.parent.name for path in labs_dir().glob(f"*/{SOCKET}"))
