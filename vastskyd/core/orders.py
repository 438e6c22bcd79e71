"""Each node's document, from the records: the desired state as the nodes are told it."""

from dataclasses import dataclass

from vastskyd.core.documents import (
    DiskSpec,
    Endpoint,
    ExportServerSpec,
    ExtentCondition,
    ExtentSpec,
    ExtentWish,
    HeadDocument,
    LegHint,
    LegSpec,
    SegmentSpec,
    StorageDocument,
    VolumeHints,
    VolumeSpec,
)
from vastskyd.core.evacuating import leaving_leg
from vastskyd.core.ids import DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import (
    TOLD,
    Attachment,
    AttachmentState,
    Disk,
    DiskState,
    Extent,
    ExtentState,
    JobKind,
    Layout,
    Leg,
    LegState,
    Node,
    Segment,
    Volume,
)
from vastskyd.core.names import export_name
from vastskyd.core.offers import unasked_job
from vastskyd.core.recovery import admitted_rebuilds, is_condemned
from vastskyd.core.scrubbing import admitted_scrubs
from vastskyd.core.standing import Users, disk_users, disk_words, offer_words
from vastskyd.core.turn import Turn

# A wish for wiping is carried in the enrol job's text, so that it outlives a manager's death.
WIPE_ALLOWED = "wipe"


@dataclass(frozen=True)
class Orders:
    """What one node is to have."""

    storage: StorageDocument
    head: HeadDocument


def orders(turn: Turn) -> dict[NodeId, Orders]:
    """For every node that was seen; an empty document where it has nothing to do."""
    rebuilds = admitted_rebuilds(turn)
    scrubs = admitted_scrubs(turn, rebuilds)
    users = disk_users(turn)
    disks: dict[NodeId, list[DiskSpec]] = {}
    for disk in turn.draft.disks.values():
        if disk.state is DiskState.UNSEEN:
            continue
        disks.setdefault(disk.node, []).append(_disk_spec(turn, disk, users))
    extents: dict[NodeId, list[ExtentSpec]] = {}
    served: dict[NodeId, set[NodeId]] = {}
    legs = {leg.extent: (volume, segment, leg) for volume, segment, leg in turn.draft.legs()}
    for extent in turn.draft.extents.values():
        on = turn.draft.disks.get(extent.disk)
        if on is None or on.state is DiskState.UNSEEN:
            continue
        spec = _extent_spec(turn, on, extent, legs.get(extent.id))
        extents.setdefault(on.node, []).append(spec)
        if spec.head is not None:
            served.setdefault(on.node, set()).add(spec.head)
    return {
        node.id: Orders(
            StorageDocument(
                disks=tuple(disks.get(node.id, ())),
                extents=tuple(extents.get(node.id, ())),
                servers=_servers(turn, served.get(node.id, set())),
                offers=offer_words(turn, node.id),
            ),
            _head_document(turn, node, rebuilds.legs, scrubs),
        )
        for node in turn.draft.nodes.values()
        if not node.unseen  # the records may not know all that it has
    }


def _disk_spec(turn: Turn, disk: Disk, users: Users) -> DiskSpec:
    enrol = disk.state is DiskState.ENROLLING
    jobs = turn.running(JobKind.ENROL, subject=disk.id) if enrol else []
    return DiskSpec(
        id=disk.id,
        path=disk.path,
        serial=disk.serial,
        enrol=enrol,
        wipe=any(job.message == WIPE_ALLOWED for job in jobs),
        failing=disk.smart_ignored,
        unasked=enrol and unasked_job(turn, disk) is not None,
        words=disk_words(turn, disk, users),
    )


def _extent_spec(
    turn: Turn, disk: Disk, extent: Extent, where: tuple[Volume, Segment, Leg] | None
) -> ExtentSpec:
    volume, segment, leg = where or (None, None, None)
    released = extent.state is ExtentState.RELEASED or volume is None
    attachment = None if volume is None or released else volume.attachment
    failed = leg is not None and leg.state is LegState.FAILED
    to = None
    if attachment and attachment.state is not AttachmentState.UNFENCED and not failed:
        to = attachment.head if attachment.head != disk.node else None
    return ExtentSpec(
        id=extent.id,
        disk=extent.disk,
        offset_bytes=extent.offset_bytes,
        length_bytes=extent.length_bytes,
        volume=extent.volume,
        segment=extent.segment,
        wish=ExtentWish.RELEASE if released else ExtentWish.KEEP,
        wipe_first=extent.wipe_first,
        epoch=0 if volume is None else volume.epoch,
        head=to,
        export_key=attachment.export_key if attachment and to else "",
        hints=_hints(turn, volume, segment, leg, deleted=extent.volume not in turn.draft.volumes),
    )


def _hints(
    turn: Turn, volume: Volume | None, segment: Segment | None, leg: Leg | None, *, deleted: bool
) -> VolumeHints:
    return VolumeHints(
        volume_name="" if volume is None else volume.name,
        volume_size_bytes=0 if volume is None else volume.size_bytes,
        copies=0 if volume is None else volume.copies,
        layout=Layout.RAID1 if volume is None else volume.layout,
        segment_length_bytes=0 if segment is None else segment.length_bytes,
        initialised=segment is not None and segment.initialised,
        leg_state=None if leg is None else leg.state,
        encryption=turn.draft.the_cluster().encryption,
        segments=0 if volume is None else len(volume.segments),
        set_revision=0 if segment is None else segment.revision,
        legs=() if segment is None else _leg_hints(turn, segment),
        deleted=deleted,
        mending=volume is not None and volume.attachment is not None and volume.attachment.mending,
    )


def _leg_hints(turn: Turn, segment: Segment) -> tuple[LegHint, ...]:
    hints = []
    for leg in segment.legs:
        extent = turn.draft.extents.get(leg.extent)
        disk = turn.draft.disk_of(leg.extent)
        hints.append(
            LegHint(
                extent=leg.extent,
                disk=DiskId("") if extent is None else extent.disk,
                node=NodeId("") if disk is None else disk.node,
                offset_bytes=0 if extent is None else extent.offset_bytes,
                state=leg.state,
            )
        )
    return tuple(hints)


def _servers(turn: Turn, heads: set[NodeId]) -> tuple[ExportServerSpec, ...]:
    encryption = turn.draft.the_cluster().encryption if heads else None
    return tuple(
        ExportServerSpec(
            head=head,
            port=turn.draft.nodes[head].export_port,
            addresses=turn.draft.nodes[head].addresses,
            encryption=encryption,
        )
        for head in sorted(heads)
        if encryption is not None and head in turn.draft.nodes
    )


def _head_document(
    turn: Turn, node: Node, admitted: frozenset[ExtentId], scrubs: frozenset[VolumeId]
) -> HeadDocument:
    volumes = [
        _volume_spec(turn, node, volume, volume.attachment, admitted, scrubs)
        for volume in turn.draft.volumes.values()
        if volume.attachment is not None
        and volume.attachment.head == node.id
        and volume.attachment.state in TOLD
    ]
    return HeadDocument(
        volumes=tuple(volumes),
        sync_rate_min_kib_s=turn.policy.sync_rate_min_kib_s,
        sync_rate_max_kib_s=turn.policy.sync_rate_max_kib_s,
    )


def _volume_spec(
    turn: Turn,
    head: Node,
    volume: Volume,
    attachment: Attachment,
    admitted: frozenset[ExtentId],
    scrubs: frozenset[VolumeId],
) -> VolumeSpec:
    scrub = volume.scrub if volume.id in scrubs else None
    return VolumeSpec(
        id=volume.id,
        name=volume.name,
        size_bytes=volume.size_bytes,
        copies=volume.copies,
        layout=volume.layout,
        epoch=attachment.epoch,
        attached=attachment.state is not AttachmentState.DETACHING,
        encryption=turn.draft.the_cluster().encryption,
        segments=tuple(
            SegmentSpec(
                index=segment.index,
                length_bytes=segment.length_bytes,
                initialised=segment.initialised,
                in_doubt=segment.in_doubt,
                legs=tuple(
                    spec
                    for leg in segment.legs
                    if (
                        spec := _leg_spec(
                            turn,
                            head,
                            attachment,
                            leg,
                            admitted,
                            leaving=leg.extent == leaving_leg(turn, volume, segment),
                        )
                    )
                    is not None
                ),
                scrub=volume.scrub_order if scrub and scrub.segment == segment.index else 0,
            )
            for segment in volume.segments
        ),
        exposed=not attachment.mending,
    )


def _leg_spec(
    turn: Turn,
    head: Node,
    attachment: Attachment,
    leg: Leg,
    admitted: frozenset[ExtentId],
    *,
    leaving: bool,
) -> LegSpec | None:
    """None for a leg that the head must not use."""
    extent = turn.draft.extents.get(leg.extent)
    disk = turn.draft.disk_of(leg.extent)
    if leg.state is LegState.FAILED or extent is None or disk is None:
        return None
    node = turn.draft.nodes[disk.node]
    fact = turn.facts.extent(node.id, leg.extent)
    local = node.id == head.id
    ready = (
        fact is not None
        and fact.condition is ExtentCondition.READY
        and fact.epoch == attachment.epoch
        and (local or fact.exported_to == head.id)
        and (leg.state in (LegState.IN_SYNC, LegState.JOINING) or leg.extent in admitted)
    )
    networks = min(len(node.addresses), len(head.addresses))
    endpoints = tuple(
        Endpoint(network=n, address=node.addresses[n], port=head.export_port)
        for n in range(networks)
    )
    return LegSpec(
        extent=leg.extent,
        node=node.id,
        state=leg.state,
        local=local and ready,
        endpoints=endpoints if ready and not local else (),
        export_name=export_name(leg.extent, attachment.export_key),
        length_bytes=extent.length_bytes,
        condemned=is_condemned(turn.draft, leg.extent, None if fact is None else fact.condition),
        failed=disk.state is DiskState.FAILED,
        leaving=leaving,
    )
