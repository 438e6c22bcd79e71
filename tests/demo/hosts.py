"""The demo's five hosts, and how it speaks to them: vastskyctl, the writer, the evidence."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.demo.narrator import Narrator
from tests.lab.guest import Disk, Guest, Result
from tests.lab.lab import Lab
from vastskyd.core import answers, api
from vastskyd.core.model import Record
from vastskyd.core.paging import joined
from vastskyd.dbus.interfaces import MANAGER as MANAGER_INTERFACE
from vastskyd.dbus.paths import BUS_NAME, ROOT

MIB = 1 << 20
HERE = Path(__file__).parent
STORES = ("store1", "store2", "store3")
HEADS = ("head1", "head2")
MANAGER = "head1"
DISKS = ("nvme0", "nvme1")

PROGRAMS = "/run/vastsky-demo"  # a tmpfs: the notes must not be on what is tested
NOTES = f"{PROGRAMS}/notes"
STOP = f"{PROGRAMS}/stop"
SLOTS = 2048
WRITER_LIMIT_S = 900

# By the shell: it is asked often, and Python takes a second to start in an emulated guest.
LEFTOVERS = """\
cat /sys/block/*/dm/uuid 2>/dev/null | grep ^VASTSKY-
grep -lv '^clear$' /sys/block/md*/md/array_state 2>/dev/null
cat /sys/block/nbd*/backend 2>/dev/null | sort
ls -d /dev/vastsky/* 2>/dev/null
systemctl list-units --all --plain --no-legend 'vastsky-export@*'
"""

A = TypeVar("A", bound=Record)


class Hosts:
    """A lab's hosts: heads, of which the first is the manager, and storage servers."""

    def __init__(
        self,
        lab: Lab,
        narrator: Narrator,
        heads: tuple[str, ...] = HEADS,
        stores: tuple[str, ...] = STORES,
    ) -> None:
        self.lab = lab
        self.heads = heads
        self.stores = stores
        self.terminal = MANAGER
        """Where the operator sits, once the cluster is made: any of its hosts will do."""
        self._narrator = narrator

    def up(self, disk_mib: int, debs: Sequence[Path], settings: str) -> None:
        """All hosts, each with the packages installed and vastskyd started by it; the settings are
        the manager's, who decides by them."""
        plan: dict[str, list[Disk]] = {name: [] for name in self.heads}
        plan |= {name: [Disk(disk, disk_mib * MIB) for disk in DISKS] for name in self.stores}

        def prepare(guest: Guest) -> None:
            self.put_programs(guest)
            if guest.name == MANAGER:
                guest.run("mkdir -p /etc/vastsky/vastskyd.toml.d")
                guest.put("/etc/vastsky/vastskyd.toml.d/lab.toml", settings.encode())

        self.lab.up(plan, debs=debs, prepare=prepare)

    def put_programs(self, guest: Guest) -> None:
        """After each boot: they are on a tmpfs."""
        guest.run(f"mkdir -p {PROGRAMS}")
        for name in ("writer.py", "evidence.py"):
            guest.put(f"{PROGRAMS}/{name}", (HERE / name).read_bytes())

    def each(self, work: Any, names: Iterable[str] = ()) -> dict[str, Any]:
        return self.lab.each(work, names)

    def addresses(self, name: str) -> str:
        guest = self.lab[name]
        return " ".join(f"--address {guest.address(network)}" for network in ("A", "B"))

    # --- vastskyctl

    def ask(self, answer: type[A], words: str, host: str = MANAGER, timeout_s: float = 60) -> A:
        """What a program gets: the answer as its type."""
        said = self.lab[host].run(f"vastskyctl {words} --json", timeout_s).stdout
        return msgspec.json.decode(said, type=answer)

    def look(self, answer: type[A], method: str, **options: str) -> A:
        """The same by busctl, for who asks again and again: it starts ten times as fast. All pages
        of a list."""
        found = self._call(answer, method, options)
        while more := getattr(found, "next", ""):
            found = joined(found, self._call(answer, method, options | {"after": more}))
        return found

    def _call(self, answer: type[A], method: str, options: Mapping[str, str]) -> A:
        command = busctl_call(method, options)
        found = busctl_answer(method, self.lab[self.terminal].run(command, 70).stdout)
        if not isinstance(found, answer):
            raise TypeError(f"{method} gives {type(found).__name__}")
        return found

    def type(self, words: str, host: str = "", timeout_s: float = 60) -> None:
        """What a person types and sees."""
        self.shell(f"vastskyctl {words}", host or self.terminal, timeout_s)

    def shell(self, command: str, host: str = MANAGER, timeout_s: float = 60) -> None:
        result = self.lab[host].run(command, timeout_s)
        self._narrator.typed(host, command, result.stdout)

    # --- the cluster

    def join_all(self, racks: Mapping[str, str] | None = None) -> None:
        """All hosts but the manager."""
        labels = {name: f" --rack {rack}" for name, rack in (racks or {}).items()}
        tokens = {
            role: self.ask(api.Token, f"cluster token --role {role}").token
            for role in ("storage", "head")
        }

        def join(guest: Guest) -> None:
            token = tokens["storage" if guest.name in self.stores else "head"]
            label = labels.get(guest.name, "")
            guest.run(f"vastskyctl join {token} {self.addresses(guest.name)}{label}", 60)

        self.each(join, [*self.stores, *self.heads[1:]])

    def online(self) -> int:
        return self.look(answers.ClusterStatus, "Status").nodes_online

    def disks(self) -> list[answers.DiskView]:
        """Those that are enrolled."""
        return [disk for disk in self.look(answers.DiskList, "ListDisks").disks if disk.id]

    def offered(self) -> list[answers.DiskView]:
        return [
            disk
            for disk in self.look(answers.DiskList, "ListDisks").disks
            if not disk.id and disk.node in self.stores and "nvme" in disk.path
        ]

    def enrol(self, offered: list[answers.DiskView]) -> None:
        """Each asked of its own host, all hosts at the same time; nobody waits for the end."""

        def enrol_on(guest: Guest) -> None:
            for disk in offered:
                if disk.node == guest.name:
                    guest.run(f"vastskyctl disk enrol {disk.path} --no-wait", 60)

        self.each(enrol_on, self.stores)

    def free(self) -> dict[str, int]:
        return {disk.id: disk.free_bytes for disk in self.disks()}

    def volume(self, name: str) -> answers.VolumeView:
        return self.look(answers.VolumeList, "ListVolumes", volume=name).volumes[0]

    # --- the writer and the evidence

    def start_writer(self, host: str, path: str, size: int) -> Future[Result]:
        """It writes until `stop_writer`."""
        command = (
            f"rm -f {STOP} {NOTES}; exec python3 {PROGRAMS}/writer.py write"
            f" --notes {NOTES} --stop {STOP} --slots {SLOTS} --size {size} {path}"
        )
        return self.lab[host].begin(command, timeout_s=900)

    def stop_writer(self, host: str, writer: Future[Result]) -> dict[str, float]:
        self.lab[host].run(f"touch {STOP}")
        answer: dict[str, float] = json.loads(writer.result(120).stdout)
        return answer

    def written(self, host: str) -> dict[str, float]:
        """So far."""
        answer: dict[str, float] = json.loads(
            self.lab[host].run(f"python3 {PROGRAMS}/writer.py show --notes {NOTES}").stdout
        )
        return answer

    def verify(self, host: str, path: str) -> dict[str, Any]:
        command = f"python3 {PROGRAMS}/writer.py verify --notes {NOTES} --slots {SLOTS} {path}"
        result = self.lab[host].run(command, timeout_s=180, check=False)
        if result.exit not in (0, 1) or not result.stdout:
            self.lab[host].run(command, timeout_s=180)  # says what is wrong
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def leftovers(self, host: str) -> list[str]:
        """All that a volume could have left behind there, and what is there of volumes."""
        return self.lab[host].run(LEFTOVERS).stdout.splitlines()

    def evidence(self, host: str, *words: str, timeout_s: float = 180) -> Any:
        command = f"python3 {PROGRAMS}/evidence.py {shlex.join(words)}"
        return json.loads(self.lab[host].run(command, timeout_s).stdout)

    # --- when it went wrong

    def save_journals(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, guest in self.lab.guests.items():
            if guest.is_running:
                said = guest.run("journalctl -b --no-pager -n 2000", 30, check=False).stdout
                (directory / f"{name}.journal").write_text(said)
            (directory / f"{name}.console").write_text(guest.console())


def busctl_call(method: str, options: Mapping[str, str]) -> str:
    """The command that calls a method of the Manager that only takes options, of strings."""
    words = [str(len(options))]
    for name, value in options.items():
        words += [name, "s", value]
    where = f"{BUS_NAME} {ROOT} {MANAGER_INTERFACE.name}"
    return f"busctl --json=short --timeout=60 call {where} {method} 'a{{sv}}' {shlex.join(words)}"


def busctl_answer(method: str, said: str) -> Record:
    """What that command printed."""
    known = MANAGER_INTERFACE.method(method)
    if known is None:
        raise TypeError(f"the Manager has no method {method}")
    return known.read_answer(_bare(json.loads(said)["data"]))


def _bare(value: Any) -> Any:
    """busctl's JSON without the signature that it puts beside each value."""
    if isinstance(value, dict):
        if value.keys() == {"type", "data"}:
            return _bare(value["data"])
        return {key: _bare(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return value
