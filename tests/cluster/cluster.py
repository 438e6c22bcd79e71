"""A cluster in a lab as the tests use it: volumes, writers, and waits with bounds."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.demo.hosts import DISKS, MANAGER, PROGRAMS, Hosts
from tests.demo.narrator import DemoError, Narrator, require
from tests.lab.guest import CommandError, Guest, Result
from tests.lab.host import LabError
from tests.lab.lab import Lab
from vastskyd.core import answers
from vastskyd.core.model import AttachmentState

# A question costs the host that is asked a third of a second of its one emulated core.
POLL_S = 1.5
PATIENCE = 2.0
WRITER_LIMIT_S = 3600
# On the root disk, and written through: they must outlast a power cut of the head.
NOTES = "/var/lib/lab-notes"
SLOTS = 256
# Writers without a pause take both cores of the machine that emulates all hosts.
PAUSE_S = 0.25
NUMBERS_A_HEAD = 1_000_000

SETTINGS = """\
[timeouts]
rebuild_delay_s = {rebuild_delay_s}
"""


def eventually(what: str, check: Callable[[], Any], limit_s: float) -> Any:
    """Asks until the answer is true, for as long as that may take where all is slow. What is
    promised to come in time is asked `within` it."""
    return within(what, check, limit_s * PATIENCE)


def within(what: str, check: Callable[[], Any], limit_s: float) -> Any:
    """A command that fails meanwhile is no answer; DemoError names what did not come, and the last
    thing that went wrong."""
    end = time.monotonic() + limit_s
    last = ""
    while True:
        try:
            answer = check()
        except LabError as error:
            answer, last = None, str(error)
        if answer:
            return answer
        if time.monotonic() > end:
            raise DemoError(f"not within {limit_s:.0f} s: {what}\n{last}")
        time.sleep(POLL_S)


def exposure(guest: Guest, unit: str) -> float:
    said = guest.run(f"systemd-analyze security --no-pager {unit}", 60).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    return float(found[1])


class Writer:
    """The demo's writer on a host; it may be begun again after the host came back."""

    def __init__(
        self,
        guest: Guest,
        target: str,
        tag: str,
        size: int = 0,
        slots: int = SLOTS,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.guest = guest
        self._tag = tag
        self._earlier: tuple[Writer, ...] = ()
        self._target = target
        self.slots = slots
        self._size = size
        self._pause_s = pause_s
        self.notes = f"{NOTES}/{tag}"
        self._stop = f"{PROGRAMS}/stop-{tag}"
        self._running: Future[Result] | None = None
        self._again = False

    def begin(self) -> Writer:
        again = self._again
        self._again = True
        if not again:
            self.guest.run(f"mkdir -p {NOTES} && rm -f {self.notes}")
        size = f"--size {self._size}" if self._size and not again else ""
        self._running = self.guest.begin(
            f"rm -f {self._stop}; exec python3 {PROGRAMS}/writer.py write --notes {self.notes}"
            f" --stop {self._stop} --slots {self.slots} --first {self._first}"
            f" --pause {self._pause_s} {size}"
            f" {self._target}",
            timeout_s=WRITER_LIMIT_S,
        )
        return self

    @property
    def _first(self) -> int:
        return len(self._earlier) * NUMBERS_A_HEAD

    def moved_to(self, guest: Guest) -> Writer:
        """One that goes on elsewhere, with numbers that this one never comes to."""
        moved = Writer(
            guest, self._target, f"{self._tag}+", slots=self.slots, pause_s=self._pause_s
        )
        moved._earlier = (*self._earlier, self)
        return moved

    def result(self, limit_s: float) -> Result:
        """How it ended by itself."""
        assert self._running is not None
        try:
            return self._running.result(limit_s)
        except CommandError as error:
            return error.result

    def check(self) -> None:
        """It runs still: an I/O error would have ended it."""
        if self._running is not None and self._running.done():
            result = self._running.result()
            raise DemoError(f"the writer ended: {result.stdout}{result.stderr}")

    def count(self) -> int:
        """The blocks acknowledged so far."""
        said = self.guest.run(f"stat -c %s {self.notes} || echo 0", check=False).stdout
        return int(said or 0) // 24

    def stall(self) -> float:
        """The longest that a block has waited so far."""
        said = self.guest.run(f"python3 {PROGRAMS}/writer.py show --notes {self.notes}").stdout
        return float(json.loads(said)["longest_stall_s"])

    def goes_on(self, blocks: int = 10, limit_s: float = 60) -> None:
        """Until so many more blocks are acknowledged."""
        before = self.count()

        def enough() -> bool:
            self.check()
            return self.count() >= before + blocks

        eventually(f"{blocks} more blocks are acknowledged after {before}", enough, limit_s)

    def end(self) -> dict[str, float]:
        """Stops it; what it did."""
        require(self._running is not None, "there is no writer to stop")
        assert self._running is not None
        self.guest.run(f"touch {self._stop}")
        summary: dict[str, float] = json.loads(self._running.result(120).stdout)
        return summary

    def lost_power(self) -> None:
        """Its host is gone, and with it the writer: what it was told before still holds."""
        if self._running is not None:
            try:
                self._running.result(30)
            except LabError:
                return
            raise DemoError("the writer ended by itself before its host lost its power")

    def verify(self, guest: Guest | None = None) -> None:
        """Every acknowledged block is there, read by `guest` or where it was written."""
        reader = guest or self.guest
        told = [writer for writer in (*self._earlier, self) if writer._again]
        notes = f"{NOTES}/verify-{self._tag}"
        reader.run(f"mkdir -p {NOTES}")
        reader.put(notes, b"".join(writer.guest.get(writer.notes) for writer in told))
        command = (
            f"python3 {PROGRAMS}/writer.py verify --notes {notes}"
            f" --slots {self.slots} {self._target}"
        )
        result = reader.run(command, timeout_s=180, check=False)
        require(result.exit == 0, f"acknowledged writes were lost: {result.stdout}{result.stderr}")


class Cluster:
    """Hosts that belong together, their disks enrolled."""

    def __init__(self, lab: Lab, hosts: Hosts) -> None:
        self.lab = lab
        self.hosts = hosts
        self.whole = True
        """Whether the last test left all hosts and disks as it should; see `mend`."""

    def __getitem__(self, name: str) -> Guest:
        return self.lab[name]

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.hosts.heads, *self.hosts.stores)

    # --- asking

    def ctl(self, words: str, timeout_s: float = 60) -> Result:
        return self.lab[MANAGER].run(f"vastskyctl {words}", timeout_s)

    def volume(self, name: str) -> answers.VolumeView:
        return self.hosts.volume(name)

    def disk_of(self, node: str, name: str) -> answers.DiskView:
        serial = f"{node}-{name}"
        return next(disk for disk in self.hosts.disks() if disk.serial == serial)

    def leg_disks(self, volume: str) -> list[tuple[str, str]]:
        """(host, the lab's name of the disk) of each leg."""
        by_place = {(disk.node, disk.path): disk.serial for disk in self.hosts.disks()}
        return [
            (leg.node, by_place[(leg.node, leg.disk_path)].removeprefix(f"{leg.node}-"))
            for segment in self.volume(volume).segments
            for leg in segment.legs
        ]

    def stores_of(self, volume: str) -> list[str]:
        return sorted({node for node, _ in self.leg_disks(volume)})

    def offered(self, guest: Guest, disk: str) -> str | None:
        """What is said of a disk that is not enrolled; None: it is not shown so."""
        for view in self.hosts.offered():
            if view.node == guest.name and view.serial == guest.serial(disk):
                return view.message
        return None

    # --- waiting

    def online(self, limit_s: float = 90) -> None:
        eventually("all hosts are online", lambda: self.hosts.online() == len(self.all), limit_s)

    def healthy(self, volume: str, health: str = "redundant", limit_s: float = 90) -> None:
        seen = ""

        def is_so() -> bool:
            nonlocal seen
            view = self.volume(volume)
            seen = f"{view.health}: {view.message}"
            return view.health == health

        try:
            eventually(f"volume {volume} is {health}", is_so, limit_s)
        except DemoError as error:
            raise DemoError(f"{error}; it was {seen}") from None

    def attached(self, volume: str, limit_s: float = 90) -> None:
        """By the records, and there is its device."""

        def is_so() -> bool:
            view = self.volume(volume)
            return (
                view.attachment is AttachmentState.ATTACHED
                and self.lab[view.head].run(f"test -b {view.device}", check=False).exit == 0
            )

        eventually(f"volume {volume} is attached", is_so, limit_s)

    def detached(self, volume: str, limit_s: float = 90) -> None:
        eventually(
            f"volume {volume} is detached",
            lambda: self.volume(volume).attachment is None,
            limit_s,
        )

    def leftovers(self) -> dict[str, list[str]]:
        """What is there of any volume, by host."""
        found = self.hosts.each(lambda guest: self.hosts.leftovers(guest.name), self.all)
        return {name: what for name, what in found.items() if what}

    def clean(self, limit_s: float = 60, besides: dict[str, list[str]] | None = None) -> None:
        """Nothing is left on any host `besides` that."""
        left: dict[str, list[str]] = {}

        def is_so() -> bool:
            left.clear()
            left.update(self.leftovers())
            return left == (besides or {})

        try:
            eventually("every host is clean", is_so, limit_s)
        except DemoError as error:
            raise DemoError(f"{error}: {left}") from None

    def mend(self) -> None:
        """What a test that failed has left broken: hosts, links and disks are there again."""
        for name in self.all:
            guest = self[name]
            if not guest.is_running:
                self.power_on(name)
            elif guest.state() == "paused":
                guest.resume()
            for network in ("A", "B"):
                guest.restore(network)
            for disk in guest.slow_disks:
                guest.slow_disk(disk, 0)
            self._bring_disks_home(guest)
            guest.run("ip route flush type blackhole; rm -f /var/tmp/filler*")
        self.online()
        try:
            self.delete_all()
        except LabError:  # a head may be stuck for good: the next test is not to blame
            for name in self.hosts.heads:
                self[name].kill()
                self.power_on(name)
            self.online()
            self.delete_all()
        self.remove_strange_disks()
        eventually(
            "all disks are there",
            lambda: {disk.state for disk in self.hosts.disks()} == {"online"},
            90,
        )

    def _bring_disks_home(self, guest: Guest) -> None:
        """One that was moved is where it began, and all of the guest's own are plugged in."""
        for disk in set(guest.known_disks) - set(DISKS):
            home, _, name = guest.serial(disk).rpartition("-")
            if home in self.hosts.stores and name in DISKS:
                self.lab[home].take_disk(guest, disk, name)
        for disk in set(DISKS if guest.name in self.hosts.stores else ()) - set(guest.disks):
            guest.plug_disk(disk)

    def remove_strange_disks(self) -> None:
        """Those that a test brought. The cluster is not to miss one: it is retired first, once
        the extents of the volumes that were deleted are wiped."""
        for guest in (self[name] for name in self.all):
            for disk in set(guest.known_disks) - set(DISKS):
                for view in self.hosts.disks():
                    if view.serial == guest.serial(disk):
                        retire = partial(self.ctl, f"disk retire {view.id}", 60)
                        eventually(f"disk {view.serial} is retired", retire, 90)
                guest.remove_disk(disk)

    def delete_all(self) -> None:
        """What a test that failed has left."""
        for view in self.hosts.look(answers.VolumeList, "ListVolumes").volumes:
            for head in self.hosts.heads:
                self.lab[head].run(
                    "pkill -KILL -f '[w]riter.py write'; systemctl stop opener;"
                    " dmsetup remove --retry upon; umount /mnt/*",
                    check=False,
                )
            if view.attachment is not None:
                self.ctl(f"volume detach {view.name}", 90)
            self.ctl(f"volume delete {view.name} --yes", 90)
        # Until then what they held is not free, and a disk of theirs is at work.
        eventually(
            "what they held is wiped",
            lambda: not any("wiping" in disk.message for disk in self.hosts.disks()),
            90,
        )

    # --- doing

    @contextmanager
    def new_volume(self, name: str, mib: int, head: str, copies: int = 2) -> Iterator[str]:
        """A volume that is attached to `head`; at the end all of it is gone again."""
        self.ctl(f"volume create {name} {mib}M --copies {copies}", 90)
        self.ctl(f"volume attach {name} {head}", 90)
        yield f"/dev/vastsky/{name}"
        if self.volume(name).attachment is not None:
            self.ctl(f"volume detach {name}", 90)
        self.ctl(f"volume delete {name} --yes", 90)
        self.clean()

    def kill_daemon(self, name: str) -> None:
        """systemd starts it again after a second."""
        self.lab[name].run("systemctl kill --kill-whom=main -s KILL vastskyd")

    def power_on(self, name: str) -> None:
        self.lab[name].power_on()
        self.hosts.put_programs(self.lab[name])

    def settings(self, **timeouts_s: float) -> None:
        """Changes the manager's timeouts while it runs."""
        lines = "".join(f"{key} = {value}\n" for key, value in timeouts_s.items())
        self.put_settings(f"[timeouts]\n{lines}")

    def put_settings(self, text: str) -> None:
        """All that is set besides the defaults, at once."""
        manager = self.lab[MANAGER]
        manager.put("/etc/vastsky/vastskyd.toml.d/lab.toml", text.encode())
        manager.run("systemctl reload vastskyd", 60)

    def cut_off(self, name: str, other: str) -> None:
        """These two hosts do not hear each other; all others hear both."""
        for network in ("A", "B"):
            address = self.lab[other].address(network)
            self.lab[name].run(f"ip route add blackhole {address}/32")

    def join_again(self, name: str) -> None:
        """Ends what `cut_off` did on `name`."""
        self.lab[name].run("ip route flush type blackhole")

    def reboot(self, name: str) -> None:
        self.lab[name].reboot()
        self.hosts.put_programs(self.lab[name])

    def paths(self, head: str) -> int:
        """The paths of a head's legs that device-mapper counts as good: NBD itself goes on
        calling a dead connection connected."""
        said = self.lab[head].run("dmsetup status --target multipath").stdout
        return len(re.findall(r" \d+:\d+ A ", said))


def make_cluster(
    lab: Lab,
    debs: Sequence[Path],
    *,
    heads: tuple[str, ...] = ("head1", "head2"),
    stores: tuple[str, ...] = ("store1", "store2", "store3"),
    encryption: str = "none",
    disk_mib: int = 96,
    rebuild_delay_s: int = 30,
    racks: Mapping[str, str] | None = None,
) -> Cluster:
    """Brings the lab up and makes a cluster of it."""
    hosts = Hosts(lab, Narrator(), heads, stores)
    hosts.up(disk_mib, debs, SETTINGS.format(rebuild_delay_s=rebuild_delay_s))
    cluster = Cluster(lab, hosts)
    cluster.ctl(
        f"cluster init --name lab --data-encryption {encryption} --role manager --role head"
        f" {hosts.addresses(MANAGER)}"
    )
    hosts.join_all(racks)
    cluster.online()
    count = len(stores) * len(DISKS)
    eventually("all disks are offered", lambda: len(hosts.offered()) == count, 60)
    hosts.enrol(hosts.offered())
    eventually(
        "all disks are enrolled",
        lambda: [disk.state for disk in hosts.disks()] == ["online"] * count,
        90,
    )
    return cluster
