"""One guest: its processes, disks, links, and what runs in it."""

from __future__ import annotations

import base64
import contextlib
import secrets
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from .disks import Disk, DiskBay
from .emulator import Emulator, Machine, command_line
from .host import SPAWNER, LabError, say
from .lines import Agent, ClosedError, Monitor, connect_socket
from .network import NETWORKS, Segments, address, mac, network_index

PIECE = 256 << 10
AGENT_SLACK_S = 20
BOOT_LIMIT_S = 180
# Seen once, emulated, after "Failed to fork off sandboxing environment for executing generators:
# Protocol error".
FROZEN = "systemd[1]: Freezing execution"

__all__ = ["CommandError", "Disk", "Guest", "Result"]


@dataclass(frozen=True)
class Result:
    """What a command did."""

    exit: int | None
    stdout: str
    stderr: str
    timed_out: bool = False
    duration: float = 0.0


class FrozenError(LabError):
    """The guest's systemd froze at boot."""


class CommandError(LabError):
    """A command in a guest failed or was not done in time."""

    def __init__(self, host: str, command: str, result: Result) -> None:
        how = "not done in time" if result.timed_out else f"exit {result.exit}"
        said = (result.stderr.strip() or result.stdout.strip())[-1500:]
        super().__init__(f"{host}: {command[:200]}: {how}\n{said}")
        self.result = result


class Guest(DiskBay):
    """A guest of a lab; made by Lab."""

    def __init__(
        self, name: str, number: int, machine: Machine, emulator: Emulator, segments: Segments
    ) -> None:
        super().__init__(name, machine.folder)
        self.number = number
        self.machine = machine
        self._emulator = emulator
        self._segments = segments
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen_before = 0
        self._agent: Agent | None = None
        self._monitor: Monitor | None = None
        self._cut: set[str] = set()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix=f"lab-{name}")

    # -- starting and ending

    def address(self, network: str = "A") -> str:
        """The guest's address on a network."""
        return address(network, self.number)

    @property
    def is_running(self) -> bool:
        """Whether its QEMU lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """Its QEMU."""
        return self._process

    def state(self) -> str:
        """Off, or what QEMU says."""
        if not self.is_running or self._monitor is None:
            return "off"
        return str(self._monitor.execute("query-status")["status"])

    def start(self, incoming: bool) -> Monitor:
        """Start QEMU and connect to its monitor."""
        for name in ("qmp", "agent", "shell"):
            (self.folder / f"{name}.sock").unlink(missing_ok=True)
        disks = tuple(self._plug_of(name) for name in self._plugged) if not incoming else ()
        machine = replace(self.machine, incoming=incoming, disks=disks)
        argv = [*self._segments.prefix, *command_line(self._emulator, machine)]
        self._frozen_before = self.console().count(FROZEN)
        log = self.folder / "qemu.log"
        self._process = SPAWNER.start(argv, log, self._emulator.environment)
        try:
            client = connect_socket(self.folder / "qmp.sock", lambda: self.is_running, 30)
            self._monitor = Monitor(f"{self.name}: QEMU", client)
        except LabError as error:
            raise LabError(f"{error}\n{self.last_words()}") from error
        return self._monitor

    def connect_agent(self, timeout_s: float = BOOT_LIMIT_S) -> Agent:
        """Wait until the agent answers."""
        end = time.monotonic() + timeout_s
        client = connect_socket(self.folder / "agent.sock", lambda: self.is_running, 10)
        agent = Agent(f"{self.name}: agent", client)
        while True:
            try:
                agent.call("ping", timeout_s=1)
            except ClosedError as error:
                raise LabError(f"{self.name}: QEMU ended\n{self.last_words()}") from error
            except LabError as error:
                if self._is_frozen():
                    agent.close()
                    raise FrozenError(f"{self.name}: {FROZEN}\n{self.last_words()}") from error
                if time.monotonic() > end:
                    agent.close()
                    text = f"{self.name}: no agent within {timeout_s:.0f} s"
                    raise LabError(f"{text}\n{self.last_words()}") from error
            else:
                self._agent = agent
                return agent

    def kill(self) -> None:
        """Cut the power: what the guest wrote to its disks is kept, all else is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(20)
        for client in (self._agent, self._monitor):
            if client is not None:
                client.close()
        self._agent = self._monitor = None

    def power_on(self, timeout_s: float = BOOT_LIMIT_S) -> None:
        """Boot from the guest's disks, as after a power cut."""
        if self.is_running:
            raise LabError(f"{self.name} is running")
        self.machine = replace(self.machine, memory_file=None)
        self._forget_bad()
        try:
            self._boot(timeout_s)
        except FrozenError:
            say(f"{self.name}: its systemd froze at boot: once more")
            self.kill()
            self._boot(timeout_s)
        self.set_clock(time.time())
        self.wait_disks(timeout_s)

    def _boot(self, timeout_s: float) -> None:
        self.start(incoming=False)
        for network in self._cut:
            self._set_link(network, up=False)
        self.connect_agent(timeout_s)

    def _is_frozen(self) -> bool:
        return self.console().count(FROZEN) > self._frozen_before

    def reboot(self, timeout_s: float = BOOT_LIMIT_S) -> None:
        """Reboot in good order and wait for the agent."""
        monitor = self.monitor
        resets = monitor.count("RESET")
        self.run("systemctl --no-block reboot", timeout_s=20)
        monitor.wait_event("RESET", resets, timeout_s)
        self._reconnect(timeout_s)

    def _reconnect(self, timeout_s: float) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        self.connect_agent(timeout_s)
        self.set_clock(time.time())
        self.wait_disks(timeout_s)

    def shutdown(self, timeout_s: float = 90) -> None:
        """Power off in good order."""
        process = self._process
        if process is None:
            return
        self.run("systemctl --no-block poweroff", timeout_s=20)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            text = f"{self.name}: not off within {timeout_s:.0f} s"
            raise LabError(f"{text}\n{self.last_words()}") from error
        self.kill()

    def pause(self) -> None:
        """Stop the guest's CPU: a host that hangs."""
        self.monitor.execute("stop")

    def resume(self, set_clock: bool = True) -> None:
        """Let a paused guest go on."""
        self.monitor.execute("cont")
        if set_clock:
            self.set_clock(time.time())

    def destroy(self) -> None:
        """Kill the guest and remove its files."""
        self.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what runs in it

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor."""
        if self._monitor is None:
            raise LabError(f"{self.name} is off")
        return self._monitor

    @property
    def agent(self) -> Agent:
        """The agent."""
        if self._agent is None:
            raise LabError(f"{self.name} is off")
        return self._agent

    def run(
        self,
        command: str | Sequence[str],
        timeout_s: float = 30,
        check: bool = True,
        stdin: bytes = b"",
    ) -> Result:
        """Run a command (a text is for bash) in the guest as root."""
        argv = ["bash", "-c", command] if isinstance(command, str) else list(command)
        reply = self.agent.call(
            "run",
            timeout_s=timeout_s + AGENT_SLACK_S,
            argv=argv,
            timeout=timeout_s,
            stdin=base64.b64encode(stdin).decode(),
        )
        result = Result(
            reply["exit"],
            base64.b64decode(reply["stdout"]).decode(errors="replace"),
            base64.b64decode(reply["stderr"]).decode(errors="replace"),
            reply["timed_out"],
            reply["duration"],
        )
        if check and (result.timed_out or result.exit != 0):
            text = command if isinstance(command, str) else " ".join(command)
            raise CommandError(self.name, text, result)
        return result

    def begin(
        self, command: str | Sequence[str], timeout_s: float = 30, check: bool = True
    ) -> Future[Result]:
        """Start a command and go on; the future gets its result."""
        return self._threads.submit(self.run, command, timeout_s, check)

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file in the guest."""
        for offset in range(0, max(len(data), 1), PIECE):
            self.agent.call(
                "put",
                timeout_s=60,
                path=path,
                offset=offset,
                data=base64.b64encode(data[offset : offset + PIECE]).decode(),
                last=offset + PIECE >= len(data),
                mode=mode,
            )

    def get(self, path: str) -> bytes:
        """Read a file in the guest."""
        data = b""
        while True:
            reply = self.agent.call("get", timeout_s=60, path=path, offset=len(data), length=PIECE)
            piece = base64.b64decode(reply["data"])
            data += piece
            if len(piece) < PIECE:
                return data

    def set_clock(self, seconds: float) -> None:
        """Set the guest's clock."""
        self.agent.call("clock", time=seconds)

    def personalise(self, hosts: str) -> None:
        """Make this copy of the template a host of its own."""
        lines = ""
        cards = []
        for number, network in enumerate(NETWORKS):
            lines += f"link set eth{number} address {mac(network, self.number)}\n"
            lines += f"addr replace {self.address(network)}/24 dev eth{number}\n"
            lines += f"link set eth{number} up\n"
            card = {"name": f"eth{number}", "mac": mac(network, self.number)}
            cards.append({**card, "address": self.address(network)})
        machine_id = uuid.uuid4().hex
        initiator = f"InitiatorName=iqn.1993-08.org.debian:01:{machine_id[:12]}\n"
        self.agent.call(
            "personalise",
            timeout_s=60,
            time=time.time(),
            random=base64.b64encode(secrets.token_bytes(256)).decode(),
            name=self.name,
            boot_id=str(uuid.uuid4()),
            cards=cards,
            files={
                "/etc/hostname": f"{self.name}\n",
                "/etc/hosts": hosts,
                "/etc/machine-id": f"{machine_id}\n",
                "/etc/iscsi/initiatorname.iscsi": initiator,
                "/etc/vastsky-lab/net.batch": lines,
            },
        )

    def wait_paths(self, paths: Sequence[str], timeout_s: float = 30) -> None:
        """Wait until paths are there in the guest."""
        limit = timeout_s + AGENT_SLACK_S
        reply = self.agent.call("wait", timeout_s=limit, paths=list(paths), timeout=timeout_s)
        if reply["missing"]:
            missing = ", ".join(reply["missing"])
            raise LabError(f"{self.name}: not there after {timeout_s:.0f} s: {missing}")

    # -- links

    def cut_link(self, network: str) -> None:
        """Take the carrier from the guest's link to a network."""
        self._cut.add(network)
        self._set_link(network, up=False)

    def restore_link(self, network: str) -> None:
        """Give the carrier back."""
        self._cut.discard(network)
        self._set_link(network, up=True)

    def _set_link(self, network: str, up: bool) -> None:
        name = f"net{network_index(network)}"
        self.monitor.execute("set_link", name=name, up=up)

    def cut_silently(self, network: str) -> None:
        """Let the guest's packets on a network vanish; its carrier stays."""
        network_index(network)
        self._segments.detach(network, self.number)

    def restore(self, network: str) -> None:
        """End a silent cut and a cut link."""
        network_index(network)
        self._segments.attach(network, self.number)
        if network in self._cut:
            self.restore_link(network)

    # -- evidence

    def console(self) -> str:
        """All that the guest wrote to its console."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""

    def last_words(self, lines: int = 30) -> str:
        """The last lines of the console and of QEMU."""
        log = self.folder / "qemu.log"
        words = log.read_text(errors="replace").splitlines()[-10:] if log.exists() else []
        console = self.console().splitlines()[-lines:]
        return "\n".join(["--- console:", *console, "--- QEMU:", *words])
