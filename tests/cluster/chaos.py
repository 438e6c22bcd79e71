"""Writers, and somebody who breaks things: random faults under a seed, with real kernels.

    python -m tests.cluster.chaos --seconds 600 --seed 1 --deb build/*.deb

Two volumes, of two and of three copies, are written to all the time, while one or two faults at a
time come and go; a fault that takes a copy away comes only when all copies are good, and everything
must be good again after each. With --rude several faults at a time come when they like, on any
host, and nothing is waited for. At the end everything is mended, and every acknowledged block must
be there, on every copy; nothing may be left. Ends with an error otherwise. The journals are in
build/chaos.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cluster import Cluster, Writer, eventually, make_cluster
from tests.demo import writer as blocks
from tests.demo.copies import compare_copies
from tests.demo.narrator import DemoError, require
from tests.lab.host import LabError
from tests.lab.lab import Lab
from vastskyd.core import answers

LOGS = Path("build/chaos")
VOLUMES = {"two": (48, 2, "head2"), "three": (32, 3, "head1")}
"""Name: size in MiB, copies, head. head1 is the manager, too."""
HEADS = {head for _, _, head in VOLUMES.values()}
BACK_LIMIT_S = 240
COMMAND_LIMIT_S = 120
WATCH_PAUSE_S = 2.0
SILENT = (
    "systemctl status --no-pager vastskyd dbus; journalctl -q --no-pager -u vastskyd -n 60;"
    " ps -eLo pid,lwp,ppid,stat,wchan:30,etime,args; uptime;"
    " ps -eLo lwp=,stat= | awk '$2 ~ /^D/ { print $1 }' | while read t;"
    ' do echo "== $t"; cat /proc/$t/comm /proc/$t/stack; done'
)
FAULT_S = (2.0, 20.0)
CALM_S = (0.5, 8.0)
RUDE_MOST = 3
STORAGE_SHARE = 0.5


@dataclass(frozen=True)
class Fault:
    """What `begin` did, and `heal` mends. The last word of `name` is the host."""

    name: str
    begin: Callable[[], None]
    heal: Callable[[], None]

    @property
    def host(self) -> str:
        return self.name.split()[-1]


class Chaos:
    """The cluster, its writers and its faults."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.writers: dict[str, Writer] = {}
        self.begun_s = time.monotonic()
        self.counts: dict[str, int] = {}
        self.interrupted: set[str] = set()
        self._watch_end = threading.Event()
        self._watch_failed: list[str] = []

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begun_s:6.1f} s] {text}", flush=True)

    # --- from the first volume to nothing

    def run(self, seconds: float, *, rude: bool) -> None:
        self.free = self.cluster.hosts.free()
        for name, (mib, copies, head) in VOLUMES.items():
            self.cluster.ctl(f"volume create {name} {mib}M --copies {copies}", COMMAND_LIMIT_S)
            self.cluster.ctl(f"volume attach {name} {head}", COMMAND_LIMIT_S)
            guest = self.cluster[head]
            self.writers[name] = Writer(guest, f"/dev/vastsky/{name}", name).begin()
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        end = time.monotonic() + seconds
        if rude:
            self.storm(end)
        while time.monotonic() < end:
            self.round()
        self._watch_end.set()
        watcher.join(COMMAND_LIMIT_S)
        self.finish()
        require(not self._watch_failed, f"no answer in time: {self._watch_failed}")

    def _watch(self) -> None:
        """A command ends within a bound, whatever is broken, on a host that runs."""
        while not self._watch_end.wait(WATCH_PAUSE_S):
            for words in ("status", "volume list --json", "disk list"):
                try:
                    result = self.cluster["head1"].run(
                        f"vastskyctl {words}", COMMAND_LIMIT_S, check=False
                    )
                except LabError:
                    continue  # the host itself is off, or hangs
                if result.timed_out:
                    self._watch_failed.append(words)
                    self.say(f"'vastskyctl {words}' did not answer:\n{self._why_silent()}")

    def _why_silent(self) -> str:
        """Now: a power cut takes the host's journal with it."""
        try:
            return self.cluster["head1"].run(SILENT, 60, check=False).stdout
        except LabError as error:
            return str(error)

    def round(self) -> None:
        """One or two faults, healed after a while, and all is as it was."""
        faults = [self.choose(storage=True)]
        if self.random.random() < 0.4:
            second = self.choose(storage=False)
            if second.host != faults[0].host:
                faults.append(second)
        if self.random.random() < 0.3:
            faults = faults[1:] or [self.choose(storage=False)]
        for fault in faults:
            self.begin(fault)
            time.sleep(self.random.uniform(*CALM_S))
        time.sleep(self.random.uniform(*FAULT_S))
        for fault in reversed(faults):  # the manager's host before what is asked of it
            self.heal(fault)
        self.good()

    def storm(self, end_s: float) -> None:
        """Faults of all kinds, on hosts that have none yet, and nothing is waited for."""
        active: list[tuple[float, Fault]] = []
        while time.monotonic() < end_s:
            for healed in [entry for entry in active if entry[0] <= time.monotonic()]:
                active.remove(healed)
                self.heal(healed[1])
            for name in list(self.interrupted):
                if self.writers[name].guest.is_running:
                    self.resume(name)
            fault = self.choose(storage=self.random.random() < STORAGE_SHARE)
            hosts = {other.host for _, other in active}
            if len(active) < RUDE_MOST and fault.host not in hosts:
                self.begin(fault)
                active.append((time.monotonic() + self.random.uniform(*FAULT_S), fault))
            time.sleep(self.random.uniform(*CALM_S))
        for _, fault in active:
            self.heal(fault)
        self.good()

    def begin(self, fault: Fault) -> None:
        self.say(fault.name)
        kind = fault.name.split(":")[0]
        self.counts[kind] = self.counts.get(kind, 0) + 1
        fault.begin()

    def heal(self, fault: Fault) -> None:
        self.say(f"  healed: {fault.name}")
        fault.heal()

    def good(self) -> None:
        """All is mended: the hosts and disks are there, the writers write, the copies are good."""
        self.cluster.online(BACK_LIMIT_S)
        try:
            eventually("all disks are used again", self._disks_online, BACK_LIMIT_S)
        except DemoError:
            self.say("\n".join(str(disk) for disk in self.cluster.hosts.disks()))
            raise
        for name, writer in self.writers.items():
            self.cluster.attached(name, BACK_LIMIT_S)
            writer.verify()
            self.resume(name)
            writer.goes_on(10, BACK_LIMIT_S)
            self.cluster.healthy(name, limit_s=BACK_LIMIT_S)
        stalls = {name: writer.stall() for name, writer in self.writers.items()}
        self.say("  good; longest waits " + ", ".join(f"{n} {s:.1f} s" for n, s in stalls.items()))

    def _disks_online(self) -> bool:
        return {disk.state for disk in self.cluster.hosts.disks()} == {"online"}

    def resume(self, name: str) -> None:
        """The writer goes on, if its head lost its power and has the volume again."""
        writer = self.writers[name]
        there = f"test -b /dev/vastsky/{name}"
        if name in self.interrupted and writer.guest.run(there, check=False).exit == 0:
            self.interrupted.remove(name)
            writer.begin()

    # --- faults

    def choose(self, *, storage: bool) -> Fault:
        stores, heads = self.cluster.hosts.stores, self.cluster.hosts.heads
        if storage:
            return self.random.choice(
                [
                    self.power_cut,
                    self.hang,
                    self.reboot,
                    self.kill_servers,
                    self.pull_disk,
                    self.slow_disk,
                    self.dead_networks,
                    self.not_heard,
                ]
            )(self.random.choice(stores))
        make = self.random.choice([self.kill_daemon, self.cut, self.kill_daemon, self.head_dies])
        if make == self.head_dies:
            return make(self.random.choice(sorted(HEADS)))
        return make(self.random.choice((*stores, *heads)))

    def power_cut(self, name: str) -> Fault:
        guest = self.cluster[name]
        return Fault(f"power cut: {name}", guest.kill, lambda: self.cluster.power_on(name))

    def hang(self, name: str) -> Fault:
        guest = self.cluster[name]
        return Fault(f"hangs: {name}", guest.pause, guest.resume)

    def kill_servers(self, name: str) -> Fault:
        def begin() -> None:
            self.cluster[name].run("pkill -KILL qemu-storage || test $? = 1")

        return Fault(f"export servers killed: {name}", begin, lambda: None)

    def pull_disk(self, name: str) -> Fault:
        guest = self.cluster[name]
        disk = self.random.choice(guest.disks)
        return Fault(
            f"disk {disk} pulled: {name}",
            lambda: guest.unplug_disk(disk),
            lambda: guest.plug_disk(disk),
        )

    def reboot(self, name: str) -> Fault:
        def begin() -> None:
            self.cluster.reboot(name)

        return Fault(f"reboot: {name}", begin, lambda: None)

    def slow_disk(self, name: str) -> Fault:
        guest = self.cluster[name]
        disk = self.random.choice(guest.disks)
        rate = self.random.choice((2048, 8192, 65536))
        return Fault(
            f"disk {disk} does {rate} bytes a second: {name}",
            lambda: guest.slow_disk(disk, rate),
            lambda: guest.slow_disk(disk, 0),
        )

    def not_heard(self, name: str) -> Fault:
        """By one other host, a head or another storage host; all others hear it."""
        other = self.random.choice([each for each in self.cluster.all if each != name])
        return Fault(
            f"{other} and the next do not hear each other: {name}",
            lambda: self.cluster.cut_off(name, other),
            lambda: self.cluster.join_again(name),
        )

    def dead_networks(self, name: str) -> Fault:
        """Both networks: the host is cut off, and lives."""
        guest = self.cluster[name]
        loud = self.random.random() < 0.5

        def begin() -> None:
            for network in ("A", "B"):
                if loud:
                    guest.cut_link(network)
                else:
                    guest.cut_silently(network)

        def heal() -> None:
            for network in ("A", "B"):
                guest.restore(network)

        return Fault(f"cut off {'loudly' if loud else 'silently'}: {name}", begin, heal)

    def cut(self, name: str) -> Fault:
        guest = self.cluster[name]
        network = self.random.choice(("A", "B"))
        loud = self.random.random() < 0.5
        begin = guest.cut_link if loud else guest.cut_silently
        how = "loudly" if loud else "silently"
        return Fault(
            f"{network} cut {how}: {name}",
            lambda: begin(network),
            lambda: guest.restore(network),
        )

    def kill_daemon(self, name: str) -> Fault:
        return Fault(
            f"vastskyd killed: {name}",
            lambda: self.cluster.kill_daemon(name),
            lambda: None,
        )

    def head_dies(self, name: str) -> Fault:
        mine = [volume for volume, (_, _, head) in VOLUMES.items() if head == name]

        def begin() -> None:
            self.cluster[name].kill()
            for volume in mine:
                if volume not in self.interrupted:
                    self.writers[volume].lost_power()
                    self.interrupted.add(volume)

        return Fault(f"head's power cut: {name}", begin, lambda: self.cluster.power_on(name))

    # --- the end

    def finish(self) -> None:
        hosts = self.cluster.hosts
        for name, writer in self.writers.items():
            done = writer.end()
            self.say(f"{name}: {done['acknowledged']:.0f} blocks, {done['longest_stall_s']:.1f} s")
            writer.verify()
        for name in VOLUMES:
            self.cluster.ctl(f"volume detach {name}", COMMAND_LIMIT_S)
        for name, (_, copies, _) in VOLUMES.items():
            # One at a time, on another head than before, with nobody who writes.
            self.cluster.ctl(f"volume attach {name} head2", COMMAND_LIMIT_S)
            self.cluster.healthy(name, limit_s=BACK_LIMIT_S)
            writer = self.writers[name]
            writer.verify(self.cluster["head2"])
            LOGS.mkdir(parents=True, exist_ok=True)
            notes = LOGS / f"notes-{name}"
            notes.write_bytes(writer.guest.get(writer.notes))
            wanted = set(blocks.last_acknowledged(notes, writer.slots).values())
            said = compare_copies(hosts, "head2", hosts.stores, copies, wanted)
            self.say(f"{name}: {copies} copies are equal ({said}, {len(wanted)} blocks)")
            self.cluster.ctl(f"volume detach {name}", COMMAND_LIMIT_S)
            self.cluster.ctl(f"volume delete {name} --yes", COMMAND_LIMIT_S)
        self.cluster.clean(BACK_LIMIT_S)
        eventually("all space is free", lambda: hosts.free() == self.free, BACK_LIMIT_S)
        status = hosts.ask(answers.ClusterStatus, "status")
        require(status.health == "ok", f"at the end: {status.problems}")


def end(*_: object) -> None:
    raise DemoError("ended from outside")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rude", action="store_true", help="several faults at a time")
    parser.add_argument("--deb", type=Path, nargs="+", required=True)
    parser.add_argument("--encryption", choices=["tls", "none"], default="none")
    arguments = parser.parse_args()
    seed = random.randrange(1 << 30) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    signal.signal(signal.SIGTERM, end)
    with Lab(f"chaos-{seed}") as lab:
        try:
            cluster = make_cluster(lab, arguments.deb, encryption=arguments.encryption)
            chaos = Chaos(cluster, seed)
            chaos.run(arguments.seconds, rude=arguments.rude)
        except Exception:  # noqa: BLE001 - whatever it was, the journals are wanted
            traceback.print_exc()
            print(f"FAILED with seed {seed}; the journals are in {LOGS}", flush=True)
            return 1
        finally:
            lab.collect(LOGS)
    print(f"All as promised, with seed {seed}: {chaos.counts}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
