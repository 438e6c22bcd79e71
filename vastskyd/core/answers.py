"""What people see: the answers to the requests of core.api, as --json and D-Bus have them."""

from vastskyd.core.ids import ClusterId, DiskId, NodeId, VolumeId
from vastskyd.core.model import (
    Apart,
    AttachmentState,
    Duration,
    Encryption,
    Event,
    Job,
    Layout,
    LegState,
    PointInTime,
    Record,
    Role,
    ScrubResult,
    SmartHealth,
    VolumeState,
)


class DiskVerdict(Record):
    """What a disk would take of a volume. `free_bytes` in all, `largest_bytes` in one piece."""

    disk: DiskId
    node: NodeId
    path: str
    takes_bytes: int
    free_bytes: int
    largest_bytes: int
    reason: str


class Placement(Record):
    """`reason` and `hint` say what is missing, if it does not fit."""

    fits: bool
    reason: str
    hint: str
    disks: tuple[DiskVerdict, ...]


class NodeView(Record):
    """`state`: online, unreachable, or joining (never seen yet)."""

    id: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    rack: str
    state: str
    unreachable_s: Duration = 0.0


class SmartView(Record):
    """What the disk said of itself when it last said something new, at `read_s` (0: not known);
    what it does not say is missing. `warnings`: what people should know of it, as sentences; both
    are the manager's to say."""

    health: SmartHealth
    reason: str
    model: str
    read_s: PointInTime
    reallocated: int | None
    pending: int | None
    media_errors: int | None
    wear_percent: int | None
    spare_percent: int | None
    temperature_c: int | None
    power_on_h: int | None
    warnings: tuple[str, ...]


class DiskView(Record):
    """A candidate has no id, and its `message` says what is on it, for which it cannot be enrolled
    without --wipe; or why it was not enrolled by itself, though it matches auto_enroll.
    `volumes`: the names of those that have legs on it. `smart` is missing until it was asked."""

    id: DiskId
    node: NodeId
    path: str
    serial: str
    size_bytes: int
    free_bytes: int
    state: str
    message: str
    volumes: tuple[str, ...] = ()
    smart: SmartView | None = None


class LegView(Record):
    """`done_bytes` of `total_bytes` while it is being filled; else both are 0."""

    node: NodeId
    disk_path: str
    state: LegState
    condition: str
    reachable: bool
    done_bytes: int
    total_bytes: int


class SegmentView(Record):
    index: int
    length_bytes: int
    legs: tuple[LegView, ...]


class VolumeView(Record):
    """`health`: redundant, degraded, rebuilding, stalled, unavailable or unknown (its head has
    not reported). `scrubbed`: what its last scrub found."""

    id: VolumeId
    name: str
    size_bytes: int
    copies: int
    layout: Layout
    state: VolumeState
    health: str
    head: str
    standby: tuple[NodeId, ...]
    attachment: AttachmentState | None
    device: str
    message: str
    segments: tuple[SegmentView, ...]
    scrubbed: ScrubResult | None = None


class ClusterStatus(Record):
    """`health`: ok, degraded or critical; `problems` and `notes` are sentences for people: what is
    wrong, and what they should know of what is not."""

    cluster: ClusterId
    name: str
    manager: NodeId
    encryption: Encryption
    health: str
    problems: tuple[str, ...]
    nodes: int
    nodes_online: int
    disks: int
    disks_online: int
    volumes: int
    volumes_redundant: int
    capacity_bytes: int
    free_bytes: int
    jobs_running: int
    copies_apart: Apart = Apart.HOST
    notes: tuple[str, ...] = ()


class RecoveredVolume(Record):
    """`legs_seen` of `legs` were found on the disks that were seen. `head`: it stands there."""

    name: str
    size_bytes: int
    copies: int
    head: str
    legs: int
    legs_seen: int


class RecoveryView(Record):
    """`recovering`: the manager has no records, for the reason `why`. What follows was found, or
    was made its records. `missing` was spoken of and not seen; `blocked` says what it cannot go on
    without. `listens_s`: how long hosts that are about to connect are waited for; until then not
    all may be missing that seems to be. `kept_as`: where the records are that it had before."""

    recovering: bool
    why: str
    nodes: tuple[str, ...] = ()
    disks: int = 0
    volumes: tuple[RecoveredVolume, ...] = ()
    missing: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    listens_s: Duration = 0.0
    notes: tuple[str, ...] = ()
    kept_as: str = ""


class NodeList(Record):
    nodes: tuple[NodeView, ...]
    next: str = ""


class DiskList(Record):
    disks: tuple[DiskView, ...]
    next: str = ""


class VolumeList(Record):
    volumes: tuple[VolumeView, ...]
    next: str = ""


class JobList(Record):
    jobs: tuple[Job, ...]
    next: str = ""


class EventList(Record):
    events: tuple[Event, ...]


class LocalVolume(Record):
    """A volume of this host as its own kernel shows it. `state`: active, degraded, rebuilding,
    stalled (writes wait; `message` says for what), assembling, in-use, detaching or failed.
    `rebuilt_bytes` of `rebuild_bytes` while legs are being filled; else both are 0."""

    id: VolumeId
    name: str
    device: str
    state: str
    message: str
    rebuilt_bytes: int = 0
    rebuild_bytes: int = 0


class LocalView(Record):
    """What this host is. `node` and `cluster_name` are empty while it belongs to no cluster;
    `connected`: it has a session with the manager, or is the manager. Its disks and volumes are
    as it sees them itself."""

    version: str
    node: str
    cluster_name: str
    roles: tuple[Role, ...]
    connected: bool
    volumes: tuple[LocalVolume, ...] = ()
    disks: tuple[DiskView, ...] = ()


class Initialised(Record):
    """What this host has become. `addresses`: where other hosts reach it, one per data network."""

    cluster: ClusterId
    cluster_name: str
    node: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...] = ()
