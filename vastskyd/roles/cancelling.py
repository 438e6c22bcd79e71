"""Ending jobs before they are done. Each ends in a state that the other rules know anyway: what
was being created is deleted, what was being attached is detached, a disk is used on."""

from vastskyd.core.api import CancelJob
from vastskyd.core.draining import cancel_drain
from vastskyd.core.errors import CancelledError, ConflictError, NotFoundError
from vastskyd.core.ids import VolumeId
from vastskyd.core.model import AttachmentState, Job, JobKind, JobState, Severity, Volume
from vastskyd.core.moving import let_go
from vastskyd.core.scrubbing import cancel_scrub
from vastskyd.core.turn import Turn
from vastskyd.roles.commands import drop_volume

_SAID = "it was cancelled"
_BEGUN = (AttachmentState.FENCING, AttachmentState.ATTACHING)
_WHY_NOT = {
    JobKind.REBUILD: "a rebuild cannot be cancelled: while a copy is missing it would begin anew",
    JobKind.DETACH: "a detach cannot be cancelled: its head may have begun; attach it again",
    JobKind.ENROL: "an enrolment cannot be cancelled: its host may have begun to write",
}


def cancel_job(turn: Turn, request: CancelJob) -> None:
    """Its job fails with the code Cancelled."""
    job = turn.draft.jobs.get(request.job)
    if job is None:
        raise NotFoundError(
            f"there is no job {request.job}", hint="`vastskyctl job list` shows jobs; old ones go"
        )
    if job.state is not JobState.RUNNING:
        raise ConflictError(
            f"job {job.id} has ended already: it is {job.state}",
            hint=f"`vastskyctl job show {job.id}` shows how",
        )
    if job.kind is JobKind.RETIRE:
        cancel_drain(turn, job, _SAID)
        return
    volume = turn.draft.volumes.get(VolumeId(job.subject))
    if volume is None or job.kind in _WHY_NOT:
        raise ConflictError(_WHY_NOT.get(job.kind, f"job {job.id} cannot be cancelled now"))
    if job.kind is JobKind.CREATE:
        _cancel_create(turn, volume)
    elif job.kind is JobKind.ATTACH:
        _cancel_attach(turn, volume, job)
    elif job.kind is JobKind.SCRUB and volume.scrub is not None and volume.scrub.job == job.id:
        cancel_scrub(turn, volume, volume.scrub, _SAID)
        return
    else:
        raise ConflictError(f"job {job.id} cannot be cancelled now")
    turn.fail_job(job, CancelledError(_SAID))


def _cancel_create(turn: Turn, volume: Volume) -> None:
    drop_volume(turn, volume)
    said = f"creating volume {volume.name} was cancelled; its extents are being wiped"
    turn.event(Severity.INFO, "volume-deleted", volume.id, said)


def _cancel_attach(turn: Turn, volume: Volume, job: Job) -> None:
    on, attachment = volume.attachment, volume.given()
    if on is None or attachment is None or attachment.state not in _BEGUN:
        raise ConflictError(
            f"job {job.id} cannot be cancelled now: the attach is at its end",
            hint=f"detach it: `vastskyctl volume detach {volume.name}`",
        )
    let_go(turn, volume, on)
    said = f"attaching volume {volume.name} on {attachment.head} was cancelled"
    turn.event(Severity.INFO, "attach-cancelled", volume.id, said)
