"""Every request that one vastskyd makes of another, and every answer, as types.

A request's class names it on the wire: `ListVolumes` is "list_volumes" (`method_of`). Requests to
the manager stand under "asked of the manager", those to any node under "asked of a node".
"""

import re

from vastskyd.core.answers import (
    ClusterStatus,
    DiskList,
    EventList,
    Initialised,
    JobList,
    LocalView,
    NodeList,
    Placement,
    RecoveryView,
    VolumeList,
)
from vastskyd.core.description import DiskDescription
from vastskyd.core.documents import Document, Report
from vastskyd.core.ids import ClusterId, DiskId, JobId, NodeId
from vastskyd.core.model import (
    Apart,
    Duration,
    Encryption,
    Job,
    Layout,
    Record,
    Role,
)
from vastskyd.core.witness import Introduction


class Done(Record):
    """The answer that says no more than: it is so."""


PAGE_MOST = 500


class Act(Record, kw_only=True):
    """Base of what people ask to be changed. `dry_run`: all is checked and nothing done.
    `idempotency_key`: a request that is repeated under the same key is done once. `asked_by` is
    for people: the vastskyd that was asked puts it in."""

    dry_run: bool = False
    idempotency_key: str = ""
    asked_by: str = ""


class Paged(Record, kw_only=True):
    """Base of what asks for a list: `limit` of its members (1 to PAGE_MOST) from the one on that
    the token `after` names. The answer's `next` is the token of the page that follows; empty: none
    does."""

    after: str = ""
    limit: int = 200


# --- asked of a node ---------------------------------------------------------------------


class ApplyDocument(Record):
    """Manager to node: the node's part of the desired state. Answer: Done, once it is accepted
    (not: reached; the reports tell that)."""

    document: Document


class Probe(Record):
    """Manager to node: try to reach `node` at these addresses. Answer: ProbeResult."""

    node: NodeId
    addresses: tuple[str, ...]
    port: int


class ProbeResult(Record):
    reached: bool


class Ping(Record):
    """Either way. Answer: Done."""


class Introduce(Record):
    """Manager to node, when it has lost its records. Answer: Introduction."""


class DescribeDisk(Record):
    """Manager to node, likewise. Answer: DiskDescribed; NotFoundError: it is not there."""

    disk: DiskId


class DiskDescribed(Record):
    """A disk's own description, as it stands on it."""

    description: DiskDescription


# --- asked of the manager by nodes --------------------------------------------------------


class SendReport(Record):
    """Node to manager: what it sees. Answer: Done."""

    report: Report


class Join(Record):
    """Of a host without a certificate, by one who has the token's secret. `csr_pem` is a PKCS#10
    request whose subject is ignored: the manager names the node. Answer: Joined."""

    secret: str
    node: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    port: int
    rack: str
    csr_pem: str


class Joined(Record):
    cluster: ClusterId
    cluster_name: str
    node: NodeId
    manager: NodeId
    manager_addresses: tuple[str, ...]
    manager_port: int
    roles: tuple[Role, ...]
    certificate_pem: str
    ca_pem: str


# --- asked of the manager by people --------------------------------------------------------


class ShowStatus(Record):
    """Answer: ClusterStatus."""


class ListNodes(Paged):
    """`node` empty: all. Answer: NodeList."""

    node: str = ""


class ListDisks(Paged):
    """Enrolled disks and candidates. `node` empty: of all; `disk`: an id or NODE:PATH, empty: all.
    Answer: DiskList."""

    node: str = ""
    disk: str = ""


class ListVolumes(Paged):
    """`volume`: a name or id, or empty for all. Answer: VolumeList."""

    volume: str = ""


class ListJobs(Paged):
    """`running` leaves out those that ended. Answer: JobList."""

    running: bool = False


class ShowJob(Record):
    """Answer: JobList of one. With `wait_s` the manager answers when the job ends or changes
    from `seen`, at the latest after that time (at most 30 s)."""

    job: JobId
    wait_s: Duration = 0.0
    seen: Job | None = None


class ListEvents(Record):
    """Events with a number above `after`; at most `limit`, the newest. Answer: EventList."""

    after: int = 0
    limit: int = 100


class CreateToken(Act):
    """Answer: Token; an empty one if it is a dry run. It has no use for an `idempotency_key`: the
    secret is not kept."""

    roles: tuple[Role, ...]
    valid_s: Duration = 3600.0


class Token(Record):
    token: str


class EnrolDisk(Act):
    """Answer: JobStarted; if it is enrolled already and in use, of a job that is done.
    ConflictError if anything is on it, unless `wipe`; its job fails so if the disk's SMART health
    does, unless `failing`."""

    node: NodeId
    path: str
    wipe: bool = False
    failing: bool = False


class RetireDisk(Act):
    """`disk`: id, or NODE:PATH. Answer: JobStarted."""

    disk: str


class CreateVolume(Act):
    """Answer: JobStarted."""

    name: str
    size_bytes: int
    copies: int = 2
    layout: Layout = Layout.RAID1
    standby: tuple[NodeId, ...] = ()


class SetStandby(Act):
    """The heads that take the volume over when its own is unreachable, in this order; none: it
    waits for its head. Answer: Done."""

    volume: str
    heads: tuple[NodeId, ...]


class SetCopiesApart(Act):
    """What the copies of a segment do not share, from now on: a host, or only a disk. What shares
    too much moves apart while there is room for it. Answer: Done."""

    copies_apart: Apart


class DeleteVolume(Act):
    """Answer: JobStarted. BusyError while attached."""

    volume: str


class AttachVolume(Act):
    """Answer: JobStarted. `force` accepts fewer than the recovery quorum of legs, with the risk
    of losing the last writes."""

    volume: str
    head: NodeId
    force: bool = False


class FailoverVolume(Act):
    """To another head at once, whatever its own is doing: that one is fenced, and programs that
    use the volume there get I/O errors. `head` empty: the first standby head that is online.
    Answer: JobStarted."""

    volume: str
    head: str = ""


class ScrubVolume(Act):
    """Compare all copies with each other and repair from the majority. Answer: JobStarted; the
    job's message says what was found. ConflictError if the volume is not attached or has one copy,
    BusyError if it is being scrubbed."""

    volume: str


class DetachVolume(Act):
    """Answer: JobStarted; the job fails with Busy if the volume is in use."""

    volume: str


class CancelJob(Act):
    """End a job before it is done. Answer: Done. ConflictError: it has ended, or one of its kind
    cannot be cancelled."""

    job: JobId


class ExplainPlacement(Record):
    """Whether a volume would fit, and why, disk by disk. Answer: Placement."""

    size_bytes: int
    copies: int = 2
    layout: Layout = Layout.RAID1


class RemoveNode(Act):
    """Answer: Done. ConflictError while it has disks or attachments."""

    node: NodeId


class ShowRecovery(Record):
    """What the manager's records would be if they were made anew from the hosts that it hears
    now. Answer: RecoveryView."""


class BeginRecovery(Record):
    """Sets the manager's records aside, so that they can be made anew: hosts are back that were
    away when they were rebuilt last. Until FinishRecovery the manager decides nothing; attached
    volumes go on. Answer: RecoveryView."""


class FinishRecovery(Record):
    """Makes the records anew from the hosts that the manager hears now. Answer: RecoveryView.
    ConflictError: it has its records, or something is missing and not `without_missing`."""

    without_missing: bool = False


class JobStarted(Record):
    """`job` has no id if it was a dry run."""

    job: Job


# --- asked of the vastskyd of this host by people, over D-Bus only ---------------------------


class ShowLocal(Record):
    """Answer: LocalView. Needs no manager."""


class InitCluster(Record):
    """Make a cluster of which this host is the first node and the manager. Empty members are
    left to vastskyd: `node` is the host's name, the others as configured. `single`: it is the only
    host for now: it has all roles, keeps the copies of volumes on different disks, and its address
    is that of its default route, or its only one.
    Answer: Initialised. ConflictError if the host belongs to a cluster."""

    name: str
    addresses: tuple[str, ...] = ()
    rack: str = ""
    node: str = ""
    encryption: Encryption | None = None
    roles: tuple[Role, ...] = ()
    single: bool = False


class JoinCluster(Record):
    """Join the cluster that made `token`; empty members as in InitCluster, but `roles` come from
    the token. Answer: Initialised. ConflictError if the host belongs to a cluster."""

    token: str
    addresses: tuple[str, ...] = ()
    rack: str = ""
    node: str = ""
    roles: tuple[Role, ...] = ()


NODE_REQUESTS: dict[type[Record], type[Record]] = {
    ApplyDocument: Done,
    Probe: ProbeResult,
    Ping: Done,
    Introduce: Introduction,
    DescribeDisk: DiskDescribed,
}
REPORT_REQUESTS: dict[type[Record], type[Record]] = {SendReport: Done}
JOIN_REQUESTS: dict[type[Record], type[Record]] = {Join: Joined}
ADMIN_REQUESTS: dict[type[Record], type[Record]] = {
    ShowStatus: ClusterStatus,
    ListNodes: NodeList,
    ListDisks: DiskList,
    ListVolumes: VolumeList,
    ListJobs: JobList,
    ShowJob: JobList,
    ListEvents: EventList,
    CreateToken: Token,
    EnrolDisk: JobStarted,
    RetireDisk: JobStarted,
    CreateVolume: JobStarted,
    DeleteVolume: JobStarted,
    AttachVolume: JobStarted,
    FailoverVolume: JobStarted,
    DetachVolume: JobStarted,
    ScrubVolume: JobStarted,
    SetStandby: Done,
    SetCopiesApart: Done,
    RemoveNode: Done,
    CancelJob: Done,
    ExplainPlacement: Placement,
    ShowRecovery: RecoveryView,
    BeginRecovery: RecoveryView,
    FinishRecovery: RecoveryView,
}
LOCAL_REQUESTS: dict[type[Record], type[Record]] = {  # never on the wire
    ShowLocal: LocalView,
    InitCluster: Initialised,
    JoinCluster: Initialised,
}
ANSWERS = NODE_REQUESTS | REPORT_REQUESTS | JOIN_REQUESTS | ADMIN_REQUESTS


def method_of(request: type[Record]) -> str:
    """The request's name on the wire.

    >>> method_of(ListVolumes)
    'list_volumes'
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", request.__name__).lower()


BY_METHOD = {method_of(request): request for request in ANSWERS}
