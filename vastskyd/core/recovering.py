"""The manager's records, made anew from what the hosts say of themselves.

Why it is safe. A segment's legs change by commits, each with a higher revision, and every extent's
description carries the whole of its segment as of some revision; descriptions lag behind commits.
Of what is seen of a segment the highest revision speaks. Later commits may be unknown; but a leg
enters the set only after a disk of the set knew that it was joining (core.recovery). So if all
legs that the highest seen revision calls in sync or joining are there, then every later set is
among them: had another leg entered, one of these would know. Among them is one that holds every
acknowledged write, and md's event counts say which. That is why a rebuilt segment is *in doubt*:
its array is built of all these legs or, by force, of fewer, until it was seen whole.

A volume whose device stands on a head goes on there: its set is what the head's md writes to.

Whether a segment was ever written to is told by its epoch, which is on the disk before the first
export. One that had an epoch and was not yet said to be initialised may have an array or not: what
stands on its legs tells, if all of them are there.
"""

from dataclasses import dataclass

import msgspec

from vastskyd.core.description import ExtentRecord, ExtentRecordState
from vastskyd.core.documents import LegHint
from vastskyd.core.evidence import Evidence, Found
from vastskyd.core.half_made import completed
from vastskyd.core.ids import DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.lineage import epoch_after, next_lineage
from vastskyd.core.model import (
    Attachment,
    AttachmentState,
    DiskState,
    Extent,
    ExtentState,
    Leg,
    Role,
    Segment,
    Volume,
    VolumeState,
)
from vastskyd.core.recovering_hosts import Case, Hosts
from vastskyd.core.running_legs import RELIED_ON, hint_of, is_wiping, running_legs
from vastskyd.core.state import ClusterState, Draft
from vastskyd.core.witness import SegmentSighting, StackSighting

_EXPORT_KEY_DIGITS = 32
_SHORT_ID = 8


@dataclass(frozen=True)
class Rebuilt:
    """`missing` are hosts, disks and legs that were spoken of and not seen; `blocked` is what
    must not be gone on without; `notes` what a person should know."""

    records: Draft
    missing: tuple[str, ...]
    blocked: tuple[str, ...]
    notes: tuple[str, ...]


def rebuild(case: Case) -> Rebuilt:
    """The same witnesses give the same records, but for the tokens that are drawn."""
    return _Rebuilding(case).run()


class _Rebuilding:
    """One rebuild, while it is done: records go into the draft as they are found."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._evidence = Evidence.of(case.witnesses)
        self._draft = Draft(ClusterState())
        self._hosts = Hosts(case, self._evidence, self._draft)
        self._missing: list[str] = []
        self._blocked: list[str] = []
        self._notes: list[str] = []
        self._to_be_made: set[ExtentId] = set()

    def run(self) -> Rebuilt:
        self._notes += self._hosts.put()
        for volume, found in sorted(self._evidence.volumes.items()):
            self._put_volume(volume, found)
        self._put_rest()
        self._check_stacks()
        self._tell_missing()
        return Rebuilt(self._draft, tuple(self._missing), tuple(self._blocked), tuple(self._notes))

    # --- volumes ----------------------------------------------------------------------------

    def _put_volume(self, volume: VolumeId, found: tuple[Found, ...]) -> None:
        """Also one of which only what was replaced is seen: were it not known, its extents that are
        being wiped would be taken for those of a deleted volume, and the others with them."""
        if volume in self._evidence.deleted or not any(f.record.volume_name for f in found):
            return
        newest = max(found, key=lambda f: (f.record.set_revision, f.record.id)).record
        epoch = self._evidence.epoch(volume)
        attachment, stack = self._attachment(volume, epoch)
        count = max(newest.segments, *(f.record.segment + 1 for f in found))
        segments = tuple(
            self._segment(volume, index, newest, epoch, stack) for index in range(count)
        )
        segments = _with_lengths(segments, newest.volume_size_bytes)
        unseen = any(self._is_unseen(leg.extent) for s in segments for leg in s.legs)
        name = self._free_name(newest.volume_name, volume)
        if epoch == 0:
            segments = self._completed(name, segments, newest.copies)
        before = self._case.before.volumes.get(volume)
        rebuilt = Volume(
            id=volume,
            name=name,
            size_bytes=newest.volume_size_bytes,
            copies=newest.copies,
            layout=newest.layout,
            state=self._volume_state(segments),
            segments=segments,
            epoch=epoch_after(epoch) if unseen and attachment is None else epoch,
            attachment=attachment,
            standby=() if before is None else before.standby,
            created_s=self._case.now_s if before is None else before.created_s,
        )
        self._draft.put(rebuilt)
        for segment in segments:
            if not segment.legs:
                self._missing.append(f"volume {name}: no leg of segment {segment.index}")

    def _completed(
        self, name: str, segments: tuple[Segment, ...], copies: int
    ) -> tuple[Segment, ...]:
        after = completed(segments, copies, self._draft, self._case.new_token)
        for segment in after:
            if segment.legs and not segments[segment.index].legs:
                self._to_be_made |= {leg.extent for leg in segment.legs}
                self._notes.append(
                    f"volume {name} was being created, and was never attached: its segment"
                    f" {segment.index}, of which no leg was seen, is made anew"
                )
        return after

    def _attachment(
        self, volume: VolumeId, epoch: int
    ) -> tuple[Attachment | None, StackSighting | None]:
        """Of the newest epoch that anybody knows: whoever stands on an older one was fenced."""
        exports = [e for e in self._evidence.exports_of(volume) if e.epoch == epoch]
        for head, stack in self._evidence.stacks.get(volume, ()):
            if stack.exposed and stack.epoch == epoch:
                keys = [e.export_key for e in exports if e.head == head]
                key = keys[0] if keys else self._case.new_token(_EXPORT_KEY_DIGITS)
                return self._on(head, epoch, key, AttachmentState.ATTACHED), stack
        heads = {export.head for export in exports}
        if len(heads) != 1:
            return None, None
        export = exports[0]
        if export.head in self._case.witnesses:
            # It was being attached, or its head was restarted: built once all is there.
            state = AttachmentState.FENCING
        else:
            state = AttachmentState.ATTACHED
            self._hosts.put_unseen(export.head, Role.HEAD)
        on = self._on(export.head, epoch, export.export_key, state)
        mending = self._evidence.is_mended(volume, epoch)
        return msgspec.structs.replace(on, mending=mending), None

    def _on(self, head: NodeId, epoch: int, key: str, state: AttachmentState) -> Attachment:
        return Attachment(
            head=head, epoch=epoch, state=state, export_key=key, since_s=self._case.now_s
        )

    def _free_name(self, name: str, volume: VolumeId) -> str:
        if not any(other.name == name for other in self._draft.volumes.values()):
            return name
        other = f"{name[: 63 - _SHORT_ID]}-{volume[:_SHORT_ID]}"
        self._notes.append(f"two volumes are called {name}: one of them is {other} now")
        return other

    def _volume_state(self, segments: tuple[Segment, ...]) -> VolumeState:
        for segment in segments:
            extents = [self._draft.extents.get(leg.extent) for leg in segment.legs]
            if not segment.initialised and any(
                extent is None or extent.state is not ExtentState.READY for extent in extents
            ):
                return VolumeState.CREATING
        return VolumeState.AVAILABLE

    # --- segments ---------------------------------------------------------------------------

    def _segment(
        self,
        volume: VolumeId,
        index: int,
        newest: ExtentRecord,
        epoch: int,
        stack: StackSighting | None,
    ) -> Segment:
        found = self._evidence.segment(volume, index)
        if not found:
            if stack is not None:
                self._block_unseen(volume, index)
            return Segment(index=index, length_bytes=0, legs=(), initialised=True, in_doubt=True)
        config = max(found, key=lambda f: (f.record.set_revision, bool(f.record.legs))).record
        hints = config.legs or tuple(hint_of(f) for f in found if not is_wiping(f))
        # What was exported once may have been written to, whatever a lagging disk says.
        in_doubt = config.initialised or epoch > 0
        revision = config.set_revision
        seen = None if stack is None else _seen(stack, index)
        if seen is not None:
            hints = self._as_running(volume, hints, found, seen, newest.copies)
            revision = next_lineage(revision)
        for hint in hints:
            self._put_extent(volume, config, hint, fresh=not in_doubt)
        return Segment(
            index=index,
            length_bytes=config.segment_length_bytes,
            legs=tuple(
                Leg(extent=hint.extent, state=hint.state, since_s=self._case.now_s)
                for hint in hints
            ),
            initialised=config.initialised or seen is not None,
            revision=revision,
            in_doubt=in_doubt,
        )

    def _as_running(
        self,
        volume: VolumeId,
        hints: tuple[LegHint, ...],
        found: tuple[Found, ...],
        seen: SegmentSighting,
        copies: int,
    ) -> tuple[LegHint, ...]:
        legs = running_legs(self._evidence, hints, found, seen, copies)
        if not seen.in_sync:
            self._block_unseen(volume, seen.index)
        for extent in legs.unexplained:
            self._blocked.append(
                f"volume {self._name(volume)} is in use, and nobody says on which disk its leg"
                f" {extent} is"
            )
        return legs.hints

    def _block_unseen(self, volume: VolumeId, index: int) -> None:
        self._blocked.append(
            f"volume {self._name(volume)} is in use, and nobody says of what its segment {index} is"
        )

    def _name(self, volume: VolumeId) -> str:
        names = [f.record.volume_name for f in self._evidence.volumes.get(volume, ())]
        return next((name for name in names if name), volume)

    # --- extents ----------------------------------------------------------------------------

    def _put_extent(
        self, volume: VolumeId, config: ExtentRecord, hint: LegHint, *, fresh: bool
    ) -> None:
        """The leg's extent. One that its disk does not have gets none, unless nothing can have
        been written to it: its leg then is one that nobody will ever reach."""
        there = self._evidence.found.get(hint.extent)
        if there is not None:
            self._put_found(there, keep=True)
            return
        if hint.disk not in self._evidence.disks and hint.disk:
            self._hosts.put_unseen_disk(hint)
            state, wipe_first = ExtentState.READY, False
        elif fresh and self._is_free(hint.disk, hint.offset_bytes, config.length_bytes):
            state, wipe_first = ExtentState.PREPARING, True
        else:
            return
        self._draft.put(
            Extent(
                id=hint.extent,
                disk=hint.disk,
                offset_bytes=hint.offset_bytes,
                length_bytes=config.length_bytes,
                volume=volume,
                segment=config.segment,
                state=state,
                wipe_first=wipe_first,
            )
        )

    def _is_free(self, disk: DiskId, offset_bytes: int, length_bytes: int) -> bool:
        place = self._evidence.disks[disk]
        area = place.description
        return (
            area.area_start_bytes <= offset_bytes
            and offset_bytes + length_bytes <= area.area_end_bytes
            and all(
                offset_bytes + length_bytes <= record.offset_bytes
                or record.end_bytes <= offset_bytes
                for record in area.extents
            )
        )

    def _put_found(self, found: Found, *, keep: bool) -> None:
        record = found.record
        state = ExtentState.RELEASED
        if keep and not is_wiping(found):
            preparing = record.state is ExtentRecordState.PREPARING
            state = ExtentState.PREPARING if preparing else ExtentState.READY
        self._draft.put(
            Extent(
                id=record.id,
                disk=found.disk,
                offset_bytes=record.offset_bytes,
                length_bytes=record.length_bytes,
                volume=record.volume,
                segment=record.segment,
                state=state,
                wipe_first=state is not ExtentState.READY,
            )
        )

    def _put_rest(self) -> None:
        """What no leg is made of is wiped: it was replaced, or its volume deleted. A disk that does
        not say of what its extent is keeps it."""
        for extent, found in sorted(self._evidence.found.items()):
            if extent in self._draft.extents:
                continue
            known = found.record.volume_name or found.record.volume in self._evidence.deleted
            if known or is_wiping(found):
                self._put_found(found, keep=False)
            else:
                self._blocked.append(
                    f"extent {extent} on {found.node} does not say what it is a part of"
                )

    # --- what is not there ------------------------------------------------------------------

    def _is_unseen(self, extent: ExtentId) -> bool:
        disk = self._draft.disk_of(extent)
        return disk is None or disk.state is DiskState.UNSEEN

    def _check_stacks(self) -> None:
        """A head is told to take down what it is not told to have: not what was never explained."""
        for volume, stacks in sorted(self._evidence.stacks.items()):
            for head, stack in stacks:
                if stack.exposed and volume not in self._draft.volumes:
                    self._blocked.append(
                        f"a volume ({volume}) is in use on {head}, and no disk of it was seen"
                    )
                elif stack.exposed and not self._is_on(volume, head):
                    self._notes.append(
                        f"volume {self._name(volume)} was being moved away from {head}: it is taken"
                        " down there; attach it where it is to be"
                    )

    def _is_on(self, volume: VolumeId, head: NodeId) -> bool:
        attachment = self._draft.volumes[volume].attachment
        return attachment is not None and attachment.head == head

    def _tell_missing(self) -> None:
        self._missing[:0] = [
            f"node {node.id}" for node in self._draft.nodes.values() if node.unseen
        ]
        for disk in self._draft.disks.values():
            if disk.state is DiskState.UNSEEN:
                names = {
                    self._draft.volumes[extent.volume].name
                    for extent in self._draft.extents.values()
                    if extent.disk == disk.id and extent.volume in self._draft.volumes
                }
                self._missing.append(
                    f"disk {disk.id} of node {disk.node}, with legs of {', '.join(sorted(names))}"
                )
        for volume, segment, leg in self._draft.legs():
            known = leg.extent in self._draft.extents or leg.extent in self._to_be_made
            if not known and leg.state in RELIED_ON:
                self._missing.append(
                    f"volume {volume.name}, segment {segment.index}: leg {leg.extent} is not on its"
                    " disk any more"
                )


def _seen(stack: StackSighting, index: int) -> SegmentSighting:
    return next(
        (s for s in stack.segments if s.index == index), SegmentSighting(index=index, in_sync=())
    )


def _with_lengths(segments: tuple[Segment, ...], size_bytes: int) -> tuple[Segment, ...]:
    """Those of which nothing is seen share what the others leave of the volume."""
    blank = [segment.index for segment in segments if not segment.legs]
    left_bytes = size_bytes - sum(segment.length_bytes for segment in segments)
    return tuple(
        msgspec.structs.replace(segment, length_bytes=max(0, left_bytes) // len(blank))
        if segment.index in blank
        else segment
        for segment in segments
    )
