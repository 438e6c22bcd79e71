"""Five hosts, a volume over three servers' disks, a power cut, the repair.

Run it with `./run demo`. It ends with an error if anything is not as promised.
"""

import argparse
import signal
import sys
import threading
import traceback
from concurrent.futures import Future
from pathlib import Path

from tests.demo import writer
from tests.demo.copies import compare_copies
from tests.demo.hosts import DISKS, HEADS, MANAGER, MIB, NOTES, SLOTS, STORES, Hosts
from tests.demo.narrator import DemoError, Narrator, require, wait_until
from tests.lab.guest import Result
from tests.lab.host import LabError
from tests.lab.lab import Lab
from vastskyd.core import answers
from vastskyd.core.model import Job, JobKind, JobState

VOLUME = "data"
DEVICE = f"/dev/vastsky/{VOLUME}"
FOLDER = "/srv/data"
BLOCKS = f"{FOLDER}/blocks"
VICTIM = "store2"
TERMINAL = "head2"
BLOCKS_BEFORE = BLOCKS_AFTER = 100
LOGS = Path("build/demo")

SETTINGS = """\
# Most hosts come back within minutes, and vastskyd waits for them; a demo does not.
[timeouts]
rebuild_delay_s = 10
"""


class Demo:
    """The steps, in the order of `run`."""

    def __init__(self, arguments: argparse.Namespace, hosts: Hosts, narrator: Narrator) -> None:
        self.arguments = arguments
        self.hosts = hosts
        self.narrator = narrator
        self.free_before: dict[str, int] = {}
        self.power_on: threading.Thread | None = None
        self.power_on_failed: list[BaseException] = []

    def run(self) -> None:
        self.bring_up()
        self.make_cluster()
        self.enrol_disks()
        self.make_volume()
        written = self.lose_a_server_while_writing()
        self.give_power_back()
        self.check_every_copy(written)
        self.move_to_other_head()
        self.delete()
        self.find_nothing_left()

    # --- a cluster with a volume

    def bring_up(self) -> None:
        with self.narrator.step("Five hosts with real kernels, and the package on each"):
            self.hosts.up(self.arguments.disk_mib, self.arguments.deb, SETTINGS)
            disks = f"{len(DISKS)} disks of {self.arguments.disk_mib} MiB each"
            self.narrator.line(f"{', '.join(HEADS)}; {', '.join(STORES)} with {disks}")

    def make_cluster(self) -> None:
        hosts = self.hosts
        with self.narrator.step("A cluster: one host makes it, the others join with a token"):
            encryption = f"--data-encryption {self.arguments.encryption}"
            hosts.type(
                f"cluster init --name demo {encryption} --role manager --role head"
                f" {hosts.addresses(MANAGER)}"
            )
            hosts.join_all()
            for name in (*STORES, "head2"):
                self.narrator.line(f"{name}# vastskyctl join TOKEN {hosts.addresses(name)}")
            # The program will write on the manager's host: emulated, it is busy enough with that.
            hosts.terminal = TERMINAL
            wait_until("all five hosts are online", lambda: self.hosts.online() == 5, 60)
            hosts.type("node list")

    def enrol_disks(self) -> None:
        hosts = self.hosts
        with self.narrator.step("Their empty disks are taken in"):
            wait_until("all disks are offered", lambda: len(hosts.offered()) == self.disks(), 30)
            offered = hosts.offered()
            for disk in offered:
                require(not disk.message, f"{disk.path} of {disk.node}: {disk.message}")
                self.narrator.line(f"{disk.node}# vastskyctl disk enrol {disk.path} --no-wait")

            hosts.enrol(offered)
            wait_until("all disks are enrolled", self.all_enrolled, 90)
            hosts.type("disk list")
            self.free_before = hosts.free()
            require(len(self.free_before) == self.disks(), "a disk is missing after enrolment")

    def all_enrolled(self) -> bool:
        found = self.hosts.disks()
        return len(found) == self.disks() and all(disk.state == "online" for disk in found)

    def disks(self) -> int:
        return len(STORES) * len(DISKS)

    def volume(self) -> answers.VolumeView:
        return self.hosts.volume(VOLUME)

    def make_volume(self) -> None:
        size, disk = self.arguments.volume_mib, self.arguments.disk_mib
        title = (
            f"A volume of {size} MiB with two copies, on disks of {disk} MiB; a file system on it"
        )
        with self.narrator.step(title):
            self.hosts.type(f"volume create {VOLUME} {size}M --copies 2", timeout_s=120)
            self.hosts.type(f"volume attach {VOLUME} head1", timeout_s=120)
            self.hosts.shell(f"mkfs.ext4 -q -b 4096 {DEVICE}")
            self.hosts.shell(f"mkdir -p {FOLDER} && mount {DEVICE} {FOLDER}")
            self.hosts.type(f"volume show {VOLUME}")
            shown = self.volume()
            require(shown.health == "redundant", f"the new volume is {shown.health}")
            nodes = {leg.node for segment in shown.segments for leg in segment.legs}
            require(VICTIM in nodes, f"nothing of the volume is on {VICTIM}, only on {nodes}")

    # --- the power cut

    def lose_a_server_while_writing(self) -> dict[str, float]:
        size = self.arguments.volume_mib * 3 // 4 * MIB
        writing = self.hosts.start_writer("head1", BLOCKS, size)
        with self.narrator.step(f"A program writes checksummed blocks; {VICTIM} loses its power"):
            self.await_writes(writing, BLOCKS_BEFORE)
            before = self.hosts.written("head1")
            self.narrator.line(f"{before['acknowledged']:.0f} blocks acknowledged so far")
            self.hosts.lab[VICTIM].kill()
            self.narrator.line(f"{VICTIM} is off")
            self.await_writes(writing, before["acknowledged"] + BLOCKS_AFTER)
            stall = self.hosts.written("head1")["longest_stall_s"]
            self.narrator.line(f"the program writes on; its longest wait was {stall:.1f} s")
        self.see_repair(writing)
        return self.end_writing(writing)

    def await_writes(self, writing: Future[Result], count: float) -> None:
        def enough() -> bool:
            if writing.done():  # too early, whatever the reason
                result = writing.result()
                raise DemoError(f"the writer ended: {result.stdout}{result.stderr}")
            notes = self.hosts.lab["head1"].run(f"stat -c %s {NOTES} || echo 0", check=False)
            return int(notes.stdout or 0) >= count * writer.NOTE.size

        wait_until(f"{count:.0f} blocks are acknowledged", enough, 60)

    def see_repair(self, writing: Future[Result]) -> None:
        with self.narrator.step("The cluster sees it, and after the delay rebuilds what is lost"):
            wait_until("the volume is shown degraded", lambda: self.health() != "redundant", 30)
            self.hosts.type(f"volume show {VOLUME}")
            self.hosts.type("status")
            wait_until("a rebuild has begun", lambda: bool(self.rebuilds()), 60)
            self.watch_rebuilds()
            require(not writing.done(), "the writer ended during the rebuild")
            self.hosts.type("job list")
            self.hosts.type(f"volume show {VOLUME}")
            left = [
                leg for segment in self.volume().segments for leg in segment.legs
                if leg.node == VICTIM
            ]  # fmt: skip
            require(not left, f"redundant, they say, and still with legs on {VICTIM}")

    def health(self) -> str:
        return self.volume().health

    def rebuilds(self) -> list[Job]:
        return [
            job
            for job in self.hosts.look(answers.JobList, "ListJobs").jobs
            if job.kind is JobKind.REBUILD
        ]

    def watch_rebuilds(self) -> None:
        """Until the volume is redundant; says how far each rebuild is, when it has moved on."""
        shown: dict[str, int] = {}

        def redundant() -> bool:
            for job in self.rebuilds():
                require(job.state is not JobState.FAILED, f"a rebuild failed: {job.message}")
                share = 100 * job.done_bytes // job.total_bytes if job.total_bytes else 0
                if job.state is JobState.DONE:
                    share = 100
                if share // 25 > shown.get(job.id, -1):
                    shown[job.id] = share // 25
                    now = self.narrator.seconds()
                    self.narrator.line(f"[{now:.1f} s] rebuild {job.about}: {share} %")
            return self.health() == "redundant"

        wait_until("the volume is redundant again", redundant, 300)

    def end_writing(self, writing: Future[Result]) -> dict[str, float]:
        with self.narrator.step("The program stops; no write failed"):
            written = self.hosts.stop_writer("head1", writing)
            count, stall = written["acknowledged"], written["longest_stall_s"]
            self.narrator.line(f"{count:.0f} blocks acknowledged; longest stall {stall:.1f} s")
            return written

    def give_power_back(self) -> None:
        """While the rest goes on: a boot under emulation takes its time."""

        def boot() -> None:
            try:
                self.hosts.lab[VICTIM].power_on()
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                self.power_on_failed.append(error)

        self.power_on = threading.Thread(target=boot, daemon=True)
        self.power_on.start()

    # --- what the disks hold

    def check_every_copy(self, written: dict[str, float]) -> None:
        hosts = self.hosts
        with self.narrator.step("Every acknowledged block, read through the file system and off"
                                " every copy's own disk"):  # fmt: skip
            self.verify_files("head1")
            hosts.shell(f"umount {FOLDER}")
            notes = hosts.lab["head1"].get(NOTES)
            local = LOGS / "notes"
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(notes)
            wanted = set(writer.last_acknowledged(local, SLOTS).values())
            require(len(notes) // writer.NOTE.size == written["acknowledged"], "notes are missing")
            self.compare_copies(wanted)

    def verify_files(self, host: str) -> None:
        found = self.hosts.verify(host, BLOCKS)
        require(not found["lost_count"], f"acknowledged writes were lost: {found}")
        self.narrator.line(f"{host}: {found['slots']} places hold what was last acknowledged there")

    def compare_copies(self, wanted: set[int]) -> None:
        alive = [name for name in STORES if name != VICTIM]
        said = compare_copies(self.hosts, "head1", alive, 2, wanted)
        self.narrator.line(
            f"{said}: both copies are equal, and each holds all {len(wanted)} blocks"
        )

    def move_to_other_head(self) -> None:
        hosts = self.hosts
        with self.narrator.step("The volume moves to the other head, and is the same there"):
            hosts.type(f"volume detach {VOLUME}", timeout_s=120)
            hosts.type(f"volume attach {VOLUME} head2", timeout_s=120)
            hosts.shell(f"mkdir -p {FOLDER} && mount {DEVICE} {FOLDER}", "head2")
            hosts.lab["head2"].put(NOTES, (LOGS / "notes").read_bytes())
            self.verify_files("head2")
            hosts.shell(f"umount {FOLDER}", "head2")

    def delete(self) -> None:
        with self.narrator.step("Detached and deleted"):
            self.hosts.type(f"volume detach {VOLUME}", timeout_s=120)
            self.hosts.type(f"volume delete {VOLUME} --yes", timeout_s=120)

    def find_nothing_left(self) -> None:
        with self.narrator.step(
            f"{VICTIM} is back; nothing is left on any host, all space is free"
        ):
            assert self.power_on is not None
            self.power_on.join(240)
            require(not self.power_on.is_alive(), f"{VICTIM} does not boot")
            if self.power_on_failed:
                raise self.power_on_failed[0]
            self.hosts.put_programs(self.hosts.lab[VICTIM])
            wait_until(f"{VICTIM} is online again", lambda: self.hosts.online() == 5, 90)
            names = (*HEADS, *STORES)
            left: dict[str, list[str]] = {}

            def clean() -> bool:
                found = self.hosts.each(lambda g: self.hosts.leftovers(g.name), names)
                left.clear()
                left.update({name: what for name, what in found.items() if what})
                return not left

            try:
                wait_until("every host is clean", clean, 60)
            except DemoError as error:
                raise DemoError(f"{error}: {left}") from None
            wait_until("all space is free", lambda: self.hosts.free() == self.free_before, 60)
            self.hosts.type("disk list")
            self.hosts.type("status")


def arguments_of(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("--deb", type=Path, nargs="+", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--encryption", choices=["tls", "none"], default="tls",
                        help="of the data path (default: tls)")  # fmt: skip
    parser.add_argument("--disk-mib", type=int, default=64, help="size of each of the six disks")
    parser.add_argument("--volume-mib", type=int, default=80, help="size of the volume")
    return parser.parse_args(words)


def end(*_: object) -> None:
    raise DemoError("ended from outside")


def main() -> int:
    arguments = arguments_of(sys.argv[1:])
    signal.signal(signal.SIGTERM, end)  # so that the journals are saved then, too
    narrator = Narrator()
    with Lab() as lab:
        hosts = Hosts(lab, narrator)
        try:
            Demo(arguments, hosts, narrator).run()
        except (DemoError, LabError) as error:
            print(f"\n[{narrator.seconds():6.1f} s] FAILED: {error}", flush=True)
            hosts.save_journals(LOGS)
            print(f"the hosts' journals are in {LOGS}")
            return 1
        except Exception:  # noqa: BLE001 - whatever it was, the journals are wanted
            traceback.print_exc()
            hosts.save_journals(LOGS)
            return 1
    print(f"\n[{narrator.seconds():6.1f} s] All as promised.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
