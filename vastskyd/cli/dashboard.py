"""What `vastskyctl top` draws: one page of a cluster as it is. Pure: values in, a page out.

The page is for whoever is woken at night: what is not well, and why; how far its rebuild is; which
node and which disk is away. Sections stand in this order of importance, and in each of them what is
not well is first. Where there is no room for all, that is what is shown.

Names and messages come from elsewhere: `_text` shows them, so that nothing in them counts to the
terminal.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click
from rich.console import Group
from rich.text import Text

from vastskyd.cli.output import (
    cell,
    format_duration,
    format_share,
    format_time,
    paint,
    width,
)
from vastskyd.cli.table import ORNAMENT, Column, Row, lay_out, shorten
from vastskyd.core import answers
from vastskyd.core.ids import JobId
from vastskyd.core.model import Event, Job, JobKind, JobState
from vastskyd.core.units import format_size

RATE_SAMPLES = 8  # a rate is taken over so many looks
_BAR_WIDTH = 20
_LOOSENESS = ((1, 3), (1, 1), (0, 1))  # blank lines between sections, lines of a message at most
_EVENTS_WANTED = 5
_WIDE = 100  # from here on times have their year


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
    """A table; `urgent` of its rows, the first, are of what is not well, which `urgently` says, and
    `wanted` of them come before rows of what is well."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    urgent: int = 0
    urgently: str = ""
    wanted: int = 0


@dataclass(frozen=True)
class Drawn:
    """A section of which each row has its lines."""

    section: Section
    titles: str
    rows: tuple[tuple[str, ...], ...]

    def height(self, rows: int) -> int:
        """Of so many of its rows, with the titles, and with a line that says how many are not
        shown; of none nothing."""
        shown = self.rows[:rows]
        return 1 + sum(map(len, shown)) + (len(shown) < len(self.rows)) if shown else 0

    def lines(self, room: int) -> list[str]:
        shown = len(self.rows)
        while self.height(shown) > room:
            shown -= 1
        if not shown:
            return []
        lines = [self.titles, *(line for row in self.rows[:shown] for line in row)]
        if hidden := len(self.rows) - shown:
            lines.append(f"... {hidden} more{self._of_these(shown)}")
        return lines

    def _of_these(self, shown: int) -> str:
        hidden = self.section.urgent - shown
        return f", {hidden} of them {self.section.urgently}" if hidden > 0 else ""


def page(snapshot: Snapshot, rates: Rates, *, columns: int, height: int, note: str = "") -> Group:
    """At most `height` lines, of which there are 4 at least, each of at most `columns` letters."""
    head = _head(snapshot.status, note, columns, most=max(1, height // 4))
    sections = (
        _volumes(snapshot.volumes),
        _jobs(snapshot.jobs, rates),
        _nodes(snapshot.nodes),
        _disks(snapshot.disks),
        _events(snapshot.events, columns),
    )
    lines = _arranged([each for each in sections if each.rows], columns, height - len(head))
    return Group(*(_one_line(line) for line in (*head, *lines)))


def _arranged(sections: Sequence[Section], columns: int, room: int) -> list[str]:
    """As loose as leaves room for all that is urgent."""
    for apart, lines_most in _LOOSENESS:
        drawn = [_draw(section, columns, lines_most) for section in sections]
        left = room - apart * len(drawn)
        if sum(each.height(max(each.section.urgent, 1)) for each in drawn) <= left:
            break
    pages = [each.lines(lines) for each, lines in zip(drawn, allot(drawn, left), strict=True)]
    return [line for lines in pages if lines for line in ([""] * apart + lines)]


def _draw(section: Section, columns: int, lines_most: int) -> Drawn:
    laid = lay_out(section.columns, section.rows, columns, lines_most)
    return Drawn(section, laid.titles, laid.rows)


def allot(drawn: Sequence[Drawn], room: int) -> list[int]:
    """Lines for each: a row of what is not well for all that have one, then all of these rows, then
    those that are wanted, and then the others. Who would have less than a row has nothing, the
    least important first: others have more."""
    shown = list(range(len(drawn)))
    while shown:
        of = [drawn[at] for at in shown]
        given = share(
            (
                [each.height(min(each.section.urgent, 1)) for each in of],
                [each.height(each.section.urgent) for each in of],
                [each.height(max(each.section.urgent, each.section.wanted)) for each in of],
                [each.height(len(each.rows)) for each in of],
            ),
            room,
        )
        short = [at for at, got in zip(shown, given, strict=True) if got < drawn[at].height(1)]
        if not short:
            break
        shown.remove(max(short, key=lambda at: (not drawn[at].section.urgent, at)))
    lines = dict(zip(shown, given, strict=True)) if shown else {}
    return [lines.get(at, 0) for at in range(len(drawn))]


def share(stages: Iterable[Sequence[int]], room: int) -> list[int]:
    """Each is to have what a stage says before anybody has more. Where there is not enough for
    that, the first has most."""
    given: list[int] = []
    for wanted in stages:
        given = given or [0] * len(wanted)
        while sum(given) < room:
            lacking = [at for at, want in enumerate(wanted) if given[at] < want]
            if not lacking:
                break
            given[min(lacking, key=lambda at: given[at] * (at + 1))] += 1
    return given


def _one_line(line: str) -> Text:
    text = Text.from_ansi(line)
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


# --- the parts ----------------------------------------------------------------------------------


def _head(status: answers.ClusterStatus, note: str, columns: int, *, most: int) -> list[str]:
    """With at most so many lines on problems."""
    problems = [f"  {_text(problem)}" for problem in status.problems[:most]]
    if len(status.problems) > most:
        problems[most - 1 :] = [f"  ... {len(status.problems) - most + 1} more problems"]
    lines = [_summary(status, columns)]
    lines += [click.style(shorten(problem, columns), fg="yellow") for problem in problems]
    if note:
        lines.append(click.style(shorten(_text(note), columns), fg="red", bold=True))
    return lines


def _summary(status: answers.ClusterStatus, columns: int) -> str:
    """Counts have no word more than they need where there is no room, and then the last go."""
    free, capacity = format_size(status.free_bytes), format_size(status.capacity_bytes)
    volumes = f"volumes {status.volumes_redundant}/{status.volumes}"
    nodes = f"nodes {status.nodes_online}/{status.nodes}"
    disks = f"disks {status.disks_online}/{status.disks}"
    named = (click.style(_text(status.name), bold=True), paint(status.health))
    whole = (*named, f"{volumes} redundant", nodes, disks, f"{free} of {capacity} free")
    brief = (*named, volumes, nodes, disks, f"{free} free")
    variants = ("  ".join(each) for each in (whole, *(brief[:n] for n in range(6, 1, -1))))
    return next((each for each in variants if width(each) <= columns), "  ".join(named))


_VOLUME_ORDER = ("unavailable", "stalled", "unknown", "degraded", "rebuilding")


def _volumes(volumes: Iterable[answers.VolumeView]) -> Section:
    def place(volume: answers.VolumeView) -> tuple[int, bool, str]:
        if volume.health == "redundant":
            return len(_VOLUME_ORDER), not volume.message, volume.name
        known = volume.health in _VOLUME_ORDER
        return _VOLUME_ORDER.index(volume.health) if known else 0, False, volume.name

    ordered = sorted(volumes, key=place)
    rows = tuple(
        (
            _text(volume.name), paint(volume.health), format_size(volume.size_bytes),
            _text(volume.head), paint(str(volume.attachment or volume.state)),
            _text(volume.message),
        )
        for volume in ordered
    )  # fmt: skip
    columns = (
        Column("VOLUME"), Column("HEALTH"), Column("SIZE", spare=3), Column("HEAD", spare=1),
        Column("STATE", spare=2), Column("MESSAGE", least=40),
    )  # fmt: skip
    unwell = sum(volume.health != "redundant" for volume in ordered)
    return Section(columns, rows, unwell, "not redundant")


def _jobs(jobs: Iterable[Job], rates: Rates) -> Section:
    running = [job for job in jobs if job.state is JobState.RUNNING]
    running.sort(key=lambda job: (job.kind not in _REPAIRS, not job.total_bytes, job.started_s))
    rows = tuple(
        (
            _text(f"{job.kind} {job.about}"), format_share(job.done_bytes, job.total_bytes) or "-",
            _bar(job.done_bytes, job.total_bytes), *_pace(job, rates.of(job.id)), _said(job),
        )
        for job in running
    )  # fmt: skip
    columns = (
        Column("JOB"), Column("DONE"), Column("", spare=ORNAMENT), Column("LEFT"),
        Column("RATE", spare=1), Column("MESSAGE", spare=2, least=16),
    )  # fmt: skip
    return Section(columns, rows, sum(job.kind in _REPAIRS for job in running), "repairs")


_REPAIRS = (JobKind.REBUILD, JobKind.RETIRE)


def _said(job: Job) -> str:
    where = f"segment {job.segment}" if job.segment >= 0 else ""
    return ": ".join(each for each in (where, _text(job.message)) if each)


def _pace(job: Job, rate: float | None) -> tuple[str, str]:
    """The time it still takes, and bytes a second; by the manager's word before that is seen."""
    rate = job.rate_bytes or None if rate is None else rate
    if rate is None or not job.total_bytes:
        return "-", "-"
    left_bytes = max(job.total_bytes - job.done_bytes, 0)
    left = format_duration(left_bytes / rate) if rate > 0 else "-"
    return left, f"{format_size(int(rate))}/s"


def _nodes(nodes: Iterable[answers.NodeView]) -> Section:
    ordered = sorted(nodes, key=lambda node: (node.state == "online", node.id))
    rows = tuple(
        (
            _text(node.id),
            f"{paint(node.state)} {format_duration(node.unreachable_s)}"
            if node.unreachable_s
            else paint(node.state),
            ",".join(node.roles),
            _text(node.rack),
        )
        for node in ordered
    )
    columns = (Column("NODE"), Column("STATE"), Column("ROLES", spare=1), Column("RACK", spare=2))
    return Section(columns, rows, sum(node.state != "online" for node in ordered), "not online")


_DISK_ORDER = ("failed", "missing", "failing", "unreachable")


def _disks(disks: Iterable[answers.DiskView]) -> Section:
    def place(disk: answers.DiskView) -> tuple[int, bool, str, str]:
        known = disk.state in _DISK_ORDER
        order = _DISK_ORDER.index(disk.state) if known else len(_DISK_ORDER)
        return order + (disk.state == "online"), not disk.message, disk.node, disk.path

    ordered = sorted((disk for disk in disks if disk.id), key=place)
    rows = tuple(
        (
            _text(f"{disk.node}:{disk.path}"), paint(disk.state), format_size(disk.size_bytes),
            format_share(disk.size_bytes - disk.free_bytes, disk.size_bytes),
            _bar(disk.size_bytes - disk.free_bytes, disk.size_bytes), _text(disk.message),
        )
        for disk in ordered
    )  # fmt: skip
    columns = (
        Column("DISK"), Column("STATE"), Column("SIZE", spare=2), Column("USED", spare=1),
        Column("", spare=ORNAMENT), Column("MESSAGE", least=32),
    )  # fmt: skip
    return Section(columns, rows, sum(disk.state != "online" for disk in ordered), "not online")


def _events(events: Iterable[Event], columns: int) -> Section:
    newest_first = sorted(events, key=lambda event: -event.number)
    since = 0 if columns >= _WIDE else len("2026-")
    rows = tuple(
        (format_time(event.time_s)[since:], paint(event.severity), _text(event.message))
        for event in newest_first
    )
    titles = (Column("TIME"), Column("SEVERITY"), Column("EVENT", least=24))
    return Section(titles, rows, wanted=_EVENTS_WANTED)


def _text(text: str) -> str:
    return click.unstyle(cell(text))


def _bar(done_bytes: int, total_bytes: int) -> str:
    if not total_bytes:
        return ""
    halves = 2 * _BAR_WIDTH * min(done_bytes, total_bytes) // total_bytes
    return ("━" * (halves // 2) + "╸" * (halves % 2)).ljust(_BAR_WIDTH, "┄")
