#!/usr/bin/python3
"""Runs in the guest and does what the lab asks over a virtio-serial port.

One JSON object a line each way. A request has `id` and `op`; the reply repeats the id.
Each request is served by a thread of its own, so a command that hangs blocks no other.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

AGENT_PORT = "vastsky.agent"
SHELL_PORT = "vastsky.shell"
PORTS = "/sys/class/virtio-ports"
RNDRESEEDCRNG = 0x5207
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFHWADDR = 0x8914, 0x8916, 0x891C, 0x8924
IFF_UP = 1
MS_BIND = 4096
LIBC = ctypes.CDLL(None, use_errno=True)
OUTPUT_LIMIT = 8 << 20

Message = dict[str, Any]


def port_path(name: str) -> str:
    """The device of a virtio-serial port; needs no udev, so the agent can start before it."""
    for entry in os.listdir(PORTS):
        if read_text(f"{PORTS}/{entry}/name").strip() == name:
            return f"/dev/{entry}"
    raise FileNotFoundError(f"no virtio-serial port {name}")


def read_output(descriptor: int) -> bytes:
    """Everything a command wrote to its memory file, within the limit."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, min(size, OUTPUT_LIMIT), max(0, size - OUTPUT_LIMIT))


def do_run(request: Message) -> Message:
    """Run a command with a time limit.

    Output goes to memory files and not to pipes: a background process that keeps them
    open holds nobody up.
    """
    begun = time.monotonic()
    out = os.memfd_create("stdout")
    err = os.memfd_create("stderr")
    argv = request["argv"]
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if request.get("stdin") else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd="/root",
            start_new_session=True,
        )
        timed_out = wait_bounded(process, request)
        return {
            "exit": process.returncode,
            "timed_out": timed_out,
            "stdout": base64.b64encode(read_output(out)).decode(),
            "stderr": base64.b64encode(read_output(err)).decode(),
            "duration": time.monotonic() - begun,
        }
    finally:
        os.close(out)
        os.close(err)


def wait_bounded(process: subprocess.Popen[bytes], request: Message) -> bool:
    """Wait for a command; kill its session at the limit. True when the limit was reached.

    A command in uninterruptible sleep survives the kill: it is then left behind.
    """
    stdin = base64.b64decode(request["stdin"]) if request.get("stdin") else None
    try:
        process.communicate(stdin, timeout=request["timeout"])
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        return True
    return False


def do_put(request: Message) -> Message:
    """Write one piece of a file; the last piece gives it its name and mode."""
    path = request["path"]
    part = f"{path}.lab-part"
    if request["offset"] == 0:
        os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    with open(part, "wb" if request["offset"] == 0 else "r+b") as handle:
        handle.seek(request["offset"])
        handle.write(base64.b64decode(request["data"]))
    if request["last"]:
        os.chmod(part, request["mode"])
        with open(part, "rb") as handle:
            os.fsync(handle.fileno())
        os.rename(part, path)
    return {}


def do_get(request: Message) -> Message:
    """Read one piece of a file."""
    with open(request["path"], "rb") as handle:
        handle.seek(request["offset"])
        data = handle.read(request["length"])
    return {"data": base64.b64encode(data).decode()}


def do_ping(_request: Message) -> Message:
    """Say that the agent is there."""
    return {"boot": read_text("/proc/sys/kernel/random/boot_id").strip(), "clock": time.time()}


def do_wait(request: Message) -> Message:
    """Wait until paths are there; cheaper than a loop in a shell. Says which are missing."""
    end = time.monotonic() + request["timeout"]
    while missing := [path for path in request["paths"] if not os.path.exists(path)]:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return {"missing": missing}


def do_clock(request: Message) -> Message:
    """Set the clock."""
    time.clock_settime(time.CLOCK_REALTIME, request["time"])
    return {}


def read_text(path: str) -> str:
    """A small file's text."""
    with open(path) as handle:
        return handle.read()


def write_text(path: str, text: str) -> None:
    """Replace a small file's text."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as handle:
        handle.write(text)


def do_personalise(request: Message) -> Message:
    """Make this copy of the template a host of its own: name, ids, addresses, clock, random."""
    time.clock_settime(time.CLOCK_REALTIME, request["time"])
    reseed(base64.b64decode(request["random"]))
    name = request["name"]
    socket.sethostname(name)
    for path, text in request["files"].items():
        write_text(path, text)
    bind_boot_id(request["boot_id"])
    for card in request["cards"]:
        set_address(card["name"], card["mac"], card["address"])
    restart_journal()
    os.sync()
    return {}


def set_address(name: str, mac: str, address: str) -> None:
    """Give a network card its hardware address and its IPv4 address, and bring it up.

    Done by ioctl: the first run of any program in a fresh copy is slow under emulation.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def order(number: int, data: bytes) -> None:
            fcntl.ioctl(control, number, struct.pack("16s24s", name.encode(), data))

        order(SIOCSIFHWADDR, struct.pack("H6s", 1, bytes.fromhex(mac.replace(":", ""))))
        order(SIOCSIFADDR, struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(address)))
        mask = socket.inet_aton("255.255.255.0")
        order(SIOCSIFNETMASK, struct.pack("HH4s", socket.AF_INET, 0, mask))
        order(SIOCSIFFLAGS, struct.pack("H", IFF_UP))


def restart_journal() -> None:
    """Let journald, which remembers the template's machine id, end: systemd starts it again.

    That takes a second; what is logged meanwhile waits in the sockets that systemd holds.
    """
    for entry in os.listdir("/proc"):
        with contextlib.suppress(FileNotFoundError):
            if entry.isdigit() and read_text(f"/proc/{entry}/comm") == "systemd-journal\n":
                os.kill(int(entry), signal.SIGTERM)


def bind_boot_id(boot_id: str) -> None:
    """Hide the template's boot id, which all copies share, under one of this host's own."""
    write_text("/run/vastsky-lab/boot_id", f"{boot_id}\n")
    mine, theirs = b"/run/vastsky-lab/boot_id", b"/proc/sys/kernel/random/boot_id"
    if LIBC.mount(mine, theirs, None, MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), "cannot hide the boot id")


def reseed(seed: bytes) -> None:
    """Give the kernel fresh random bytes: two copies of one template must not draw the same."""
    with open("/dev/urandom", "wb", buffering=0) as pool:
        pool.write(seed)
        fcntl.ioctl(pool, RNDRESEEDCRNG)


def do_shell(request: Message) -> Message:
    """Serve a shell on the shell port until it ends."""
    if not SHELL_LOCK.acquire(blocking=False):
        raise RuntimeError("a shell is open on this host already")
    try:
        child, master = pty.fork()
        if child == 0:
            os.chdir("/root")
            os.environ.update(TERM=request["term"], HOME="/root", SHELL="/bin/bash")
            os.execv("/bin/bash", ["-bash"])
        size = struct.pack("HHHH", request["rows"], request["columns"], 0, 0)
        fcntl.ioctl(master, termios.TIOCSWINSZ, size)
        port = os.open(port_path(SHELL_PORT), os.O_RDWR | os.O_NONBLOCK)
        try:
            copy_both(port, master)
        finally:
            os.close(port)
            os.close(master)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGHUP)
            os.waitpid(child, 0)
        return {}
    finally:
        SHELL_LOCK.release()


def copy_both(port: int, master: int) -> None:
    """Carry bytes between the port and the terminal until one of them ends."""
    while True:
        ready, _, _ = select.select([port, master], [], [])
        for source in ready:
            try:
                data = os.read(source, 4096)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                return
            os.set_blocking(port, True)
            os.write(master if source == port else port, data)
            os.set_blocking(port, False)


SHELL_LOCK = threading.Lock()
OPERATIONS: dict[str, Callable[[Message], Message]] = {
    "ping": do_ping,
    "run": do_run,
    "put": do_put,
    "get": do_get,
    "wait": do_wait,
    "clock": do_clock,
    "personalise": do_personalise,
    "shell": do_shell,
}


class Port:
    """The agent's port: lines in, lines out."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.open(port_path(name), os.O_RDWR)
        self._lock = threading.Lock()
        self._rest = b""

    def lines(self) -> list[bytes]:
        """The lines that have come; waits for some. A host that is away reads as nothing."""
        data = os.read(self._descriptor, 65536)
        if not data:
            time.sleep(0.02)
            self._rest = b""
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def send(self, message: Message) -> None:
        """Send one message."""
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


def serve(port: Port, request: Message) -> None:
    """Do one request and reply."""
    try:
        reply = OPERATIONS[request["op"]](request)
    except Exception as error:  # noqa: BLE001 - the lab is told whatever went wrong
        reply = {"error": f"{type(error).__name__}: {error}"}
    port.send({"id": request["id"], **reply})


def main() -> None:
    """Serve for ever."""
    port = Port(AGENT_PORT)
    while True:
        for line in port.lines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                request = json.loads(line)
                if request["id"] and request["op"]:
                    threading.Thread(target=serve, args=(port, request), daemon=True).start()


if __name__ == "__main__":
    main()
