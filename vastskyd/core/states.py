"""The state machines' transition tables: what may follow what. Nothing else changes a state."""

from enum import StrEnum

from vastskyd.core.errors import FailedError
from vastskyd.core.model import AttachmentState, DiskState, ExtentState, JobState, LegState

_TABLES: dict[type[StrEnum], dict[StrEnum, frozenset[StrEnum]]] = {
    DiskState: {
        DiskState.ENROLLING: frozenset({DiskState.ONLINE}),
        DiskState.ONLINE: frozenset(
            {DiskState.FAILING, DiskState.DRAINING, DiskState.MISSING, DiskState.FAILED}
        ),
        DiskState.FAILING: frozenset({DiskState.ONLINE, DiskState.MISSING, DiskState.FAILED}),
        DiskState.DRAINING: frozenset(
            {DiskState.ONLINE, DiskState.FAILING, DiskState.MISSING, DiskState.FAILED}
        ),
        DiskState.MISSING: frozenset({DiskState.ONLINE, DiskState.FAILED}),
        DiskState.FAILED: frozenset(),
        DiskState.UNSEEN: frozenset(),
    },
    ExtentState: {
        ExtentState.PREPARING: frozenset({ExtentState.READY, ExtentState.RELEASED}),
        ExtentState.READY: frozenset({ExtentState.RELEASED}),
        ExtentState.RELEASED: frozenset(),
    },
    LegState: {
        LegState.IN_SYNC: frozenset({LegState.BEHIND, LegState.FAILED}),
        LegState.BEHIND: frozenset({LegState.JOINING, LegState.FAILED}),
        LegState.REBUILDING: frozenset({LegState.JOINING, LegState.FAILED}),
        LegState.JOINING: frozenset({LegState.IN_SYNC, LegState.BEHIND, LegState.FAILED}),
        LegState.FAILED: frozenset(),
    },
    AttachmentState: {
        AttachmentState.FENCING: frozenset(
            {AttachmentState.ATTACHING, AttachmentState.DETACHING, AttachmentState.UNFENCED}
        ),
        AttachmentState.ATTACHING: frozenset({AttachmentState.ATTACHED, AttachmentState.DETACHING}),
        # One that was mended is attached already, and is given a device.
        AttachmentState.ATTACHED: frozenset({AttachmentState.ATTACHING, AttachmentState.DETACHING}),
        AttachmentState.DETACHING: frozenset({AttachmentState.ATTACHED}),
        AttachmentState.UNFENCED: frozenset(),
    },
    JobState: {
        JobState.RUNNING: frozenset({JobState.DONE, JobState.FAILED}),
        JobState.DONE: frozenset(),
        JobState.FAILED: frozenset(),
    },
}


def check_transition(what: str, old: StrEnum, new: StrEnum) -> None:
    """FailedError if the table does not have the step; staying is always allowed."""
    if old is not new and new not in _TABLES[type(old)][old]:
        raise FailedError(f"{what} cannot go from {old} to {new}")
