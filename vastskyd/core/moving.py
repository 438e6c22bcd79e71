"""A volume gets a head, or another one: the epoch rises, and whoever had the volume is fenced."""

import msgspec

from vastskyd.core.errors import ConflictError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import (
    Attachment,
    AttachmentState,
    Job,
    JobKind,
    Severity,
    Volume,
)
from vastskyd.core.turn import Turn

_EXPORT_KEY_DIGITS = 32
# A manager that has just started has heard of nobody yet: that is no sign of a node's death.
FIRST_WORD_S = 30.0


def move(turn: Turn, volume: Volume, head: NodeId, why: str = "", *, forced: bool = False) -> Job:
    """The next epoch, on `head`, for use. `why` is said of the head that is fenced, if it has the
    volume for use as well."""
    old = volume.given()
    if old is not None and old.head != head:
        said = f"volume {volume.name} moves from {old.head}, {why}, to {head}"
        for job in turn.running(JobKind.ATTACH, JobKind.DETACH, subject=volume.id):
            turn.fail_job(job, ConflictError(said))
        turn.event(Severity.WARNING, "head-fenced", volume.id, said)
    give(turn, volume, head, forced=forced)
    for job in turn.running(JobKind.ATTACH, subject=volume.id):
        return job  # it began while another head mended the volume
    return turn.start_job(JobKind.ATTACH, volume.id, volume.name)


def give(
    turn: Turn, volume: Volume, head: NodeId, *, forced: bool = False, mending: bool = False
) -> None:
    """The next epoch: whoever had the volume before is fenced, then it is built on `head`."""
    epoch = volume.epoch + 1
    last = _last_user(volume.attachment)
    attachment = Attachment(
        head=head,
        epoch=epoch,
        state=AttachmentState.FENCING,
        export_key=turn.new_token(_EXPORT_KEY_DIGITS),
        since_s=turn.wall_s,
        forced=forced,
        mending=mending,
        fences=last,
    )
    unclean = volume.unclean or last is not None
    turn.draft.put(
        msgspec.structs.replace(volume, epoch=epoch, attachment=attachment, unclean=unclean)
    )


def _last_user(on: Attachment | None) -> NodeId | None:
    """The head that may still use the volume: one that is being given it does not yet."""
    if on is None or on.mending:
        return None
    return on.fences if on.state is AttachmentState.FENCING else on.head


def let_go(turn: Turn, volume: Volume, on: Attachment) -> None:
    """Nobody is to have the volume any more. While the head that had it last is not fenced it
    counts as that one's: it may still acknowledge writes."""
    if on.state is AttachmentState.FENCING and on.fences is not None:
        after = msgspec.structs.replace(
            on, head=on.fences, state=AttachmentState.UNFENCED, fences=None, forced=False
        )
    elif on.state is AttachmentState.UNFENCED:
        return
    else:
        after = msgspec.structs.replace(on, state=AttachmentState.DETACHING, then=None)
    after = msgspec.structs.replace(after, since_s=turn.wall_s)
    turn.draft.put(msgspec.structs.replace(volume, attachment=after))


def next_standby(turn: Turn, volume: Volume) -> NodeId | None:
    """The first of the volume's standby heads that could take it over now."""
    current = None if volume.attachment is None else volume.attachment.head
    for head in volume.standby:
        if head != current and head in turn.draft.nodes and turn.facts[head].online:
            return head
    return None


def fail_over(turn: Turn) -> None:
    """Volumes whose head nobody reaches go to their standby heads. A head that others reach
    goes on: it is the manager that is cut off from it."""
    for volume in list(turn.draft.volumes.values()):
        attachment = volume.attachment
        if attachment is None or attachment.mending:
            continue
        if attachment.state in (AttachmentState.DETACHING, AttachmentState.UNFENCED):
            continue
        away_s = turn.facts[attachment.head].unreachable_s(turn.monotonic_s)
        patience_s = patience_with(turn, attachment.head)
        standby = next_standby(turn, volume)
        if away_s > 0 and away_s >= patience_s and standby is not None:
            move(turn, volume, standby, f"unreachable for {away_s:.0f} s")


def patience_with(turn: Turn, head: NodeId) -> float:
    """For how long a head may be away before its volumes go elsewhere."""
    if turn.facts[head].seen:
        return turn.policy.failover_delay_s
    return max(turn.policy.failover_delay_s, FIRST_WORD_S)
