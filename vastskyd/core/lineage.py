"""Numbers that must be higher than any that was ever given out by a manager whose records are lost.

A segment's revision has two halves: the upper one counts how often the manager's database was
rebuilt under it, the lower one its changes since. So what the disks of a host say that was away
during a rebuild is older than what was decided after it.
"""

_LINEAGE_BITS = 32

# A host that was away may know of later starts of the manager, and of later attachments.
_GENERATIONS_MARGIN = 1 << 16
_EPOCHS_MARGIN = 1000


def next_lineage(revision: int) -> int:
    """The first revision after the next rebuild.

    >>> next_lineage(7) == next_lineage(0) == 1 << 32
    True
    """
    return ((revision >> _LINEAGE_BITS) + 1) << _LINEAGE_BITS


def generation_after(document_revision: int) -> int:
    """A number of the manager's starts that is higher than that of whoever made the document."""
    return (document_revision >> _LINEAGE_BITS) + _GENERATIONS_MARGIN


def epoch_after(epoch: int) -> int:
    """An epoch that no attachment had, if those that were not seen are not very many."""
    return epoch + _EPOCHS_MARGIN
