"""What the manager and a node tell each other: the document (what should be) and the report
(what is).

A document is a node's whole part of the desired state; a later revision replaces an earlier
one whole. A report is the node's whole view of its kernel and disks; the manager keeps the last.
"""

from enum import StrEnum

from vastskyd.core.ids import ClusterId, DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import (
    DiskState,
    Encryption,
    Layout,
    LegState,
    PointInTime,
    Record,
    SmartReading,
)

# --- documents: what should be -----------------------------------------------------------


class ExtentWish(StrEnum):
    KEEP = "keep"
    RELEASE = "release"  # wipe it, then forget it


class LegHint(Record, array_like=True):
    """A leg of a segment, and where it lies."""

    extent: ExtentId
    disk: DiskId
    node: NodeId
    offset_bytes: int
    state: LegState


class VolumeHints(Record):
    """What each extent's disk remembers of its volume and its segment, for the day the manager's
    database is lost. `set_revision` is the segment's, `segments` how many the volume has;
    `mending`: nobody asked for the attachment of this epoch."""

    volume_name: str
    volume_size_bytes: int
    copies: int
    layout: Layout
    segment_length_bytes: int
    initialised: bool
    leg_state: LegState | None
    encryption: Encryption = Encryption.TLS
    segments: int = 0
    set_revision: int = 0
    legs: tuple[LegHint, ...] = ()
    deleted: bool = False
    mending: bool = False


class ExtentSpec(Record):
    """One extent as its storage host should have it.

    `head` is the only node it is exported to, at `epoch`; none means: to nobody. The epoch is
    persisted before anything else happens, and exports of a lower one are removed hard first.
    """

    id: ExtentId
    disk: DiskId
    offset_bytes: int
    length_bytes: int
    volume: VolumeId
    segment: int
    wish: ExtentWish
    wipe_first: bool
    hints: VolumeHints
    epoch: int
    head: NodeId | None = None
    export_key: str = ""


class ExportServerSpec(Record):
    """The export server for one head: `addresses` are the head's, the only ones admitted."""

    head: NodeId
    port: int
    addresses: tuple[str, ...]
    encryption: Encryption


class DiskWords(Record):
    """What the manager alone knows of a disk, for who asks its host: what has been decided about it
    and why, whose legs are on it, and what its SMART warns of, as read at `smart_read_s`."""

    state: DiskState = DiskState.ONLINE
    reason: str = ""
    volumes: tuple[str, ...] = ()
    smart_read_s: PointInTime = 0.0
    warnings: tuple[str, ...] = ()


class OfferWords(Record):
    """The same of a disk that is not enrolled, if it is not what the host itself says of it."""

    path: str
    message: str


class DiskSpec(Record):
    """A disk this host should have. `wipe` allows enrolment to destroy what is on it, `failing` to
    take it though its SMART health fails. `unasked`: nobody asked for it, so nothing at all may be
    on it."""

    id: DiskId
    path: str
    serial: str
    enrol: bool = False
    wipe: bool = False
    failing: bool = False
    unasked: bool = False
    words: DiskWords = DiskWords()


class StorageDocument(Record):
    disks: tuple[DiskSpec, ...] = ()
    extents: tuple[ExtentSpec, ...] = ()
    servers: tuple[ExportServerSpec, ...] = ()
    offers: tuple[OfferWords, ...] = ()


class Endpoint(Record):
    """One way to an export: `network` is the index of the data network."""

    network: int
    address: str
    port: int


class LegSpec(Record):
    """One leg as the head should have it. No endpoints and not local: it cannot be reached now.

    `node` is the storage host; `export_name` what to ask of its server. `condemned`: its disk is
    known to be lost; the head stops using it as soon as the write quorum allows. `failed`: it will
    not return either. `leaving`: it is whole, and another has been put in its place: likewise, but
    it is of use until then.
    """

    extent: ExtentId
    node: NodeId
    state: LegState
    local: bool
    endpoints: tuple[Endpoint, ...]
    export_name: str
    length_bytes: int
    condemned: bool = False
    failed: bool = False
    leaving: bool = False


class SegmentSpec(Record):
    """`legs` in any state; the in-sync set is those whose state says so. `in_doubt`: an array is
    built of all legs that are in sync or joining, or not at all. `scrub`: the number of the order
    to scrub it now; 0: there is none. One that is taken back ends what it began."""

    index: int
    length_bytes: int
    initialised: bool
    legs: tuple[LegSpec, ...]
    scrub: int = 0
    in_doubt: bool = False


class VolumeSpec(Record):
    """`attached` False: take it down, unless it is in use. `exposed` False: its segments are run,
    and nobody is given a device to use it by."""

    id: VolumeId
    name: str
    size_bytes: int
    copies: int
    layout: Layout
    epoch: int
    attached: bool
    encryption: Encryption
    segments: tuple[SegmentSpec, ...]
    exposed: bool = True


class HeadDocument(Record):
    """Volumes of this head. A stack that is not named here must not exist."""

    volumes: tuple[VolumeSpec, ...] = ()
    sync_rate_min_kib_s: int = 32_768
    sync_rate_max_kib_s: int = 200_000


class Document(Record):
    """A node's part of the desired state. `revision` rises with each one the manager makes."""

    revision: int
    storage: StorageDocument
    head: HeadDocument


# --- reports: what is --------------------------------------------------------------------


class DiskCondition(StrEnum):
    PRESENT = "present"
    FAILED = "failed"  # it answers with errors, or its description is lost
    MISSING = "missing"  # pulled, or not found
    REFUSED = "refused"  # enrolment refused: something is on it


class DiskFact(Record):
    """`slow_ms`: what a request takes of late, if that is too long for a disk that is well.
    `smart`: what the disk last said of itself; None: it was not asked yet, or sleeps. `drive` and
    `file` as the manager keeps them of a disk. `aliases`: its other names under /dev. `error_code`
    and `hint`: of the error for which it was refused."""

    id: DiskId
    path: str
    condition: DiskCondition
    size_bytes: int = 0
    area_start_bytes: int = 0
    area_end_bytes: int = 0
    message: str = ""
    error_code: str = ""
    hint: str = ""
    slow_ms: int = 0
    smart: SmartReading | None = None
    drive: str = ""
    file: str = ""
    aliases: tuple[str, ...] = ()


class DiskClaim(Record):
    """Whose a disk is by the description that it carries. All empty: that cannot be read."""

    cluster: ClusterId
    cluster_name: str
    disk: DiskId


class CandidateFact(Record):
    """A block device that is nobody's member yet. `found` says what is on it, or is empty.
    `matches`: the pattern of auto_enroll that it matches; a partition matches none."""

    path: str
    serial: str
    size_bytes: int
    found: str
    aliases: tuple[str, ...] = ()
    claim: DiskClaim | None = None
    matches: str = ""


class ExtentCondition(StrEnum):
    PREPARING = "preparing"
    READY = "ready"
    WIPING = "wiping"
    GONE = "gone"  # wiped and forgotten
    FAILED = "failed"


class ExtentFact(Record):
    """`epoch` is what the disk's description holds; exports of a lower one no longer exist.
    `set_revision` is its segment's, as the description has it."""

    id: ExtentId
    condition: ExtentCondition
    epoch: int
    set_revision: int = 0
    exported_to: NodeId | None = None
    done_bytes: int = 0
    message: str = ""


class StorageReport(Record):
    disks: tuple[DiskFact, ...] = ()
    candidates: tuple[CandidateFact, ...] = ()
    extents: tuple[ExtentFact, ...] = ()


class LegCondition(StrEnum):
    ABSENT = "absent"  # not connected yet
    ACTIVE = "active"  # in the array and whole
    RECOVERING = "recovering"  # in the array, being filled
    HELD = "held"  # no good path for longer than the leg timeout; writes wait for a decision
    OUT = "out"  # md does not use it, and will not before the manager says so


class LegFact(Record):
    """`broken`: a live server answered with I/O errors, or the disk is condemned. `done_bytes` of
    `total_bytes` are looked through by the resync; `written_bytes` were written to the leg, by it
    and by the volume's users, since it was given back to the array."""

    extent: ExtentId
    condition: LegCondition
    broken: bool = False
    done_bytes: int = 0
    total_bytes: int = 0
    written_bytes: int = 0
    message: str = ""


class ScrubState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # nothing is known of the segment; `message` says why


class ScrubFact(Record):
    """What became of the scrub that `order` asked for. `wrong`: the legs that were repaired;
    `first_undecided_bytes`: where in the segment its legs first differ without a majority.
    `error_code` and `hint`: of the error that it failed with."""

    order: int
    state: ScrubState
    done_bytes: int = 0
    repaired_bytes: int = 0
    undecided_bytes: int = 0
    first_undecided_bytes: int = 0
    wrong: tuple[ExtentId, ...] = ()
    message: str = ""
    error_code: str = ""
    hint: str = ""


class SegmentFact(Record):
    """`created`: the array exists. `writable`: the volume's device may be written through it."""

    index: int
    created: bool
    legs: tuple[LegFact, ...]
    scrub: ScrubFact | None = None


class VolumeCondition(StrEnum):
    ASSEMBLING = "assembling"
    ACTIVE = "active"  # the device is there and usable
    IN_USE = "in-use"  # told to detach, but somebody uses it
    DETACHING = "detaching"
    FAILED = "failed"


class VolumeFact(Record):
    """A volume's stack on its head. A volume that is not in the report has no stack there.
    `exposed`, as its document had it: where it is active it has a device, else its segments run.
    `error_code` and `hint`: of the error that `message` tells of; empty: it only waits."""

    id: VolumeId
    epoch: int
    condition: VolumeCondition
    segments: tuple[SegmentFact, ...] = ()
    users: tuple[str, ...] = ()
    message: str = ""
    error_code: str = ""
    hint: str = ""
    exposed: bool = True


class HeadReport(Record):
    volumes: tuple[VolumeFact, ...] = ()


class Report(Record):
    """What a node sees after it applied `revision`. `sequence` rises within one `boot_id` and
    daemon life; a report that overtook a later one is dropped."""

    boot_id: str
    life: str
    sequence: int
    revision: int
    storage: StorageReport
    head: HeadReport
