"""What the manager knows of disks beyond what their hosts see."""

from vastskyd.core.documents import CandidateFact, DiskWords, OfferWords
from vastskyd.core.health import ailments
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.model import Disk
from vastskyd.core.offers import what_is_on, why_not
from vastskyd.core.turn import Turn

Users = dict[DiskId, set[str]]


def disk_users(turn: Turn) -> Users:
    """The names of the volumes that have legs on each disk."""
    users: Users = {}
    for volume, _, leg in turn.draft.legs():
        extent = turn.draft.extents.get(leg.extent)
        if extent is not None:
            users.setdefault(extent.disk, set()).add(volume.name)
    return users


def disk_words(turn: Turn, disk: Disk, users: Users) -> DiskWords:
    return DiskWords(
        state=disk.state,
        reason=disk.reason,
        volumes=tuple(sorted(users.get(disk.id, ()))),
        smart_read_s=0.0 if disk.smart is None else disk.smart.read_s,
        warnings=tuple(ailments(turn, disk)),
    )


def offer_words(turn: Turn, node: NodeId) -> tuple[OfferWords, ...]:
    """Of those of which the host does not know this itself."""
    report = turn.facts[node].report
    if report is None:
        return ()
    said = ((each, offer_message(turn, node, each)) for each in report.storage.candidates)
    return tuple(
        OfferWords(path=each.path, message=message)
        for each, message in said
        if message != each.found
    )


def offer_message(turn: Turn, node: NodeId, candidate: CandidateFact) -> str:
    """What is on a disk that is not enrolled, or why it was not enrolled by itself."""
    if candidate.matches and not candidate.found and (why := why_not(turn, node, candidate)):
        return f"not enrolled by itself: {why}"
    return what_is_on(turn, candidate)
