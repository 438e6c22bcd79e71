"""A row of the fault matrix: a volume under writes, a fault, what is said of it, and the repair.

What each row measured goes to build/matrix.jsonl; docs/failures.md has it for people.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.cluster.cluster import PAUSE_S, Cluster, Writer, eventually, within
from tests.demo.copies import compare_all_copies
from tests.demo.hosts import MANAGER
from tests.demo.narrator import DemoError
from vastskyd.core import answers
from vastskyd.core.model import Event
from vastskyd.core.units import parse_size

MEASURED = Path("build/matrix.jsonl")
VOLUMES = {"two": (32, 2), "three": (24, 3)}
"""Name: size in MiB, copies. They stay from row to row, attached to `HEAD`. A disk has room for a
leg of each."""
HEAD = "head2"
SAY_S = 5.0
# The hosts share two emulated cores: what takes 5 s on a server may take 15 s here.
SLACK = 3.0
MENDED_LIMIT_S = 150


class Row:
    """What a row's test says and asks for."""

    def __init__(self, cluster: Cluster, name: str, writers: dict[str, Writer]) -> None:
        self.cluster = cluster
        self.name = name
        self.writers = writers
        self.measured: dict[str, float] = {}
        self._struck_s = 0.0
        self._clock_s = 0.0
        self._events = 0
        self._old = next(iter(writers.values()))

    # --- the fault

    def strike(self, *faults: Callable[[], object], told: bool = True) -> None:
        """Now. What is said is counted from here; `told`: there is a manager to tell it."""
        if told:
            self._events = max((event.number for event in self._all_events()), default=0)
        self._clock_s = float(self.cluster[MANAGER].run("date +%s.%N").stdout)
        self._struck_s = time.monotonic()
        for fault in faults:
            fault()

    def until(self, seconds: float) -> None:
        """So long after the fault."""
        time.sleep(max(0.0, self._struck_s + seconds - time.monotonic()))

    def lost_power(self) -> None:
        """The head did, and all that wrote there ended."""
        for writer in self.writers.values():
            writer.lost_power()

    def verify(self) -> None:
        """Whatever was acknowledged so far is there."""
        for writer in self.writers.values():
            writer.verify()

    def begin_again(self) -> None:
        for writer in self.writers.values():
            writer.begin()

    def stop(self, volume: str) -> None:
        """The writer ends in good order; `begin_again` goes on with it."""
        stall_s = round(self.writers[volume].end()["longest_stall_s"], 1)
        key = f"longest_stall_s_{volume}"
        self.measured[key] = max(stall_s, self.measured.get(key, 0.0))

    # --- a volume that moves

    def move(self, volume: str, head: str) -> Writer:
        """A writer on the volume's new head. The old one may be alive."""
        self._old = self.writers[volume]
        self.writers[volume] = self._old.moved_to(self.cluster[head]).begin()
        return self.writers[volume]

    def old_count(self) -> int:
        """What was acknowledged on the old head."""
        return self._old.count()

    def fenced(self) -> None:
        """The writer on the old head was ended: it was told of no success that is not so, by what
        the new head's volume holds at the end."""
        result = self._old.result(SLACK * 20)
        if result.exit == 0:
            raise DemoError(f"the writer on the old head was not ended: {result}")

    def comes_home(self, volume: str) -> None:
        """All that was acknowledged on either head is there; the volume is `HEAD`'s again."""
        self.stop(volume)
        self.writers[volume].verify()
        self.cluster.ctl(f"volume set {volume} --no-standby")
        self.cluster.ctl(f"volume detach {volume}", 90)
        self.cluster.ctl(f"volume attach {volume} {HEAD}", 90)
        self.writers[volume] = self.writers[volume].moved_to(self.cluster[HEAD])
        self.writers[volume].verify()
        self.writers[volume].begin()

    def stack(self, host: str, volume: str) -> list[str]:
        """What a host's kernel has of a volume."""
        mark = f"-{self.cluster.volume(volume).id}-"
        return [line for line in self.cluster.hosts.leftovers(host) if mark in line]

    # --- what is said

    def says(
        self,
        *,
        status: Sequence[str] = (),
        events: Sequence[str] = (),
        noticed_after_s: float = 0.0,
    ) -> None:
        """Within five seconds of when it can be known, `vastskyctl status` has a line for each
        pattern, and the event list and the manager's journal have each kind of event."""
        limit_s = SLACK * (noticed_after_s + SAY_S) - (time.monotonic() - self._struck_s)
        missing: list[str] = []

        def all_said() -> bool:
            missing[:] = [*self._not_in_status(status), *self._not_in_events(events)]
            return not missing

        try:
            within("status and events say it", all_said, limit_s)
        except DemoError as error:
            said = "\n".join(self.problems())
            raise DemoError(f"{error}: {missing}; status says:\n{said}") from None
        self.measured["said_after_s"] = round(time.monotonic() - self._struck_s, 1)
        self.cluster_journal_has(events)

    def said(self, events: Sequence[str]) -> None:
        """Since the fault, or soon."""
        within(f"events: {events}", lambda: not self._not_in_events(events), SLACK * SAY_S)
        self.cluster_journal_has(events)

    def said_ever(self, events: Sequence[str]) -> None:
        kinds = {event.kind for event in self._all_events()}
        if not set(events) <= kinds:
            raise DemoError(f"of {events} only {kinds} were told")

    def local_status_says(self, host: str, pattern: str, noticed_after_s: float = 8.0) -> None:
        """`vastskyctl status` of a host that knows no more than itself."""
        said = ""

        def is_so() -> bool:
            nonlocal said
            result = self.cluster[host].run("vastskyctl status", 60, check=False)
            said = result.stdout + result.stderr
            return re.search(pattern, said) is not None

        try:
            within(f"{host} says {pattern}", is_so, SLACK * (noticed_after_s + SAY_S))
        except DemoError as error:
            raise DemoError(f"{error}: it says:\n{said}") from None

    def cluster_journal_has(self, events: Sequence[str]) -> None:
        """The manager's journal, by its fields. journald may take a moment to write them."""
        for kind in events:
            told = partial(self._is_in_journal, kind)
            within(f"the journal of {MANAGER} has {kind}", told, SLACK * SAY_S)

    def _is_in_journal(self, kind: str) -> bool:
        asked = f"journalctl -q -o cat --since @{self._clock_s - 1:.0f} VASTSKY_EVENT={kind}"
        return bool(self.cluster[MANAGER].run(asked).stdout.strip())

    def journal_has(self, host: str, pattern: str) -> None:
        """The host's own journal, since the fault."""
        asked = f"journalctl -q -o cat -u vastskyd --since @{self._clock_s - 1:.0f}"
        within(
            f"the journal of {host} says {pattern!r}",
            lambda: re.search(pattern, self.cluster[host].run(asked).stdout),
            SLACK * SAY_S,
        )

    def says_nothing(self) -> None:
        """Nothing is wrong that anybody should know; a host that is too busy to speak may be missed
        for a moment."""
        within("status has no problems", lambda: not self.problems(), SLACK * SAY_S)

    def problems(self) -> tuple[str, ...]:
        return self.cluster.hosts.look(answers.ClusterStatus, "Status").problems

    def events(self) -> list[str]:
        """The kinds of those since the fault."""
        return [event.kind for event in self._all_events() if event.number > self._events]

    def _all_events(self) -> Sequence[Event]:
        return self.cluster.hosts.look(answers.EventList, "ListEvents").events

    def _not_in_status(self, patterns: Sequence[str]) -> list[str]:
        said = self.problems() if patterns else ()
        return [each for each in patterns if not any(re.search(each, line) for line in said)]

    def _not_in_events(self, kinds: Sequence[str]) -> list[str]:
        seen = self.events() if kinds else []
        return [kind for kind in kinds if kind not in seen]

    # --- the repair

    def goes_on(self, blocks: int = 5, limit_s: float = MENDED_LIMIT_S) -> None:
        wanted = {writer: writer.count() + blocks for writer in self.writers.values()}

        def enough() -> bool:
            for writer in [each for each, count in wanted.items() if each.count() >= count]:
                del wanted[writer]
            for writer in wanted:
                writer.check()
            return not wanted

        eventually(f"{blocks} more blocks of each are acknowledged", enough, limit_s)

    def mended(self, limit_s: float = MENDED_LIMIT_S) -> None:
        """All volumes have all their copies again, and status has nothing to say of them."""
        begun_s = time.monotonic()
        for name in VOLUMES:
            self.cluster.healthy(name, limit_s=limit_s)
        eventually("status is content", lambda: not self.problems(), limit_s)
        self.measured["mended_after_s"] = round(time.monotonic() - begun_s, 1)

    def refilled_bytes(self, volume: str) -> int:
        """What the last rebuild since the fault says was written to the leg that came back."""
        wanted = self.cluster.volume(volume).id

        def said() -> list[tuple[float, str]]:
            jobs = self.cluster.hosts.look(answers.JobList, "ListJobs").jobs
            return [
                (job.started_s, found[1] + found[2].removesuffix("iB").removesuffix("B"))
                for job in jobs
                if job.subject == wanted
                and job.started_s >= self._clock_s
                and (found := re.search(r"([0-9.]+) (\w+) were written to it", job.message))
            ]

        rebuilds = within(f"a rebuild of {volume} says what was written", said, SLACK * SAY_S)
        return parse_size(max(rebuilds)[1])


def ensure_volumes(cluster: Cluster) -> None:
    """Those of `VOLUMES`, attached."""
    there = {view.name for view in cluster.hosts.look(answers.VolumeList, "ListVolumes").volumes}
    for name, (mib, copies) in VOLUMES.items():
        if name not in there:
            cluster.ctl(f"volume create {name} {mib}M --copies {copies}", 90)
        if cluster.volume(name).attachment is None:
            cluster.ctl(f"volume attach {name} {HEAD}", 90)


@contextmanager
def row(
    cluster: Cluster, name: str, *volumes: str, slots: int = 256, pause_s: float = PAUSE_S
) -> Iterator[Row]:
    """Writers on these volumes from before the fault until all is well again; then every
    acknowledged block must be there, on every copy."""
    head = cluster[HEAD]
    made = Row(
        cluster,
        name,
        {
            volume: Writer(
                head, f"/dev/vastsky/{volume}", f"{name}-{volume}", slots=slots, pause_s=pause_s
            ).begin()
            for volume in volumes
        },
    )
    made.goes_on()
    yield made
    made.goes_on()
    made.mended()
    for volume, writer in made.writers.items():
        made.stop(volume)
        writer.verify()
    compare_all_copies(cluster.hosts, HEAD, cluster.hosts.stores)
    MEASURED.parent.mkdir(exist_ok=True)
    with MEASURED.open("a") as out:
        out.write(json.dumps({"row": name, **made.measured}) + "\n")
    print(name, made.measured)
