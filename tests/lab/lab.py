"""A lab: several guests on two networks, up in seconds, gone without a trace."""

from __future__ import annotations

import atexit
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from .disks import Disk
from .emulator import Machine
from .guest import Guest, Result
from .host import LabError, labs_dir, read_json, say, write_json
from .installed import ensure_installed
from .network import Segments, namespace_name
from .template import DEFAULT_MEMORY_MIB, Template, copy_of, ensure_template, restore

MAX_GUESTS = 200
EVIDENCE_LIMIT = 1 << 20
EVIDENCE = {
    "journal.txt": "journalctl -b --no-pager -o short-precise | tail -n 400",
    "dmesg.txt": "dmesg | tail -n 400",
    "devices.txt": "dmsetup ls --tree; cat /proc/partitions; ls -l /dev/vastsky 2>&1",
    "processes.txt": "ps -eo pid,ppid,stat,wchan:20,etime,args | grep -v '\\]$'",
    "failed.txt": "systemctl --failed --no-pager; ip -br address",
}
"""What is collected from a host when a test fails; nothing that hangs on a held device."""

T = TypeVar("T")
NUMBERS = itertools.count()
ACTIVE: list[Lab] = []
"""The labs of this process that are up: a failing test collects evidence from them."""


def start_time(pid: int) -> str:
    """When a process started, in clock ticks; empty when it is not there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def sweep() -> None:
    """Remove what labs left behind whose process is gone."""
    for folder in labs_dir().iterdir():
        owner = folder / "owner.json"
        if not owner.exists():
            continue
        known = read_json(owner)
        if start_time(int(known["pid"])) != known["started"]:
            Segments(namespace_name(folder.name)).down()
            shutil.rmtree(folder, ignore_errors=True)


class Lab:
    """Several guests; use as a context manager, or call up and down."""

    def __init__(self, name: str = "", memory_mib: int = DEFAULT_MEMORY_MIB) -> None:
        self.name = name or f"{os.getpid()}-{next(NUMBERS)}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,40}", self.name):
            raise LabError(f"lab name {self.name!r}: use letters, digits, dots and dashes")
        self.memory_mib = memory_mib
        self.folder = labs_dir() / self.name
        self.segments = Segments(namespace_name(self.name))
        self.guests: dict[str, Guest] = {}

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.down()

    def __getitem__(self, name: str) -> Guest:
        try:
            return self.guests[name]
        except KeyError:
            have = ", ".join(self.guests) or "none"
            raise LabError(f"lab {self.name}: no host {name}; there are: {have}") from None

    def up(
        self,
        hosts: Mapping[str, Sequence[Disk]] | Iterable[str],
        debs: Sequence[Path] = (),
        prepare: Callable[[Guest], None] | None = None,
    ) -> Lab:
        """Bring hosts up, each with its disks, and wait until all answer.

        Packages given here are installed, and their services run, on every host; prepare is
        called for each before they start.
        """
        wanted = dict(hosts) if isinstance(hosts, Mapping) else dict.fromkeys(hosts, ())
        if not 0 < len(wanted) <= MAX_GUESTS:
            raise LabError(f"{len(wanted)} hosts: a lab has 1 to {MAX_GUESTS}")
        template = ensure_installed(ensure_template(self.memory_mib), debs)
        sweep()
        begun = time.monotonic()
        self._claim()
        try:
            self.segments.up(len(wanted))
            for number, name in enumerate(wanted):
                self._add(name, number, wanted[name], template)
            self.each(lambda guest: self._restore(guest, template, prepare))
        except BaseException:
            self.down()
            raise
        say(f"{self.name}: {len(wanted)} hosts up in {time.monotonic() - begun:.1f} s")
        return self

    def _claim(self) -> None:
        try:
            self.folder.mkdir()
        except FileExistsError:
            raise LabError(f"lab {self.name} is there already; take it down first") from None
        pid = os.getpid()
        write_json(self.folder / "owner.json", {"pid": pid, "started": start_time(pid)})
        atexit.register(self.down)
        ACTIVE.append(self)

    def _add(self, name: str, number: int, disks: Sequence[Disk], template: Template) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise LabError(f"host name {name!r}: use small letters, digits and dashes")
        folder = self.folder / name
        folder.mkdir()
        machine = Machine(
            folder=folder,
            image=template.image,
            root_disk=copy_of(template, folder),
            memory_mib=template.memory_mib,
            memory_file=template.memory,
            share_memory=False,
            nics=self.segments.nics(number),
            accel=template.accel,
        )
        guest = Guest(name, number, machine, template.emulator, self.segments)
        for disk in disks:
            guest.add_disk(disk)
        self.guests[name] = guest

    def _restore(
        self, guest: Guest, template: Template, prepare: Callable[[Guest], None] | None
    ) -> None:
        monitor = guest.start(incoming=True)
        restore(monitor, template.state)
        for disk in guest.disks:
            guest.insert_disk(disk)
        monitor.execute("cont")
        guest.connect_agent(60)
        guest.personalise(self.hosts_file())
        guest.wait_disks(60)
        if prepare is not None:
            prepare(guest)
        if template.packages:
            guest.run("systemctl start multi-user.target", timeout_s=300)

    def hosts_file(self) -> str:
        """/etc/hosts of every guest: a name is its address on network A, NAME-b on B."""
        lines = ["127.0.0.1 localhost"]
        for guest in self.guests.values():
            lines.append(f"{guest.address('A')} {guest.name}")
            lines.append(f"{guest.address('B')} {guest.name}-b")
        return "\n".join(lines) + "\n"

    def each(self, work: Callable[[Guest], T], names: Iterable[str] = ()) -> dict[str, T]:
        """Do something with all hosts, or with some, at the same time."""
        chosen = [self[name] for name in names] or list(self.guests.values())
        with ThreadPoolExecutor(max(1, len(chosen)), thread_name_prefix="lab-each") as pool:
            jobs = {guest.name: pool.submit(work, guest) for guest in chosen}
            return {name: job.result() for name, job in jobs.items()}

    def run(self, command: str, timeout_s: float = 30, check: bool = True) -> dict[str, Result]:
        """Run a command on all hosts."""
        return self.each(lambda guest: guest.run(command, timeout_s, check))

    def install(self, debs: Sequence[Path], names: Iterable[str] = ()) -> None:
        """Install built Debian packages on all hosts."""
        begun = time.monotonic()
        data = {f"/root/{deb.name}": deb.read_bytes() for deb in debs}

        def install_on(guest: Guest) -> None:
            for path, content in data.items():
                guest.put(path, content)
            env = "DEBIAN_FRONTEND=noninteractive"
            guest.run(f"{env} dpkg -i {' '.join(data)} && sync", timeout_s=120)

        self.each(install_on, names)
        size = sum(len(content) for content in data.values()) / 1024
        called = " ".join(deb.name for deb in debs)
        say(f"{called} ({size:.0f} KiB) installed in {time.monotonic() - begun:.1f} s")

    def collect(self, target: Path) -> None:
        """Write what is left of each host to a folder: journal, kernel log, console."""

        def collect_from(guest: Guest) -> None:
            folder = target / guest.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "console.log").write_text(guest.console()[-EVIDENCE_LIMIT:])
            (folder / "qemu.log").write_text(guest.last_words())
            for name, command in EVIDENCE.items():
                try:
                    text = guest.run(command, timeout_s=15, check=False).stdout
                except LabError as error:
                    text = f"{error}\n"
                    (folder / name).write_text(text)
                    break
                (folder / name).write_text(text[-EVIDENCE_LIMIT:])

        self.each(collect_from)

    def down(self) -> None:
        """Kill all hosts and remove their files and networks."""
        for guest in self.guests.values():
            guest.destroy()
        self.guests.clear()
        if (self.folder / "owner.json").exists():
            self.segments.down()
            shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.down)
        if self in ACTIVE:
            ACTIVE.remove(self)
