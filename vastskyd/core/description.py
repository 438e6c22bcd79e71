"""What an enrolled disk says of itself.

It is enough to recognise the disk in another host, to refuse epochs that are over, and to rebuild
a lost manager database: each extent carries what its volume was called and how it was made, and
its whole segment, with the legs on other disks. core.recovering reads it.
"""

from enum import StrEnum

import msgspec

from vastskyd.core.documents import LegHint
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, VolumeId
from vastskyd.core.model import Encryption, Layout, LegState, Record
from vastskyd.core.ondisk_layout import DELETED_MAX, EXTENTS_MAX, LEGS_MAX


class ExtentRecordState(StrEnum):
    PREPARING = "preparing"  # being wiped for its volume: holds nothing yet
    READY = "ready"
    WIPING = "wiping"  # released: never to be exported again


class ExtentRecord(Record):
    """One extent of the disk.

    `epoch` is the lowest that may still be exported. The fields below it are the manager's, kept
    for the day its database is lost; where it did not tell them they stand at their defaults.
    `leg_state` and `legs` are as of `set_revision`, and may be out of date: of several legs the
    one with the highest revision speaks, and md's superblocks have the last word. `segments` is
    how many the volume has. `deleted`: it is being wiped because its volume was deleted.
    `mending`: the attachment of this epoch is nobody's, and gives nobody a device.
    """

    id: ExtentId
    offset_bytes: int
    length_bytes: int
    volume: VolumeId
    segment: int
    state: ExtentRecordState
    epoch: int = 0
    segment_length_bytes: int = 0
    initialised: bool = False
    leg_state: LegState | None = None
    volume_name: str = ""
    volume_size_bytes: int = 0
    copies: int = 0
    layout: Layout = Layout.RAID1
    encryption: Encryption = Encryption.TLS
    segments: int = 0
    set_revision: int = 0
    legs: tuple[LegHint, ...] = ()
    deleted: bool = False
    mending: bool = False

    @property
    def end_bytes(self) -> int:
        return self.offset_bytes + self.length_bytes


class DiskDescription(Record):
    """The whole of it. Extents and clean ranges lie in [area_start_bytes, area_end_bytes), and no
    two of them overlap; `clean` are (start, end) pairs known to read as zeros. `deleted` are the
    last volumes whose extents were wiped here because they were deleted: what is left of them on
    disks that were away must not come back.
    """

    cluster: ClusterId
    disk: DiskId
    area_start_bytes: int
    area_end_bytes: int
    cluster_name: str = ""
    extents: tuple[ExtentRecord, ...] = ()
    clean: tuple[tuple[int, int], ...] = ()
    deleted: tuple[VolumeId, ...] = ()


def problem(description: DiskDescription) -> str:
    """What makes the description one that must not be written or believed; "" if nothing does.

    A clean range over an extent would have the manager take somebody's data for zeros.
    """
    if not 0 <= description.area_start_bytes <= description.area_end_bytes:
        return "its area ends before it begins"
    if len(description.extents) > EXTENTS_MAX:
        return f"it has {len(description.extents)} extents; {EXTENTS_MAX} are the most"
    if len({extent.id for extent in description.extents}) != len(description.extents):
        return "two of its extents have one id"
    if len(description.deleted) > DELETED_MAX:
        return f"it names {len(description.deleted)} deleted volumes; {DELETED_MAX} are the most"
    if any(len(extent.legs) > LEGS_MAX for extent in description.extents):
        return f"a segment has more than {LEGS_MAX} legs"
    if any(extent.epoch < 0 or extent.segment < 0 for extent in description.extents):
        return "an extent's epoch or segment is negative"
    ranges = [(e.offset_bytes, e.end_bytes, f"extent {e.id}") for e in description.extents]
    ranges += [(start, end, f"clean range {start}") for start, end in description.clean]
    position, before = description.area_start_bytes, "the start of the area"
    for start, end, what in sorted(ranges):
        if end <= start:
            return f"{what} is empty"
        if start < position:
            return f"{what} overlaps {before}"
        position, before = end, what
    if position > description.area_end_bytes:
        return f"{before} ends behind the area"
    return ""


def with_deleted(description: DiskDescription, volume: VolumeId) -> DiskDescription:
    """The description that remembers one more deleted volume; the oldest is forgotten."""
    before = tuple(each for each in description.deleted if each != volume)
    deleted = (*before, volume)[-DELETED_MAX:]
    return msgspec.structs.replace(description, deleted=deleted)
