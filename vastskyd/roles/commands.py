"""What people may ask the manager to change. Each function checks, and puts records: the rules
and the nodes do the rest."""

from collections.abc import Callable

import msgspec

from vastskyd.core.api import (
    AttachVolume,
    CreateVolume,
    DeleteVolume,
    DetachVolume,
    EnrolDisk,
    FailoverVolume,
    RemoveNode,
    RetireDisk,
    ScrubVolume,
    SetCopiesApart,
    SetStandby,
)
from vastskyd.core.documents import CandidateFact
from vastskyd.core.draining import drain
from vastskyd.core.errors import (
    BusyError,
    ConflictError,
    ExistsError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from vastskyd.core.ids import (
    SHORT_ID_DIGITS,
    VOLUME_ID_DIGITS,
    DiskId,
    NodeId,
    VolumeId,
    volume_name,
)
from vastskyd.core.mending import ended, hand_over
from vastskyd.core.model import (
    COPIES_MAX,
    Attachment,
    AttachmentState,
    Disk,
    DiskState,
    Extent,
    Job,
    JobKind,
    Layout,
    Leg,
    LegState,
    Node,
    Record,
    Role,
    Segment,
    Severity,
    Volume,
    VolumeState,
)
from vastskyd.core.moving import let_go, move, next_standby
from vastskyd.core.offers import is_in_use
from vastskyd.core.orders import WIPE_ALLOWED
from vastskyd.core.placement import PlacedSegment, place_volume
from vastskyd.core.scrubbing import begin_scrub
from vastskyd.core.turn import Turn, disk_name, find_disk, names_of
from vastskyd.core.units import MIB, align_up, format_size

_SIZE_MIN_BYTES = 8 * MIB
_HEADS = "`vastskyctl node list` shows which nodes have it; it is given when a host joins"


def _see(node: NodeId) -> str:
    return f"on {node}: `systemctl status vastskyd`, and `journalctl -u vastskyd` if it runs"


def enrol_disk(turn: Turn, request: EnrolDisk) -> Job:
    node = turn.draft.node(request.node)
    if Role.STORAGE not in node.roles:
        raise ConflictError(
            f"node {node.id} has no storage role",
            hint="`vastskyctl node list` shows which have; a role is given when a host joins",
        )
    facts = turn.facts[node.id]
    if not facts.online or facts.report is None:
        raise UnreachableError(f"node {node.id} is unreachable", hint=_see(node.id))
    for known in turn.draft.disks.values():
        if f"{request.node}:{request.path}" in names_of(turn, known):
            return _enrolled_already(turn, known, wipe=request.wipe)
    candidate = _candidate(facts.report.storage.candidates, request)
    if candidate.found and not request.wipe:
        raise ConflictError(
            f"{request.node}:{candidate.path} is not empty: {candidate.found}",
            hint=(
                f"`lsblk -f {candidate.path}` on {node.id} shows what uses it; end that first"
                if is_in_use(candidate.found)
                else "to destroy what is on it: `vastskyctl disk enrol"
                f" {request.node}:{request.path} --wipe`"
            ),
        )
    disk = Disk(
        id=DiskId(turn.new_token(SHORT_ID_DIGITS)),
        node=node.id,
        path=candidate.path,
        serial=candidate.serial,
        size_bytes=candidate.size_bytes,
        area_start_bytes=0,
        area_end_bytes=0,
        state=DiskState.ENROLLING,
        smart_ignored=request.failing,
    )
    turn.draft.put(disk)
    job = turn.start_job(JobKind.ENROL, disk.id, disk_name(disk))
    if request.wipe:
        job = msgspec.structs.replace(job, message=WIPE_ALLOWED)
        turn.draft.put(job)
    return job


def _enrolled_already(turn: Turn, disk: Disk, *, wipe: bool) -> Job:
    """Asked again: the job that runs, or one that says it is so. One that is not used as it was
    enrolled to be is refused."""
    for job in turn.running(JobKind.ENROL, subject=disk.id):
        return job
    said = f"{disk_name(disk)} is enrolled already, as disk {disk.id}"
    if disk.state is not DiskState.ONLINE:
        keep = "to use it on, cancel its job: `vastskyctl job list --running` shows it"
        anew = f"to enrol it anew, let it go first: `vastskyctl disk retire {disk.id}`"
        draining = disk.state is DiskState.DRAINING
        raise ExistsError(f"{said}, and is {disk.state}", hint=keep if draining else anew)
    job = turn.start_job(JobKind.ENROL, disk.id, disk_name(disk))
    turn.end_job(job, f"{said}; nothing was wiped" if wipe else said)
    return turn.draft.jobs[job.id]


def _candidate(candidates: tuple[CandidateFact, ...], request: EnrolDisk) -> CandidateFact:
    for candidate in candidates:
        if request.path == candidate.path or request.path in candidate.aliases:
            return candidate
    raise NotFoundError(
        f"{request.node} has no free disk {request.path}",
        hint=f"`vastskyctl disk list --all --node {request.node}` shows what there is; a disk that"
        " is not among them the host does not see",
    )


def retire_disk(turn: Turn, request: RetireDisk) -> Job:
    return drain(turn, find_disk(turn, request.disk))


# --- volumes -----------------------------------------------------------------------------


def wanted_copies(size_bytes: int, copies: int, layout: Layout) -> tuple[int, Layout]:
    """The volume's copies and layout: one copy is linear, and linear is one copy."""
    if size_bytes < _SIZE_MIN_BYTES:
        raise InvalidError(
            f"{format_size(size_bytes)} is too small for a volume",
            hint=f"ask for {format_size(_SIZE_MIN_BYTES)} or more",
        )
    wanted = 1 if layout is Layout.LINEAR else copies
    if not 1 <= wanted <= COPIES_MAX:
        raise InvalidError(
            f"a volume cannot have {copies} copies", hint=f"ask for 1 to {COPIES_MAX}"
        )
    return wanted, Layout.LINEAR if wanted == 1 else layout


def with_array(layout: Layout) -> bool:
    return layout is not Layout.LINEAR


def create_volume(turn: Turn, request: CreateVolume) -> Job:
    name = volume_name(request.name)
    if any(volume.name == name for volume in turn.draft.volumes.values()):
        raise ExistsError(
            f"there is a volume {name} already",
            hint=f"take another name; `vastskyctl volume show {name}` shows the one that is there",
        )
    copies, layout = wanted_copies(request.size_bytes, request.copies, request.layout)
    placed = place_volume(
        request.size_bytes,
        copies,
        turn.rooms(),
        turn.policy.segment_max_bytes,
        turn.apart,
        with_array=with_array(layout),
    )
    volume = Volume(
        id=VolumeId(turn.new_token(VOLUME_ID_DIGITS)),
        name=name,
        size_bytes=align_up(request.size_bytes),
        copies=copies,
        layout=layout,
        state=VolumeState.CREATING,
        segments=(),
        standby=_standby_heads(turn, request.standby),
        created_s=turn.wall_s,
    )
    segments = tuple(_segment(turn, volume, index, place) for index, place in enumerate(placed))
    turn.draft.put(msgspec.structs.replace(volume, segments=segments))
    total_bytes = sum(extent.length_bytes for place in placed for extent in place.extents)
    return turn.start_job(JobKind.CREATE, volume.id, name, total_bytes=total_bytes)


def _segment(turn: Turn, volume: Volume, index: int, place: PlacedSegment) -> Segment:
    extents: list[Extent] = [turn.new_extent(volume, index, spot) for spot in place.extents]
    return Segment(
        index=index,
        length_bytes=place.length_bytes,
        legs=tuple(
            Leg(extent=extent.id, state=LegState.IN_SYNC, since_s=turn.wall_s) for extent in extents
        ),
        # A bare leg needs no making: its extent reads as zeros, and that is all there is.
        initialised=volume.layout is Layout.LINEAR,
    )


def _standby_heads(turn: Turn, heads: tuple[NodeId, ...]) -> tuple[NodeId, ...]:
    for name in heads:
        if Role.HEAD not in turn.draft.node(name).roles:
            raise ConflictError(f"node {name} has no head role", hint=_HEADS)
    if len(set(heads)) != len(heads):
        raise InvalidError(
            f"a standby head is named twice: {', '.join(heads)}", hint="name each once"
        )
    return heads


def set_standby(turn: Turn, request: SetStandby) -> None:
    volume = turn.draft.volume(request.volume)
    heads = _standby_heads(turn, request.heads)
    turn.draft.put(msgspec.structs.replace(volume, standby=heads))
    said = ", ".join(heads) or "none"
    turn.event(
        Severity.INFO, "standby-set", volume.id, f"volume {volume.name}: standby heads: {said}"
    )


def set_copies_apart(turn: Turn, request: SetCopiesApart) -> None:
    cluster = turn.draft.the_cluster()
    if cluster.copies_apart is request.copies_apart:
        return
    turn.draft.put(msgspec.structs.replace(cluster, copies_apart=request.copies_apart))
    said = f"copies of a volume are kept on different {request.copies_apart}s from now on"
    turn.event(Severity.INFO, "copies-apart-set", cluster.id, said)


def delete_volume(turn: Turn, request: DeleteVolume) -> Job:
    volume = turn.draft.volume(request.volume)
    attachment = volume.given()
    if attachment is not None and attachment.state is AttachmentState.UNFENCED:
        raise BusyError(
            f"volume {volume.name}: {attachment.head} had it last and is not fenced:"
            " it may still write to it",
            hint=f"wait for {attachment.head}; if it is lost, attach it elsewhere first:"
            f" `vastskyctl volume attach {volume.name} HEAD`, with --force if legs are lost with"
            " it",
        )
    if attachment is not None:
        raise BusyError(
            f"volume {volume.name} is attached on {attachment.head}",
            hint=f"unmount it there and detach it first: `vastskyctl volume detach {volume.name}`",
        )
    drop_volume(turn, volume)
    for job in turn.running(JobKind.CREATE, JobKind.REBUILD, JobKind.SCRUB, subject=volume.id):
        turn.fail_job(job, ConflictError(f"volume {volume.name} was deleted"))
    turn.event(Severity.INFO, "volume-deleted", volume.id, f"volume {volume.name} is deleted")
    job = turn.start_job(JobKind.DELETE, volume.id, volume.name)
    turn.end_job(job, f"volume {volume.name} deleted; its extents are being wiped")
    return turn.draft.jobs[job.id]


def drop_volume(turn: Turn, volume: Volume) -> None:
    """Its extents are wiped and free again, by and by."""
    for segment in volume.segments:
        for leg in segment.legs:
            turn.release(leg.extent)
    turn.draft.delete(volume)


def attach_volume(turn: Turn, request: AttachVolume) -> Job:
    volume = turn.draft.volume(request.volume)
    head = turn.draft.node(request.head)
    if volume.state is not VolumeState.AVAILABLE:
        raise ConflictError(
            f"volume {volume.name} is still being created",
            hint="wait for its job, which `vastskyctl job list --running` shows",
        )
    kept, given = volume.attachment, volume.given()
    unfenced = given is not None and given.state is AttachmentState.UNFENCED
    if kept is not None and given is not None and not unfenced:
        if given.head == head.id and given.state is not AttachmentState.DETACHING:
            return _ongoing_attach(turn, volume, given, kept, force=request.force)
        if given.head == head.id or turn.facts[given.head].online:
            raise BusyError(
                f"volume {volume.name} is {given.state} on {given.head}",
                hint="wait for that to end: `vastskyctl job list --running` shows its job"
                if given.state is AttachmentState.DETACHING
                else f"unmount it there and detach it first: `vastskyctl volume detach"
                f" {volume.name}`; or, to take it from the programs that use it: `vastskyctl volume"
                f" failover {volume.name} {head.id}`",
            )
    _check_head(turn, head)
    if request.force:
        _tell_forced(turn, volume, head.id)
    if kept is not None and kept.mending:
        return hand_over(turn, volume, kept, head.id, forced=request.force)
    why = "which had it last" if unfenced else "which is unreachable"
    return move(turn, volume, head.id, why, forced=request.force)


def failover_volume(turn: Turn, request: FailoverVolume) -> Job:
    volume = turn.draft.volume(request.volume)
    attachment = volume.given()
    if attachment is None:
        raise ConflictError(
            f"volume {volume.name} is not attached",
            hint=f"attach it: `vastskyctl volume attach {volume.name} HEAD`",
        )
    target = request.head or next_standby(turn, volume)
    if target is None:
        known = ", ".join(volume.standby) or "none are set"
        raise ConflictError(
            f"volume {volume.name} has no standby head that is online ({known})",
            hint=f"name a head: `vastskyctl volume failover {volume.name} HEAD`",
        )
    if target == attachment.head and attachment.state is not AttachmentState.UNFENCED:
        raise ConflictError(
            f"volume {volume.name} is on {target} already",
            hint=f"name another head: `vastskyctl volume failover {volume.name} HEAD`",
        )
    head = turn.draft.node(target)
    _check_head(turn, head)
    return move(turn, volume, head.id, "by an administrator's failover")


def _check_head(turn: Turn, head: Node) -> None:
    if Role.HEAD not in head.roles:
        raise ConflictError(f"node {head.id} has no head role", hint=_HEADS)
    if not turn.facts[head.id].online:
        raise UnreachableError(f"node {head.id} is unreachable", hint=_see(head.id))


def _tell_forced(turn: Turn, volume: Volume, head: NodeId) -> None:
    turn.event(
        Severity.WARNING,
        "attach-forced",
        volume.id,
        f"volume {volume.name}: attach on {head} was forced; the last writes may be lost",
    )


def _ongoing_attach(
    turn: Turn, volume: Volume, given: Attachment, attachment: Attachment, *, force: bool
) -> Job:
    """Asked again: the job that runs, or one that says it is so. One that goes on without a job,
    as after a recovery, gets one; one that still waits for legs may be forced. `attachment` is as
    it is kept: another head may have to let go of the volume first."""
    if given.state is AttachmentState.FENCING and force and not attachment.forced:
        _tell_forced(turn, volume, given.head)
        attachment = msgspec.structs.replace(attachment, forced=True)
        turn.draft.put(msgspec.structs.replace(volume, attachment=attachment))
    for job in turn.running(JobKind.ATTACH, subject=volume.id):
        return job
    job = turn.start_job(JobKind.ATTACH, volume.id, volume.name)
    if given.state is not AttachmentState.ATTACHED:
        again = msgspec.structs.replace(attachment, since_s=turn.wall_s)
        turn.draft.put(msgspec.structs.replace(volume, attachment=again))
        return job
    turn.end_job(job, f"volume {volume.name} is attached already")
    return turn.draft.jobs[job.id]


def detach_volume(turn: Turn, request: DetachVolume) -> Job:
    """One that is mended goes on being so, but for nobody any more."""
    volume = turn.draft.volume(request.volume)
    for job in turn.running(JobKind.ATTACH, subject=volume.id):
        why = f"volume {volume.name}: a detach was asked for meanwhile"
        turn.fail_job(job, ConflictError(why))
    for job in turn.running(JobKind.DETACH, subject=volume.id):
        return job
    job = turn.start_job(JobKind.DETACH, volume.id, volume.name)
    if volume.attachment is not None and volume.attachment.mending:
        for_nobody = msgspec.structs.replace(volume.attachment, then=None)
        turn.draft.put(msgspec.structs.replace(volume, attachment=for_nobody))
    if volume.given() is None or volume.attachment is None or volume.attachment.mending:
        turn.end_job(job, f"volume {volume.name} is not attached")
        return turn.draft.jobs[job.id]
    if volume.attachment.state is not AttachmentState.DETACHING:
        let_go(turn, volume, volume.attachment)
    return job


def scrub_volume(turn: Turn, request: ScrubVolume) -> Job:
    volume = turn.draft.volume(request.volume)
    if len(volume.segments[0].legs) < 2:
        raise ConflictError(
            f"volume {volume.name} has one copy: there is nothing to compare it with",
            hint="scrub those with two copies or more: `vastskyctl volume list`",
        )
    attachment = volume.given()
    if attachment is None or attachment.state is not AttachmentState.ATTACHED:
        raise ConflictError(
            f"volume {volume.name} is not attached",
            hint="its head compares its copies: attach it,"
            f" `vastskyctl volume attach {volume.name} HEAD`, and ask again",
        )
    if volume.scrub is not None:
        raise BusyError(
            f"volume {volume.name} is being scrubbed",
            hint=f"wait for that to end: `vastskyctl job wait {volume.scrub.job}`",
        )
    return begin_scrub(turn, volume, attachment)


def remove_node(turn: Turn, request: RemoveNode) -> None:
    node = turn.draft.node(request.node)
    if Role.MANAGER in node.roles:
        raise ConflictError(
            f"{node.id} is the manager; it cannot be removed",
            hint="the cluster ends with it: remove the other nodes, then the package on this one",
        )
    disks = [disk_name(disk) for disk in turn.draft.disks.values() if disk.node == node.id]
    if disks:
        raise ConflictError(
            f"node {node.id} still has disks: {', '.join(disks)}",
            hint=f"retire each first: `vastskyctl disk retire {disks[0]}`",
        )
    volumes = [
        volume.name
        for volume in turn.draft.volumes.values()
        if (given := volume.given()) is not None and given.head == node.id
    ]
    if volumes:
        raise ConflictError(
            f"node {node.id} has volumes attached: {', '.join(volumes)}",
            hint=f"detach each first: `vastskyctl volume detach {volumes[0]}`",
        )
    for volume in list(turn.draft.volumes.values()):
        if volume.attachment is not None and volume.attachment.head == node.id:  # mended there
            ended(turn, volume, volume.attachment)
    turn.draft.delete(node)
    turn.event(Severity.INFO, "node-removed", node.id, f"node {node.id} is removed")


COMMANDS: dict[type[Record], Callable[..., Job]] = {
    EnrolDisk: enrol_disk,
    RetireDisk: retire_disk,
    CreateVolume: create_volume,
    DeleteVolume: delete_volume,
    AttachVolume: attach_volume,
    FailoverVolume: failover_volume,
    DetachVolume: detach_volume,
    ScrubVolume: scrub_volume,
}
