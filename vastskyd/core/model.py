"""The cluster as the manager keeps it: values only, changed by being replaced.

Sizes and offsets are bytes. `epoch` counts a volume's attachments. Times are of the manager's wall
clock, for people to read; no decision compares them across hosts.
"""

from enum import StrEnum
from typing import Annotated, dataclass_transform

import msgspec

from vastskyd.core.ids import ClusterId, DiskId, ExtentId, JobId, NodeId, VolumeId

# Seconds of a record are of one of these two, which D-Bus has as different types.
PointInTime = Annotated[float, msgspec.Meta(description="seconds since 1970")]
Duration = Annotated[float, msgspec.Meta(description="seconds")]


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,)
)  # says to mypy what msgspec makes of subclasses
class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything stored or sent: immutable, and strict about its members."""


class Role(StrEnum):
    MANAGER = "manager"
    STORAGE = "storage"
    HEAD = "head"


JOINING_ROLES = (Role.STORAGE, Role.HEAD)
"""What a host that joins can be: a cluster has one manager, which made it."""


class Layout(StrEnum):
    """How a segment keeps its legs."""

    RAID1 = "raid1"  # md raid1 over the legs
    LINEAR = "linear"  # one leg, no redundancy


class Encryption(StrEnum):
    """How the data path is protected."""

    TLS = "tls"
    NONE = "none"


class Apart(StrEnum):
    """What the copies of a segment do not share, at the least."""

    HOST = "host"
    DISK = "disk"  # they may be on one host, where there is no other, and are lost with it


class Cluster(Record):
    id: ClusterId
    name: str
    manager: NodeId
    created_s: PointInTime
    encryption: Encryption = Encryption.TLS
    copies_apart: Apart = Apart.HOST


class Node(Record):
    """A host of the cluster.

    `addresses` has one address per data network, in the same order on every host.
    `export_port` is where every storage host serves this node when it is a head. `unseen`: other
    hosts spoke of it when the manager's database was rebuilt, and it was away: it is told nothing.
    """

    id: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    port: int
    export_port: int
    rack: str = ""
    joined_s: PointInTime = 0.0
    unseen: bool = False


COPIES_MAX = 5


class DiskState(StrEnum):
    ENROLLING = "enrolling"  # its description is being written
    ONLINE = "online"
    FAILING = "failing"  # serves, but says that it will not for long: its legs are moved elsewhere
    DRAINING = "draining"  # serves; its legs are moved elsewhere, and then it is retired
    MISSING = "missing"  # pulled, or not found; used again if it comes back
    FAILED = "failed"  # its data is not to be relied on; legs are rebuilt elsewhere
    UNSEEN = "unseen"  # other disks spoke of it when the manager's database was rebuilt


SERVING = frozenset({DiskState.ONLINE, DiskState.FAILING, DiskState.DRAINING})
"""A disk in one of these is there, and what is on it can be used."""

TO_BE_LEFT = frozenset({DiskState.FAILING, DiskState.DRAINING})
"""What is on a disk in one of these is moved elsewhere while it can be read."""


class SmartHealth(StrEnum):
    """A disk's own verdict."""

    PASSED = "passed"
    FAILING = "failing"
    UNKNOWN = "unknown"


class SmartErrors(Record):
    """What a disk has counted in its life; 0 also where it does not count."""

    reallocated: int = 0
    pending: int = 0
    media: int = 0


class SmartReading(Record):
    """What a disk said of itself, once. None: it does not say.

    `reason`: why its health is failing or unknown. `reallocated` and `pending` count sectors that
    were replaced, and that wait for it; `media_errors` what could not be read or written at all.
    `wear_percent` is the share of its life that is used up, `spare_percent` what is left of its
    reserve, `spare_least_percent` where it says that this is too little. `notes`: what else it
    warns of, for people.
    """

    health: SmartHealth
    reason: str = ""
    model: str = ""
    reallocated: int | None = None
    pending: int | None = None
    media_errors: int | None = None
    wear_percent: int | None = None
    spare_percent: int | None = None
    spare_least_percent: int | None = None
    temperature_c: int | None = None
    power_on_h: int | None = None
    notes: tuple[str, ...] = ()

    def errors(self) -> SmartErrors:
        return SmartErrors(
            reallocated=self.reallocated or 0,
            pending=self.pending or 0,
            media=self.media_errors or 0,
        )


class SmartHistory(Record):
    """The last reading, when it differed from the one before; the errors that those since are
    compared with, and when they last grew (0: never)."""

    last: SmartReading
    read_s: PointInTime
    base: SmartErrors
    grown_s: PointInTime = 0.0


class Disk(Record):
    """An enrolled disk. Extents lie in [area_start_bytes, area_end_bytes).

    `clean` are the ranges known to read as zeros: (start, end) pairs, sorted, apart. `smart` is
    None until the disk was first asked; `smart_ignored`: an administrator took it though it was
    failing by its own word, which does not count. `drive`: what a partition or a file lies on, as a
    path of its host; empty: itself, or not known. `file`: of what a loop device makes a disk.
    """

    id: DiskId
    node: NodeId
    path: str
    serial: str
    size_bytes: int
    area_start_bytes: int
    area_end_bytes: int
    state: DiskState
    reason: str = ""
    clean: tuple[tuple[int, int], ...] = ()
    slow: bool = False
    smart: SmartHistory | None = None
    smart_ignored: bool = False
    drive: str = ""
    file: str = ""


class Retired(Record):
    """A disk that was retired: it is not enrolled again by itself."""

    disk: DiskId
    node: NodeId
    path: str
    serial: str
    at_s: PointInTime


class Candidate(Record):
    """A disk that is not enrolled and of which something was said or tried: forgotten when its host
    no longer shows it so. `claimed`: the disk that it is by its description. `tries` to enrol it
    by itself were refused, the last at `tried_s`, for `reason`."""

    key: str
    node: NodeId
    claimed: DiskId = DiskId("")
    tries: int = 0
    tried_s: PointInTime = 0.0
    reason: str = ""


class ExtentState(StrEnum):
    PREPARING = "preparing"  # asked of its storage host, not yet confirmed
    READY = "ready"  # wiped, described on its disk
    RELEASED = "released"  # to be wiped and forgotten by its storage host


class Extent(Record):
    """A range of a disk that is, or was, one leg of a segment."""

    id: ExtentId
    disk: DiskId
    offset_bytes: int
    length_bytes: int
    volume: VolumeId
    segment: int
    state: ExtentState
    wipe_first: bool


class LegState(StrEnum):
    IN_SYNC = "in-sync"  # in the committed set: holds every acknowledged write
    BEHIND = "behind"  # was in the set; returns by a bitmap-sized resync
    REBUILDING = "rebuilding"  # new: holds nothing of worth until its rebuild is complete
    # Whole again, and the head counts it for writes, but recovery may not yet rely on it: the
    # step between, so that no write is acknowledged under two different sets.
    JOINING = "joining"
    FAILED = "failed"  # never to return; replaced as soon as there is room


class Leg(Record):
    extent: ExtentId
    state: LegState
    since_s: PointInTime = 0.0


class Segment(Record):
    """A part of a volume with its own redundancy.

    `initialised` is committed before the segment is first exposed for writing: until then its
    array may be created anew, after that never again. `revision` rises with each change of the
    legs. `in_doubt`: they were read from the disks when the manager's database had been lost;
    until its array is seen whole, all that are in sync or joining are needed, not a quorum. If it
    is not initialised by the records, its legs tell whether it has an array. `undecided_bytes`:
    how much differs between its legs without a majority, by its last scrub.
    """

    index: int
    length_bytes: int
    legs: tuple[Leg, ...]
    initialised: bool = False
    undecided_bytes: int = 0
    revision: int = 0
    in_doubt: bool = False

    def in_state(self, *states: LegState) -> tuple[ExtentId, ...]:
        return tuple(leg.extent for leg in self.legs if leg.state in states)

    def in_sync(self) -> tuple[ExtentId, ...]:
        """The committed set."""
        return self.in_state(LegState.IN_SYNC)


class VolumeState(StrEnum):
    CREATING = "creating"
    AVAILABLE = "available"


class AttachmentState(StrEnum):
    FENCING = "fencing"  # the epoch is committed; storage hosts are taking it over
    ATTACHING = "attaching"  # the head builds its stack
    ATTACHED = "attached"
    DETACHING = "detaching"  # the head takes its stack down
    UNFENCED = "unfenced"  # nobody is to have it; the head had it last, and may still write


TOLD = (AttachmentState.ATTACHING, AttachmentState.ATTACHED, AttachmentState.DETACHING)
"""Of an attachment in one of these its head knows."""


class Attachment(Record):
    """A volume on a head. `export_key` is the unguessable part of its exports' names; `forced`:
    an administrator accepted fewer legs than the recovery quorum; `fences`: while it is being
    fenced, the head that had it for use before.

    `mending`: nobody asked for it. Its legs are made whole, and nobody can use it there; `then` is
    the head that gets it for use as soon as this one has let go of it.
    """

    head: NodeId
    epoch: int
    state: AttachmentState
    export_key: str
    since_s: PointInTime = 0.0
    forced: bool = False
    mending: bool = False
    then: NodeId | None = None
    fences: NodeId | None = None


class Scrub(Record):
    """A scrub under way, in the attachment of `epoch`: segment by segment, `segment` is next.

    `tries` of that segment have failed; since `waits_since_s`, if that is not 0, it has not been
    fit to be scrubbed. The rest is what was found in those before it, which were left out, and for
    which error the last of these was.
    """

    job: JobId
    epoch: int
    segment: int = 0
    tries: int = 0
    waits_since_s: PointInTime = 0.0
    checked_bytes: int = 0
    repaired_bytes: int = 0
    undecided_bytes: int = 0
    skipped: tuple[int, ...] = ()
    skipped_why: str = ""
    skipped_code: str = ""
    skipped_hint: str = ""


class ScrubResult(Record):
    """What a scrub that came to its end found; `skipped` are the segments it left out."""

    ended_s: PointInTime
    checked_bytes: int
    repaired_bytes: int
    undecided_bytes: int
    skipped: tuple[int, ...]
    message: str


class Volume(Record):
    """`epoch` is the last one given to an attachment; it never goes down. `standby`: heads that
    take the volume over when its own is unreachable, the first that can. `scrub_order` is the last
    one given to a head; `scrub_failed_s` when a scrub last ended without a result. `unclean`: the
    head that had it last was to be fenced, and none has had it since: legs may be behind that are
    in the set by all that is known."""

    id: VolumeId
    name: str
    size_bytes: int
    copies: int
    layout: Layout
    state: VolumeState
    segments: tuple[Segment, ...]
    epoch: int = 0
    attachment: Attachment | None = None
    standby: tuple[NodeId, ...] = ()
    created_s: PointInTime = 0.0
    scrub: Scrub | None = None
    scrubbed: ScrubResult | None = None
    scrub_order: int = 0
    scrub_failed_s: PointInTime = 0.0
    unclean: bool = False

    def given(self) -> Attachment | None:
        """As people have it attached: nowhere while it is only mended."""
        on = self.attachment
        if on is None or not on.mending:
            return on
        if on.then is None:
            return None
        return msgspec.structs.replace(
            on, head=on.then, state=AttachmentState.FENCING, mending=False, then=None
        )


class JobKind(StrEnum):
    ENROL = "enrol"
    RETIRE = "retire"
    CREATE = "create"
    DELETE = "delete"
    ATTACH = "attach"
    DETACH = "detach"
    REBUILD = "rebuild"
    SCRUB = "scrub"


class JobState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job(Record):
    """Work that takes time. `subject` is the object's id, `about` what a person calls it.

    Of one that failed, `message`, `error_code` and `hint` are the error's.
    `segment` and `extent` say which leg a rebuild restores. `started_by`: who asked for it, for
    people; empty: the cluster itself. `rate_bytes` a second and `expected_end_s` are what is shown
    of one that runs, by the average since it began; 0: not known.
    """

    id: JobId
    kind: JobKind
    subject: str
    about: str
    state: JobState
    started_s: PointInTime
    ended_s: PointInTime = 0.0
    done_bytes: int = 0
    total_bytes: int = 0
    message: str = ""
    error_code: str = ""
    hint: str = ""
    segment: int = -1
    extent: ExtentId = ExtentId("")
    started_by: str = ""
    rate_bytes: int = 0
    expected_end_s: PointInTime = 0.0

    def goes_on_as(self, seen: "Job | None") -> bool:
        """It runs, and is as it was seen, if it was: of its pace nobody is told each second, and
        when it began does not change, though D-Bus rounds it."""
        if self.state is not JobState.RUNNING:
            return False
        return seen is None or seen == msgspec.structs.replace(
            self,
            started_s=seen.started_s,
            rate_bytes=seen.rate_bytes,
            expected_end_s=seen.expected_end_s,
        )


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Event(Record):
    """One line of the cluster's history. `number` rises by one."""

    number: int
    time_s: PointInTime
    severity: Severity
    kind: str
    subject: str
    message: str


class JoinSecret(Record):
    """A join token's manager side: only the hash of its secret is kept."""

    digest: str
    roles: tuple[Role, ...]
    expires_s: PointInTime


class Remembered(Record):
    """What was done under an idempotency key. `digest` is the request's; `job`: what it started,
    or empty."""

    key: str
    digest: str
    job: JobId
    at_s: PointInTime


class Generation(Record):
    """How often the manager has started: the upper half of every document's revision."""

    number: int
