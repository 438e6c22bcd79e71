"""What the manager answers to those who ask to see: records and facts, made readable."""

from dataclasses import dataclass

import msgspec

from vastskyd.core.answers import (
    ClusterStatus,
    DiskList,
    DiskView,
    EventList,
    JobList,
    LegView,
    NodeList,
    NodeView,
    SegmentView,
    VolumeList,
    VolumeView,
)
from vastskyd.core.api import ListDisks, ListEvents, ListJobs, ListNodes, ListVolumes
from vastskyd.core.documents import CandidateFact, LegCondition, LegFact
from vastskyd.core.draining import drain_progress
from vastskyd.core.errors import NotFoundError
from vastskyd.core.guards import guarded_length
from vastskyd.core.health import Health, cluster_health, problems, volume_health
from vastskyd.core.ids import DiskId, ExtentId, JobId, NodeId
from vastskyd.core.legs import leg_facts, reachable
from vastskyd.core.local import candidate_view, disk_message, smart_view
from vastskyd.core.model import (
    SERVING,
    AttachmentState,
    Disk,
    ExtentState,
    Job,
    JobKind,
    JobState,
    Leg,
    Node,
    Segment,
    Volume,
)
from vastskyd.core.names import volume_device
from vastskyd.core.paging import page
from vastskyd.core.scrubbing import scrub_progress
from vastskyd.core.sharing import notes
from vastskyd.core.standing import Users, disk_users, disk_words, offer_message
from vastskyd.core.turn import Turn, names_of, node_paths

_EVENTS_MAX = 1000
_PACE_LEAST_S = 1.0


def show_status(turn: Turn) -> ClusterStatus:
    state, facts = turn.draft, turn.facts
    cluster = state.the_cluster()
    online = [disk for disk in state.disks.values() if disk.state in SERVING]
    space = _space(turn)
    health = [volume_health(turn, volume)[0] for volume in state.volumes.values()]
    return ClusterStatus(
        cluster=cluster.id,
        name=cluster.name,
        manager=cluster.manager,
        encryption=cluster.encryption,
        health=cluster_health(turn),
        problems=problems(turn),
        nodes=len(state.nodes),
        nodes_online=sum(facts[node].online for node in state.nodes),
        disks=len(state.disks),
        disks_online=sum(facts[disk.node].online for disk in online),
        volumes=len(state.volumes),
        volumes_redundant=health.count(Health.REDUNDANT),
        capacity_bytes=sum(disk.area_end_bytes - disk.area_start_bytes for disk in online),
        free_bytes=sum(space.free_bytes(disk) for disk in online),
        jobs_running=sum(job.state is JobState.RUNNING for job in state.jobs.values()),
        copies_apart=cluster.copies_apart,
        notes=notes(turn),
    )


def list_nodes(turn: Turn, request: ListNodes) -> NodeList:
    wanted = [turn.draft.node(request.node)] if request.node else turn.draft.nodes.values()
    views = (_node(turn, node) for node in wanted)
    shown, more = page(views, lambda view: view.id, request)
    return NodeList(nodes=shown, next=more)


def _node(turn: Turn, node: Node) -> NodeView:
    facts = turn.facts[node.id]
    known = facts.seen or node.unseen
    state = "online" if facts.online else "unreachable" if known else "joining"
    return NodeView(
        id=node.id,
        roles=node.roles,
        addresses=node.addresses,
        rack=node.rack,
        state=state,
        unreachable_s=0.0 if facts.online else max(0.0, turn.monotonic_s - facts.since_s),
    )


def list_disks(turn: Turn, request: ListDisks) -> DiskList:
    if request.node:
        turn.draft.node(request.node)
    users, space = disk_users(turn), _space(turn)
    found = [
        (_disk(turn, disk, users, space), names_of(turn, disk))
        for disk in turn.draft.disks.values()
        if request.node in ("", disk.node)
    ]
    for node in turn.draft.nodes:
        report = turn.facts[node].report
        if report is not None and request.node in ("", node):
            found += [
                (_candidate(turn, node, each), node_paths(node, (each.path, *each.aliases)))
                for each in report.storage.candidates
            ]
    views = [view for view, names in found if not request.disk or request.disk in names]
    if request.disk:
        views = views[:1]  # an enrolled one rather than what stands in its place now
        if not views:
            raise NotFoundError(
                f"there is no disk {request.disk}", hint="`vastskyctl disk list --all` shows them"
            )
    shown, more = page(views, lambda view: f"{view.node}:{view.path} {view.id}", request)
    return DiskList(disks=shown, next=more)


def _candidate(turn: Turn, node: NodeId, candidate: CandidateFact) -> DiskView:
    return candidate_view(node, candidate, offer_message(turn, node, candidate))


@dataclass(frozen=True)
class _Space:
    """Of all disks, by one look at the extents."""

    used_bytes: dict[DiskId, int]
    wiped: frozenset[DiskId]

    def free_bytes(self, disk: Disk) -> int:
        area_bytes = disk.area_end_bytes - disk.area_start_bytes
        return max(0, area_bytes - self.used_bytes.get(disk.id, 0))


def _space(turn: Turn) -> _Space:
    used_bytes: dict[DiskId, int] = {}
    wiped = set()
    for extent in turn.draft.extents.values():
        used_bytes[extent.disk] = used_bytes.get(extent.disk, 0) + extent.length_bytes
        if extent.state is ExtentState.RELEASED:
            wiped.add(extent.disk)
    return _Space(used_bytes, frozenset(wiped))


def _disk(turn: Turn, disk: Disk, users: Users, space: _Space) -> DiskView:
    unreachable = not turn.facts[disk.node].online and disk.state in SERVING
    words = disk_words(turn, disk, users)
    return DiskView(
        id=disk.id,
        node=disk.node,
        path=disk.path,
        serial=disk.serial,
        size_bytes=disk.size_bytes,
        free_bytes=space.free_bytes(disk),
        state="unreachable" if unreachable else disk.state.value,
        message=disk_message(words, file=disk.file, slow=disk.slow, wiping=disk.id in space.wiped),
        volumes=words.volumes,
        smart=None if disk.smart is None else smart_view(disk.smart.last, words),
    )


def list_volumes(turn: Turn, request: ListVolumes) -> VolumeList:
    if request.volume:
        wanted = [turn.draft.volume(request.volume)]
    else:
        wanted = list(turn.draft.volumes.values())
    shown, more = page(wanted, lambda volume: volume.name, request)
    return VolumeList(volumes=tuple(_volume(turn, volume) for volume in shown), next=more)


def _volume(turn: Turn, volume: Volume) -> VolumeView:
    health, why = volume_health(turn, volume)
    facts = leg_facts(turn, volume)
    attachment = volume.given()
    nowhere = attachment is None or attachment.state is AttachmentState.UNFENCED
    return VolumeView(
        id=volume.id,
        name=volume.name,
        size_bytes=volume.size_bytes,
        copies=volume.copies,
        layout=volume.layout,
        state=volume.state,
        health=health.value,
        head="" if attachment is None else attachment.head,
        standby=volume.standby,
        attachment=None if attachment is None else attachment.state,
        device="" if nowhere else volume_device(volume.name),
        message=why,
        segments=tuple(
            SegmentView(
                index=segment.index,
                length_bytes=segment.length_bytes,
                legs=tuple(_leg(turn, segment, leg, facts) for leg in segment.legs),
            )
            for segment in volume.segments
        ),
        scrubbed=volume.scrubbed,
    )


def _leg(turn: Turn, segment: Segment, leg: Leg, facts: dict[ExtentId, LegFact]) -> LegView:
    disk = turn.draft.disk_of(leg.extent)
    fact = facts.get(leg.extent)
    filling = fact is not None and fact.condition is LegCondition.RECOVERING
    return LegView(
        node=disk.node if disk is not None else turn.draft.the_cluster().manager,
        disk_path=disk.path if disk is not None else "",
        state=leg.state,
        condition="" if fact is None else fact.condition.value,
        reachable=reachable(turn, leg.extent),
        done_bytes=0 if fact is None else fact.done_bytes,
        total_bytes=guarded_length(segment.length_bytes) if filling else 0,
    )


# --- jobs and events ---------------------------------------------------------------------


def list_jobs(turn: Turn, request: ListJobs) -> JobList:
    jobs = (
        job
        for job in turn.draft.jobs.values()
        if job.state is JobState.RUNNING or not request.running
    )
    shown, more = page(jobs, lambda job: f"{job.started_s:020.6f} {job.id}", request)
    return JobList(jobs=tuple(with_progress(turn, job) for job in shown), next=more)


def show_job(turn: Turn, job_id: JobId) -> JobList:
    job = turn.draft.jobs.get(job_id)
    if job is None:
        raise NotFoundError(
            f"there is no job {job_id}", hint="`vastskyctl job list` shows jobs; old ones go"
        )
    return JobList(jobs=(with_progress(turn, job),))


def with_progress(turn: Turn, job: Job) -> Job:
    """The job with what the nodes say of its progress; that is not stored."""
    if job.state is not JobState.RUNNING:
        return job
    done_bytes = 0
    if job.kind is JobKind.CREATE:
        done_bytes = _wiped_bytes(turn, job.subject)
    elif job.kind is JobKind.REBUILD:
        for volume in turn.draft.volumes.values():
            if volume.id == job.subject:
                done_bytes = _filled_bytes(leg_facts(turn, volume).get(job.extent), job)
    elif job.kind is JobKind.RETIRE:
        done_bytes, said = drain_progress(turn, job)
        job = msgspec.structs.replace(job, message=said)
    elif job.kind is JobKind.SCRUB:
        done_bytes, said = scrub_progress(turn, job)
        job = msgspec.structs.replace(job, message=said)
    done_bytes = min(done_bytes, job.total_bytes)
    rate_bytes, expected_end_s = _pace(turn, job, done_bytes)
    return msgspec.structs.replace(
        job,
        done_bytes=done_bytes,
        message="" if job.kind is JobKind.ENROL else job.message,
        rate_bytes=rate_bytes,
        expected_end_s=expected_end_s,
    )


def _filled_bytes(fact: LegFact | None, job: Job) -> int:
    """Of a leg that is full and not yet one of the set the head counts no bytes any more."""
    if fact is None:
        return 0
    return job.total_bytes if fact.condition is LegCondition.ACTIVE else fact.done_bytes


def _pace(turn: Turn, job: Job, done_bytes: int) -> tuple[int, float]:
    """By the average since it began; both 0 before there is one."""
    took_s = turn.wall_s - job.started_s
    if not done_bytes or took_s < _PACE_LEAST_S:
        return 0, 0.0
    left_s = (job.total_bytes - done_bytes) * took_s / done_bytes
    return round(done_bytes / took_s), float(round(turn.wall_s + left_s))


def _wiped_bytes(turn: Turn, volume_id: str) -> int:
    done_bytes = 0
    for extent in turn.draft.extents.values():
        disk = turn.draft.disks.get(extent.disk)
        if extent.volume != volume_id or disk is None:
            continue
        fact = turn.facts.extent(disk.node, extent.id)
        if extent.state is ExtentState.READY:
            done_bytes += extent.length_bytes
        elif fact is not None:
            done_bytes += fact.done_bytes
    return done_bytes


def list_events(turn: Turn, request: ListEvents) -> EventList:
    newer = sorted(number for number in turn.draft.events if number > request.after)
    limit = max(0, min(request.limit, _EVENTS_MAX))
    return EventList(
        events=tuple(turn.draft.events[number] for number in newer[len(newer) - limit :])
        if len(newer) > limit
        else tuple(turn.draft.events[number] for number in newer)
    )
