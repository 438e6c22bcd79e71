"""A cluster that answers from what a test puts into it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from vastskyd.core import answers, api
from vastskyd.core.errors import NotFoundError
from vastskyd.core.ids import ClusterId, DiskId, JobId, NodeId, VolumeId
from vastskyd.core.model import (
    Apart,
    AttachmentState,
    Encryption,
    Event,
    Job,
    JobKind,
    JobState,
    Layout,
    LegState,
    Record,
    Role,
    ScrubResult,
    Severity,
    SmartHealth,
    VolumeState,
)
from vastskyd.core.paging import page

T = TypeVar("T")

GIB = 1024**3
PAGE_MOST = 500
ALL_ROLES = (Role.MANAGER, Role.STORAGE, Role.HEAD)

STATUS = answers.ClusterStatus(
    cluster=ClusterId("c1"), name="demo", manager=NodeId("m1"), encryption=Encryption.TLS,
    health="degraded", problems=("volume data has lost a leg on store2",),
    nodes=3, nodes_online=2, disks=2, disks_online=2, volumes=2, volumes_redundant=1,
    capacity_bytes=2**63, free_bytes=3 * GIB, jobs_running=1, copies_apart=Apart.DISK,
    notes=("the copies of data share hosts, and are being moved apart",),
)  # fmt: skip
NODES = (
    answers.NodeView(id=NodeId("m1"), roles=ALL_ROLES, addresses=("10.0.0.1", "10.1.0.1"),
                 rack="a", state="online"),
    answers.NodeView(id=NodeId("store2"), roles=(Role.STORAGE,), addresses=(), rack="",
                 state="unreachable", unreachable_s=300.5),
)  # fmt: skip
SMART = answers.SmartView(
    health=SmartHealth.PASSED, reason="", model="WDC WD30EFRX", read_s=1.7e9, reallocated=12,
    pending=None, media_errors=0, wear_percent=93, spare_percent=None, temperature_c=35,
    power_on_h=48000, warnings=("its reallocated sectors grew from 4 to 12",),
)  # fmt: skip
DISKS = (
    answers.DiskView(id=DiskId("d1"), node=NodeId("m1"), path="/dev/sdb", serial="S\0X",
                 size_bytes=100 * GIB, free_bytes=50 * GIB, state="online", message="",
                 volumes=("data",), smart=SMART),
    answers.DiskView(id=DiskId(""), node=NodeId("store2"), path="/dev/sdc", serial="",
                 size_bytes=10 * GIB, free_bytes=0, state="candidate", message="ext4 filesystem"),
)  # fmt: skip
LOCAL_VOLUME = answers.LocalVolume(
    id=VolumeId("v1"), name="data", device="/dev/vastsky/data", state="active", message=""
)
VIEW = answers.LocalView(
    version="0.1.0", node="m1", cluster_name="demo", roles=ALL_ROLES, connected=True,
    volumes=(LOCAL_VOLUME,), disks=DISKS[:1],
)  # fmt: skip
PLACEMENT = answers.Placement(
    fits=False, reason="no room", hint="enrol more disks",
    disks=(
        answers.DiskVerdict(disk=DiskId("d1"), node=NodeId("m1"), path="/dev/sdb", takes_bytes=0,
                        free_bytes=GIB, largest_bytes=GIB, reason="it is full"),
    ),
)  # fmt: skip
LEGS = (
    answers.LegView(node=NodeId("m1"), disk_path="/dev/sdb", state=LegState.IN_SYNC, condition="",
                reachable=True, done_bytes=0, total_bytes=0),
    answers.LegView(node=NodeId("store2"), disk_path="/dev/sdb", state=LegState.REBUILDING,
                condition="slow", reachable=False, done_bytes=GIB, total_bytes=4 * GIB),
)  # fmt: skip
VOLUMES = (
    answers.VolumeView(
        id=VolumeId("v1"), name="data", size_bytes=4 * GIB, copies=2, layout=Layout.RAID1,
        state=VolumeState.AVAILABLE, health="degraded", head="m1", standby=(),
        attachment=AttachmentState.ATTACHED, device="/dev/vastsky/data", message="rebuilding",
        segments=(answers.SegmentView(index=0, length_bytes=4 * GIB, legs=LEGS),),
        scrubbed=ScrubResult(
            ended_s=1.7e9, checked_bytes=4 * GIB, repaired_bytes=8192, undecided_bytes=0,
            skipped=(3,),
            message="8.0 KiB differed and were repaired from the majority",
        ),
    ),
    answers.VolumeView(
        id=VolumeId("v2"), name="empty", size_bytes=GIB, copies=1, layout=Layout.LINEAR,
        state=VolumeState.CREATING, health="unknown", head="", standby=(), attachment=None,
        device="", message="", segments=(),
    ),
)  # fmt: skip
EVENTS = tuple(
    Event(number=number, time_s=1.7e9 + number, severity=Severity.WARNING, kind="leg",
          subject="v1", message=f"thing {number} happened")
    for number in range(1, 6)
)  # fmt: skip
RECOVERY = answers.RecoveryView(
    recovering=True, why="manager.db is missing", nodes=("m1",), disks=1,
    volumes=(
        answers.RecoveredVolume(name="data", size_bytes=4 * GIB, copies=2, head="m1", legs=2,
                            legs_seen=1),
    ),
    missing=("node store2",), notes=("m1: /dev/sdc: damaged vastsky disk",),
)  # fmt: skip
RECOVERED = answers.RecoveryView(recovering=False, why="", nodes=("m1",), kept_as="/x/manager.db.1")
JOIN = answers.Initialised(
    cluster=ClusterId("c1"), cluster_name="demo", node=NodeId("m1"), roles=ALL_ROLES,
    addresses=("10.0.0.1",),
)  # fmt: skip


def job(
    kind: JobKind = JobKind.CREATE, about: str = "data", state: JobState = JobState.RUNNING,
    done_bytes: int = 0, total_bytes: int = 0, message: str = "", error_code: str = "",
    hint: str = "", name: str = "j1", started_by: str = "", started_s: float = 1.7e9,
) -> Job:  # fmt: skip
    return Job(
        id=JobId(name), started_by=started_by, kind=kind, subject="v1", about=about, state=state,
        started_s=started_s,
        done_bytes=done_bytes, total_bytes=total_bytes, message=message, error_code=error_code,
        hint=hint,
    )  # fmt: skip


_KINDS: dict[type[Record], JobKind] = {
    api.EnrolDisk: JobKind.ENROL,
    api.RetireDisk: JobKind.RETIRE,
    api.CreateVolume: JobKind.CREATE,
    api.DeleteVolume: JobKind.DELETE,
    api.AttachVolume: JobKind.ATTACH,
    api.DetachVolume: JobKind.DETACH,
    api.ScrubVolume: JobKind.SCRUB,
    api.FailoverVolume: JobKind.ATTACH,
}


class FakeCluster:
    """`asked` keeps every request. `fault`, if set, is raised in place of any answer, and what
    `refuse` says of a request in place of its own. A job goes
    through `steps`: to the next when somebody who waits has seen the last."""

    def __init__(self) -> None:
        self.asked: list[Record] = []
        self.fault: BaseException | None = None
        self.refuse: Callable[[Record], BaseException | None] = lambda request: None
        self.wrong_answer: Record | None = None
        self.steps: list[Job] = [job(state=JobState.DONE)]
        self.events = EVENTS
        self.volumes: tuple[answers.VolumeView, ...] = VOLUMES
        self.recovery = RECOVERY
        self.gate: asyncio.Event | None = None
        self.view = msgspec.structs.replace(VIEW, volumes=(), disks=())
        self.running: tuple[Job, ...] = (job(done_bytes=1, total_bytes=4),)
        self.touched = asyncio.Event()
        self._started: Job | None = None

    async def ask(self, request: Record) -> Record:
        self.asked.append(request)
        if isinstance(request, api.Paged):
            request = msgspec.structs.replace(request, limit=min(request.limit, PAGE_MOST))
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        if (refusal := self.refuse(request)) is not None:
            raise refusal
        if self.wrong_answer is not None:
            return self.wrong_answer
        if type(request) in _KINDS and isinstance(request, api.Act):
            self._started = job(_KINDS[type(request)])
            if request.dry_run:
                return api.JobStarted(job=job(name=""))
            return api.JobStarted(job=self._started)
        return self._answer(request)

    @property
    def wanted(self) -> list[Record]:
        """What was asked, without by whom."""
        return [
            msgspec.structs.replace(each, asked_by="") if isinstance(each, api.Act) else each
            for each in self.asked
        ]

    def changes(self) -> tuple[Record, ...]:
        """What was asked but not for looking."""
        looks = (api.Paged, api.ShowJob)
        return tuple(each for each in self.asked if not isinstance(each, looks))

    def _answer(self, request: Record) -> Record:
        match request:
            case api.ListNodes(node=name):
                nodes = _found(NODES, "node", name, lambda each: (each.id,))
                shown, more = page(nodes, lambda each: each.id, request)
                return answers.NodeList(nodes=shown, next=more)
            case api.ListVolumes(volume=name):
                volumes = _found(self.volumes, "volume", name, lambda each: (each.name, each.id))
                some, more = page(volumes, lambda each: each.name, request)
                return answers.VolumeList(volumes=some, next=more)
            case api.ListDisks(node=node, disk=name):
                disks = _found(
                    DISKS, "disk", name, lambda each: (each.id, f"{each.node}:{each.path}")
                )
                return answers.DiskList(disks=tuple(d for d in disks if node in ("", d.node)))
            case api.ListEvents(after=after, limit=limit):
                later = tuple(each for each in self.events if each.number > after)
                return answers.EventList(events=later[-limit:])
            case api.ShowJob(job=name):
                if name != "j1":
                    raise NotFoundError(f"there is no job {name}")
                if request.seen == self.steps[0] and len(self.steps) > 1:
                    self.steps.pop(0)
                return answers.JobList(jobs=(self.steps[0],))
        said: dict[type[Record], Callable[[], Record]] = {
            api.ShowStatus: lambda: STATUS,
            api.ListJobs: lambda: answers.JobList(jobs=self.running),
            api.ExplainPlacement: lambda: PLACEMENT,
            api.SetStandby: api.Done,
            api.SetCopiesApart: api.Done,
            api.CancelJob: api.Done,
            api.CreateToken: lambda: api.Token(token="vsky1-secret"),
            api.RemoveNode: api.Done,
            api.ShowRecovery: lambda: self.recovery,
            api.BeginRecovery: lambda: RECOVERY,
            api.FinishRecovery: lambda: RECOVERED,
        }
        return said[type(request)]()

    async def has_been_asked(self, kind: type[Record], times: int = 1) -> None:
        async with asyncio.timeout(5):
            while sum(type(each) is kind for each in self.asked) < times:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def init(self, request: api.InitCluster) -> answers.Initialised:
        self.asked.append(request)
        if self.fault is not None:
            raise self.fault
        return msgspec.structs.replace(JOIN, addresses=request.addresses or JOIN.addresses)

    async def join(
        self, token: str, addresses: tuple[str, ...], rack: str, node: str, roles: tuple[Role, ...]
    ) -> answers.Initialised:
        self.asked.append(
            api.JoinCluster(token=token, addresses=addresses, rack=rack, node=node, roles=roles)
        )
        return JOIN

    def local(self) -> answers.LocalView:
        return self.view

    def change(self, **members: object) -> None:
        """This host is another now."""
        self.view = msgspec.structs.replace(self.view, **members)
        self.touched.set()

    async def changed(self) -> None:
        await self.touched.wait()
        self.touched.clear()


def _found(
    records: tuple[T, ...], what: str, name: str, names: Callable[[T], tuple[str, ...]]
) -> tuple[T, ...]:
    found = tuple(each for each in records if not name or name in names(each))
    if not found:
        raise NotFoundError(f"there is no {what} {name}", hint=f"see `vastskyctl {what} list`")
    return found
