"""What a document wishes for a disk's extents, written into the disk's description."""

from collections.abc import Iterable

import msgspec

from vastskyd.core.description import DiskDescription, ExtentRecord, ExtentRecordState
from vastskyd.core.documents import ExtentSpec, ExtentWish
from vastskyd.core.ids import ExtentId


def find(description: DiskDescription, extent: ExtentId) -> ExtentRecord | None:
    return next((record for record in description.extents if record.id == extent), None)


def described(description: DiskDescription, extents: list[ExtentSpec]) -> DiskDescription:
    """The description with the document's wishes in it: one write for all of a disk's.

    An epoch never goes down, whatever a document says. Extents that the manager does not name are
    left alone: it may be the manager who forgot.
    """
    records = {record.id: record for record in description.extents}
    for spec in extents:
        record = records.get(spec.id)
        if spec.wish is ExtentWish.RELEASE:
            if record is not None:
                records[spec.id] = msgspec.structs.replace(
                    record,
                    state=ExtentRecordState.WIPING,
                    deleted=record.deleted or spec.hints.deleted,
                )
        else:
            records[spec.id] = _kept(spec, record)
    return with_extents(description, records.values())


def with_extents(description: DiskDescription, extents: Iterable[ExtentRecord]) -> DiskDescription:
    ordered = tuple(sorted(extents, key=lambda record: record.offset_bytes))
    return msgspec.structs.replace(description, extents=ordered)


def _kept(spec: ExtentSpec, record: ExtentRecord | None) -> ExtentRecord:
    state = ExtentRecordState.PREPARING if record is None else record.state
    epoch = spec.epoch if record is None else max(record.epoch, spec.epoch)
    return ExtentRecord(
        id=spec.id,
        offset_bytes=spec.offset_bytes,
        length_bytes=spec.length_bytes,
        volume=spec.volume,
        segment=spec.segment,
        state=state,
        epoch=epoch,
        segment_length_bytes=spec.hints.segment_length_bytes,
        initialised=spec.hints.initialised,
        leg_state=spec.hints.leg_state,
        volume_name=spec.hints.volume_name,
        volume_size_bytes=spec.hints.volume_size_bytes,
        copies=spec.hints.copies,
        layout=spec.hints.layout,
        encryption=spec.hints.encryption,
        segments=spec.hints.segments,
        set_revision=spec.hints.set_revision,
        legs=spec.hints.legs,
        mending=spec.hints.mending,
    )
