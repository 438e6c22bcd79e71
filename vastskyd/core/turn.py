"""One turn of the manager's wheel: what its rules read and write."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from vastskyd.core.errors import TEXT_LENGTH_MAX, NotFoundError, VastskyError
from vastskyd.core.facts import Facts
from vastskyd.core.ids import SHORT_ID_DIGITS, DiskId, ExtentId, JobId, NodeId, VolumeId
from vastskyd.core.model import (
    Apart,
    Disk,
    DiskState,
    Event,
    Extent,
    ExtentState,
    Job,
    JobKind,
    JobState,
    Segment,
    Severity,
    Volume,
)
from vastskyd.core.ondisk_layout import EXTENTS_MAX
from vastskyd.core.placement import PlacedExtent, Room, Site, free_ranges
from vastskyd.core.smart import SmartLimits
from vastskyd.core.state import EVENTS_MAX, JOBS_MAX, Draft


@dataclass(frozen=True)
class Policy:
    """What an administrator may set. `attach_timeout_s` bounds how long an attach may try;
    `scrub_interval_s` is how old a volume's last scrub may get, 0: as old as it likes."""

    rebuild_delay_s: float = 600.0
    failover_delay_s: float = 5.0
    rebuilds_per_disk: int = 1
    sync_rate_min_kib_s: int = 32_768
    sync_rate_max_kib_s: int = 200_000
    segment_max_bytes: int = 64 * 1024**3
    attach_timeout_s: float = 120.0
    scrub_interval_s: float = 672 * 3600.0
    smart: SmartLimits = field(default_factory=SmartLimits)


@dataclass(frozen=True)
class Turn:
    """`new_token` draws that many random hex digits; `wall_s` is for people, `monotonic_s` for
    durations. `waiting`: when this manager first saw a job wait, for what it waits for now;
    `noted`: likewise when other things began to be so."""

    draft: Draft
    facts: Facts
    policy: Policy
    wall_s: float
    monotonic_s: float
    new_token: Callable[[int], str]
    waiting: dict[tuple[JobId, str], float] = field(default_factory=dict)
    noted: dict[tuple[VolumeId, str], tuple[str, float]] = field(default_factory=dict)

    def waited_s(self, job: Job, what: str) -> float:
        """For how long the job has been seen to wait for this. Wall clocks jump: when it began is
        for people, and not to be reckoned with."""
        return self.monotonic_s - self.waiting.setdefault((job.id, what), self.monotonic_s)

    def noted_s(self, volume: VolumeId, what: str, how: str = "") -> float:
        """For how long this manager has seen it to be so, and just so; by asking it is noted."""
        before, since_s = self.noted.get((volume, what), (how, self.monotonic_s))
        if before != how:
            since_s = self.monotonic_s
        self.noted[volume, what] = (how, since_s)
        return self.monotonic_s - since_s

    def is_over(self, volume: VolumeId, *whats: str) -> None:
        """These are not so any more."""
        for what in whats:
            self.noted.pop((volume, what), None)

    def event(self, severity: Severity, kind: str, subject: str, message: str) -> None:
        number = max(self.draft.events, default=0) + 1
        self.draft.put(
            Event(
                number=number,
                time_s=self.wall_s,
                severity=severity,
                kind=kind,
                subject=subject,
                message=message,
            )
        )
        for old in sorted(self.draft.events)[:-EVENTS_MAX]:
            self.draft.delete(self.draft.events[old])

    def start_job(
        self,
        kind: JobKind,
        subject: str,
        about: str,
        total_bytes: int = 0,
        segment: int = -1,
        extent: ExtentId | None = None,
    ) -> Job:
        job = Job(
            id=JobId(self.new_token(SHORT_ID_DIGITS)),
            kind=kind,
            subject=subject,
            about=about,
            state=JobState.RUNNING,
            started_s=self.wall_s,
            total_bytes=total_bytes,
            segment=segment,
            extent=extent or ExtentId(""),
        )
        self.draft.put(job)
        ended = [j for j in self.draft.jobs.values() if j.state is not JobState.RUNNING]
        for old in sorted(ended, key=lambda j: j.ended_s)[: -JOBS_MAX or None]:
            self.draft.delete(old)
        return job

    def end_job(self, job: Job, message: str) -> None:
        """It is done."""
        self.draft.put(
            msgspec.structs.replace(
                job,
                state=JobState.DONE,
                ended_s=self.wall_s,
                done_bytes=job.total_bytes,
                message=message[:TEXT_LENGTH_MAX],
            )
        )

    def fail_job(self, job: Job, error: VastskyError) -> None:
        """Kept of the error is what a person is told of it."""
        self.draft.put(
            msgspec.structs.replace(
                job,
                state=JobState.FAILED,
                ended_s=self.wall_s,
                message=error.message[:TEXT_LENGTH_MAX],
                error_code=error.code,
                hint=error.hint[:TEXT_LENGTH_MAX],
            )
        )

    def running(self, *kinds: JobKind, subject: str) -> list[Job]:
        return [
            job
            for job in self.draft.jobs.values()
            if job.state is JobState.RUNNING and job.kind in kinds and job.subject == subject
        ]

    def rooms(self) -> list[Room]:
        """The free space of disks that may take extents now: online, on a reachable node."""
        used: dict[DiskId, list[tuple[int, int]]] = {}
        for extent in self.draft.extents.values():
            used.setdefault(extent.disk, []).append(
                (extent.offset_bytes, extent.offset_bytes + extent.length_bytes)
            )
        return [
            Room(
                self.site(disk),
                free_ranges((disk.area_start_bytes, disk.area_end_bytes), used.get(disk.id, ())),
                disk.clean,
                EXTENTS_MAX - len(used.get(disk.id, ())),
                disk.slow,
            )
            for disk in self.draft.disks.values()
            if disk.state is DiskState.ONLINE and self.facts[disk.node].online
        ]

    def site(self, disk: Disk) -> Site:
        rack = self.draft.nodes[disk.node].rack
        return Site(disk.id, disk.node, rack, disk.drive, is_file=bool(disk.file))

    def sites(self, extents: Iterable[ExtentId]) -> list[Site]:
        """Where these lie, as far as that is known."""
        disks = [self.draft.disk_of(extent) for extent in extents]
        return [self.site(disk) for disk in disks if disk is not None]

    @property
    def apart(self) -> Apart:
        return self.draft.the_cluster().copies_apart

    def new_extent(self, volume: Volume, segment: int, place: PlacedExtent) -> Extent:
        extent = Extent(
            id=ExtentId(self.new_token(SHORT_ID_DIGITS)),
            disk=place.disk,
            offset_bytes=place.offset_bytes,
            length_bytes=place.length_bytes,
            volume=volume.id,
            segment=segment,
            state=ExtentState.PREPARING,
            wipe_first=place.wipe_first,
        )
        disk = self.draft.disks[place.disk]
        end_bytes = place.offset_bytes + place.length_bytes
        clean = without_range(disk.clean, (place.offset_bytes, end_bytes))
        self.draft.put(extent)
        self.draft.put(msgspec.structs.replace(disk, clean=clean))
        return extent

    def release(self, extent_id: ExtentId) -> None:
        extent = self.draft.extents.get(extent_id)
        if extent is not None and extent.state is not ExtentState.RELEASED:
            self.draft.put(msgspec.structs.replace(extent, state=ExtentState.RELEASED))

    def put_segment(self, volume: Volume, segment: Segment) -> Volume:
        """The volume with the segment in it; a change of its legs is a new revision of it."""
        before = next((s for s in volume.segments if s.index == segment.index), segment)
        if (segment.legs, segment.initialised) != (before.legs, before.initialised):
            revision = max(segment.revision, before.revision + 1)
            segment = msgspec.structs.replace(segment, revision=revision)
        segments = tuple(segment if s.index == segment.index else s for s in volume.segments)
        changed = msgspec.structs.replace(volume, segments=segments)
        self.draft.put(changed)
        return changed

    def node_of(self, extent: ExtentId) -> NodeId | None:
        disk = self.draft.disk_of(extent)
        return None if disk is None else disk.node


def disk_name(disk: Disk) -> str:
    """What people call a disk."""
    return f"{disk.node}:{disk.path}"


def names_of(turn: Turn, disk: Disk) -> set[str]:
    """All that it can be asked for by: its id, and NODE:PATH for each of its paths."""
    fact = turn.facts[disk.node].disks.get(disk.id)
    aliases = () if fact is None else fact.aliases
    return {disk.id, *node_paths(disk.node, (disk.path, disk.file, *aliases))}


def node_paths(node: NodeId, paths: Iterable[str]) -> set[str]:
    """NODE:PATH for each path that there is."""
    return {f"{node}:{path}" for path in paths if path}


def find_disk(turn: Turn, text: str) -> Disk:
    """By id or NODE:PATH. NotFoundError: no such disk is enrolled."""
    for disk in turn.draft.disks.values():
        if text in names_of(turn, disk):
            return disk
    raise NotFoundError(
        f"there is no enrolled disk {text}", hint="`vastskyctl disk list` shows them"
    )


def without_range(
    ranges: tuple[tuple[int, int], ...], hole: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """
    >>> without_range(((0, 10),), (2, 4))
    ((0, 2), (4, 10))
    """
    start, end = hole
    rest = []
    for begin, stop in ranges:
        rest += [(begin, min(stop, start)), (max(begin, end), stop)]
    return tuple((begin, stop) for begin, stop in rest if stop > begin)


def with_range(
    ranges: tuple[tuple[int, int], ...], more: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """The union, neighbours joined.

    >>> with_range(((0, 2), (4, 10)), (2, 4))
    ((0, 10),)
    """
    joined: list[tuple[int, int]] = []
    for start, end in sorted((*ranges, more)):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
