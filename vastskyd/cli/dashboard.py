"""What `vastskyctl top` draws: one page of a cluster as it is. Pure: values in, a page out.

Names and messages come from elsewhere: `_text` shows them, so that nothing in them counts as rich's
markup, or to the terminal.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vastskyd.cli.output import cell, colour_of, format_duration, format_time
from vastskyd.core import answers
from vastskyd.core.ids import JobId
from vastskyd.core.model import Event, Job, JobState
from vastskyd.core.units import format_size

RATE_SAMPLES = 8  # a rate is taken over so many looks
BAR_WIDTH = 20

Row = tuple[RenderableType, ...]


@dataclass(frozen=True)
class Snapshot:
    """What was answered, and when by a clock that only goes forward."""

    time_s: float
    status: answers.ClusterStatus
    nodes: tuple[answers.NodeView, ...]
    disks: tuple[answers.DiskView, ...]
    volumes: tuple[answers.VolumeView, ...]
    jobs: tuple[Job, ...]
    events: tuple[Event, ...]


class Rates:
    """How fast running jobs go, from what was seen of them. Those that have ended are forgotten."""

    def __init__(self) -> None:
        self._seen: dict[JobId, deque[tuple[float, int]]] = {}

    def see(self, snapshot: Snapshot) -> None:
        before = self._seen
        self._seen = {}
        for job in snapshot.jobs:
            samples = before.get(job.id, deque(maxlen=RATE_SAMPLES))
            if samples and job.done_bytes < samples[-1][1]:
                samples.clear()  # it began anew
            samples.append((snapshot.time_s, job.done_bytes))
            self._seen[job.id] = samples

    def of(self, job: JobId) -> float | None:
        """Bytes a second; None: it was not seen for long enough."""
        samples = self._seen.get(job)
        if not samples or samples[-1][0] <= samples[0][0]:
            return None
        return (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0])


@dataclass(frozen=True)
class Section:
    """A table; the first `rows` matter most, for there may not be room for all."""

    titles: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def height(self) -> int:
        """With its titles and the blank line above."""
        return len(self.rows) + 2


def page(snapshot: Snapshot, rates: Rates, *, height: int, note: str = "") -> Group:
    """At most `height` lines, of which there are 4 at least."""
    head = _head(snapshot.status, note, most=max(1, height // 3))
    sections = [
        section
        for section in (
            _nodes(snapshot.nodes),
            _disks(snapshot.disks),
            _volumes(snapshot.volumes),
            _jobs(snapshot.jobs, rates),
            _events(snapshot.events),
        )
        if section.rows
    ]
    room = allot([section.height for section in sections], height - len(head))
    return Group(*head, *(_table(*each) for each in zip(sections, room, strict=True) if each[1]))


def allot(wanted: Sequence[int], room: int) -> list[int]:
    """Who wants little gets it; the others share what is left, the first of them the more."""
    given = [0] * len(wanted)
    left = max(room, 0)
    by_size = sorted(range(len(wanted)), key=lambda index: (wanted[index], -index))
    for number, index in enumerate(by_size):
        given[index] = min(wanted[index], left // (len(by_size) - number))
        left -= given[index]
    return given


def _table(section: Section, room: int) -> RenderableType:
    if room < 3:  # no room for a row
        return Text()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=False)
    for title in section.titles:
        table.add_column(Text(title, style="bold"), no_wrap=True, overflow="ellipsis")
    fits = room >= section.height
    kept = section.rows if fits else section.rows[: room - 3]
    for row in kept:
        table.add_row(*row)
    if not fits:
        table.add_row(Text(f"... {len(section.rows) - len(kept)} more", style="dim"))
    return Group(Text(), table)


# --- the parts ----------------------------------------------------------------------------------


def _head(status: answers.ClusterStatus, note: str, *, most: int) -> list[Text]:
    """With at most so many lines on problems."""
    first = Text.assemble(
        (cell(status.name), "bold"), "  ", _word(status.health),
        f"  nodes {status.nodes_online}/{status.nodes}",
        f"  disks {status.disks_online}/{status.disks}",
        f"  volumes {status.volumes_redundant}/{status.volumes} redundant",
        f"  {format_size(status.free_bytes)} of {format_size(status.capacity_bytes)} free",
    )  # fmt: skip
    problems = [f"  {problem}" for problem in status.problems[:most]]
    if len(status.problems) > most:
        problems[most - 1 :] = [f"  ... {len(status.problems) - most + 1} more problems"]
    lines = [first, *(_text(problem, style="yellow") for problem in problems)]
    if note:
        lines.append(_text(note, style="bold red"))
    for line in lines:
        line.no_wrap = True
        line.overflow = "ellipsis"
    return lines


def _nodes(nodes: Iterable[answers.NodeView]) -> Section:
    ordered = sorted(nodes, key=lambda node: (node.state == "online", node.id))
    rows = (
        (
            _text(node.id),
            _word(node.state, format_duration(node.unreachable_s) if node.unreachable_s else ""),
            Text(",".join(node.roles)),
            _text(node.rack),
        )
        for node in ordered
    )
    return Section(("NODE", "STATE", "ROLES", "RACK"), tuple(rows))


def _disks(disks: Iterable[answers.DiskView]) -> Section:
    enrolled = [disk for disk in disks if disk.id]
    enrolled.sort(key=lambda disk: (disk.state == "online", not disk.message, disk.node, disk.path))
    rows = (
        (
            _text(f"{disk.node}:{disk.path}"), _word(disk.state),
            Text(format_size(disk.size_bytes)),
            _bar(disk.size_bytes - disk.free_bytes, disk.size_bytes), _text(disk.message),
        )
        for disk in enrolled
    )  # fmt: skip
    return Section(("DISK", "STATE", "SIZE", "USED", "MESSAGE"), tuple(rows))


def _volumes(volumes: Iterable[answers.VolumeView]) -> Section:
    ordered = sorted(volumes, key=lambda volume: (volume.health == "redundant", volume.name))
    rows = (
        (
            _text(volume.name), _word(volume.health), Text(format_size(volume.size_bytes)),
            _text(volume.head), _word(str(volume.attachment or volume.state)),
            _text(volume.message),
        )
        for volume in ordered
    )  # fmt: skip
    return Section(("VOLUME", "HEALTH", "SIZE", "HEAD", "STATE", "MESSAGE"), tuple(rows))


def _jobs(jobs: Iterable[Job], rates: Rates) -> Section:
    running = [job for job in jobs if job.state is JobState.RUNNING]
    running.sort(key=lambda job: (not job.total_bytes, job.started_s))
    rows = (
        (
            _text(f"{job.kind} {job.about}"), _bar(job.done_bytes, job.total_bytes),
            *_pace(job, rates.of(job.id)), _text(job.message),
        )
        for job in running
    )  # fmt: skip
    return Section(("JOB", "DONE", "RATE", "LEFT", "MESSAGE"), tuple(rows))


def _pace(job: Job, rate: float | None) -> tuple[Text, Text]:
    if rate is None or not job.total_bytes:
        return Text("-"), Text("-")
    left_bytes = max(job.total_bytes - job.done_bytes, 0)
    left = format_duration(left_bytes / rate) if rate > 0 else "-"
    return Text(f"{format_size(int(rate))}/s"), Text(left)


def _events(events: Iterable[Event]) -> Section:
    newest_first = sorted(events, key=lambda event: -event.number)
    rows = (
        (Text(format_time(event.time_s)), _word(event.severity), _text(event.message))
        for event in newest_first
    )
    return Section(("TIME", "SEVERITY", "EVENT"), tuple(rows))


def _text(text: str, style: str = "") -> Text:
    return Text(click.unstyle(cell(text)), style=style)


def _word(word: str, more: str = "") -> Text:
    return Text.assemble((cell(word), colour_of(word) or ""), f" {more}" if more else "")


def _bar(done_bytes: int, total_bytes: int) -> RenderableType:
    if not total_bytes:
        return Text("-")
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(
        ProgressBar(total=total_bytes, completed=done_bytes, width=BAR_WIDTH),
        Text(f"{100 * done_bytes // total_bytes:3} %"),
    )
    return grid
