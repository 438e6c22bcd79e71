"""The manager's rule for disks that are not enrolled: one that carries a description is announced,
an empty one that matches auto_enroll is taken in by itself."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

import msgspec

from vastskyd.core.documents import CandidateFact, DiskClaim
from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import SHORT_ID_DIGITS, DiskId, NodeId
from vastskyd.core.model import (
    Candidate,
    Disk,
    DiskState,
    Job,
    JobKind,
    Retired,
    Severity,
)
from vastskyd.core.turn import Turn, disk_name

RETIRED_MAX = 500
TRIES_MAX = 3
TRY_AGAIN_S = 60.0
JUST_RETIRED_S = 60.0
LASTING = "/dev/disk/"

# That nobody asked for it is carried in the enrol job's text: so it outlives a manager's death.
UNASKED = "it matches auto_enroll"


def match(patterns: tuple[str, ...], names: tuple[str, ...]) -> str:
    """The first pattern that one of a disk's names matches; empty if there is none.

    >>> match(("/dev/disk/by-id/ata-*",), ("/dev/disk/by-id/ata-X_1", "/dev/sdb"))
    '/dev/disk/by-id/ata-*'
    """
    return next((p for p in patterns if any(fnmatchcase(name, p) for name in names)), "")


def follow_candidates(turn: Turn) -> None:
    _forget(turn)
    for node, candidate in list(_candidates(turn)):
        if candidate.claim is not None:
            _announce(turn, node, candidate, candidate.claim)
        elif candidate.matches and not candidate.found:
            _take(turn, node, candidate)


def _candidates(turn: Turn) -> Iterator[tuple[NodeId, CandidateFact]]:
    """Of hosts that know what they are to have by now."""
    for node, facts in turn.facts.items():
        if node in turn.draft.nodes and facts.current and facts.report is not None:
            yield from ((node, candidate) for candidate in facts.report.storage.candidates)


def _key(node: NodeId, candidate: CandidateFact) -> str:
    """A disk's path may become a lasting one only after a moment: its id goes first."""
    claim = candidate.claim
    return f"{node}:{claim.disk if claim is not None and claim.disk else candidate.path}"


def _forget(turn: Turn) -> None:
    there = {_key(node, each) for node, each in _candidates(turn) if each.claim or each.matches}
    trying = {disk_name(disk) for disk in turn.draft.disks.values() if _is_tried(turn, disk)}
    for known in list(turn.draft.candidates.values()):
        gone = turn.facts[known.node].current and known.key not in there | trying
        if gone or known.node not in turn.draft.nodes:
            turn.draft.delete(known)
    for retired in list(turn.draft.retired.values()):
        if retired.disk in turn.draft.disks:  # found again when the database was rebuilt
            turn.draft.delete(retired)


def _is_tried(turn: Turn, disk: Disk) -> bool:
    return disk.state is DiskState.ENROLLING and unasked_job(turn, disk) is not None


# --- disks that carry a description ---------------------------------------------------------


def _announce(turn: Turn, node: NodeId, candidate: CandidateFact, claim: DiskClaim) -> None:
    key = _key(node, candidate)
    if key in turn.draft.candidates or claim.disk in turn.draft.disks:
        return  # said, or it was moved here and is about to be this host's
    if not claim.disk and not candidate.path.startswith(LASTING):
        return  # it would be said again under the name that udev gives it in a moment
    turn.draft.put(Candidate(key=key, node=node, claimed=claim.disk))
    retired = turn.draft.retired.get(claim.disk)
    if retired is not None and 0 <= turn.wall_s - retired.at_s < JUST_RETIRED_S:
        return  # it still stands where it was
    said = f"{node}:{candidate.path} is recognised: {what_is_on(turn, candidate)}; it is left alone"
    turn.event(Severity.INFO, "disk-recognised", claim.disk or candidate.path, said)


def is_in_use(found: str) -> bool:
    """By somebody, whom no --wipe takes it from."""
    return found.startswith("in use:")


def what_is_on(turn: Turn, candidate: CandidateFact) -> str:
    """In words; of a disk that was retired the host itself does not know that."""
    retired = None if candidate.claim is None else turn.draft.retired.get(candidate.claim.disk)
    if retired is None:
        return candidate.found
    return f"disk {retired.disk} of this cluster, which was retired"


# --- disks that are taken in by themselves --------------------------------------------------


def _take(turn: Turn, node: NodeId, candidate: CandidateFact) -> None:
    if why_not(turn, node, candidate):
        return
    known = turn.draft.candidates.get(_key(node, candidate))
    waits = known is not None and 0 <= turn.wall_s - known.tried_s < TRY_AGAIN_S
    enrolling = any(
        disk.node == node and disk.state is DiskState.ENROLLING
        for disk in turn.draft.disks.values()
    )
    if waits or enrolling:  # one at a time of each host
        return
    disk = Disk(
        id=DiskId(turn.new_token(SHORT_ID_DIGITS)),
        node=node,
        path=candidate.path,
        serial=candidate.serial,
        size_bytes=candidate.size_bytes,
        area_start_bytes=0,
        area_end_bytes=0,
        state=DiskState.ENROLLING,
    )
    turn.draft.put(disk)
    job = turn.start_job(JobKind.ENROL, disk.id, disk_name(disk))
    turn.draft.put(msgspec.structs.replace(job, message=UNASKED))


def why_not(turn: Turn, node: NodeId, candidate: CandidateFact) -> str:
    """Why an empty disk that matches auto_enroll is not taken in by itself; empty: it is."""
    known = turn.draft.candidates.get(_key(node, candidate))
    if known is not None and known.tries >= TRIES_MAX:
        return f"refused {known.tries} times: {known.reason}"
    for retired in turn.draft.retired.values():
        if _same(retired, node, candidate):
            return f"it was retired, as disk {retired.disk}"
    for disk in turn.draft.disks.values():
        if disk.state is not DiskState.ENROLLING and _same(disk, node, candidate):
            return f"it is, or stands in the place of, disk {disk.id}"
    return ""


def _same(one: Retired | Disk, node: NodeId, candidate: CandidateFact) -> bool:
    """By its serial number; where there is none, by its place."""
    if candidate.serial and one.serial:
        return one.serial == candidate.serial
    return (one.node, one.path) == (node, candidate.path)


def unasked_job(turn: Turn, disk: Disk) -> Job | None:
    """The job that takes the disk in, if nobody asked for that."""
    jobs = turn.running(JobKind.ENROL, subject=disk.id)
    return next((job for job in jobs if job.message == UNASKED), None)


def refused_unasked(turn: Turn, disk: Disk, error: VastskyError) -> None:
    """The disk's host found something against it."""
    key = disk_name(disk)
    before = turn.draft.candidates.get(key) or Candidate(key=key, node=disk.node)
    after = msgspec.structs.replace(
        before, tries=before.tries + 1, tried_s=turn.wall_s, reason=error.message
    )
    turn.draft.put(after)
    if after.tries == TRIES_MAX:
        said = (
            f"{disk_name(disk)} {UNASKED}, but was refused {TRIES_MAX} times, the last time"
            f" because {error.message}"
        )
        said += f"; {error.hint}" if error.hint else ""
        turn.event(Severity.WARNING, "disk-refused", disk.id, said)


def remember_retired(turn: Turn, disk: Disk) -> None:
    """The oldest are forgotten when they are too many."""
    turn.draft.put(
        Retired(disk=disk.id, node=disk.node, path=disk.path, serial=disk.serial, at_s=turn.wall_s)
    )
    by_age = sorted(turn.draft.retired.values(), key=lambda each: (each.at_s, each.disk))
    for old in by_age[:-RETIRED_MAX]:
        turn.draft.delete(old)


def forget_retired(turn: Turn, disk: Disk) -> None:
    """It is enrolled again: somebody wished so."""
    for retired in list(turn.draft.retired.values()):
        same_place = (retired.node, retired.path) == (disk.node, disk.path)
        if retired.serial == disk.serial if disk.serial and retired.serial else same_place:
            turn.draft.delete(retired)
