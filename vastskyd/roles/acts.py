"""What people ask to be changed: who asked is noted, and what is asked twice is done once."""

import hashlib

import msgspec

from vastskyd.core.api import (
    Act,
    CancelJob,
    CreateToken,
    Done,
    JobStarted,
    RemoveNode,
    SetCopiesApart,
    SetStandby,
    Token,
    method_of,
)
from vastskyd.core.errors import ConflictError, InvalidError
from vastskyd.core.ids import JobId
from vastskyd.core.model import Job, Record, Remembered
from vastskyd.core.turn import Turn
from vastskyd.roles.cancelling import cancel_job
from vastskyd.roles.commands import COMMANDS, remove_node, set_copies_apart, set_standby
from vastskyd.roles.joining import Issuer, create_token

REMEMBERED_MAX = 1000
REMEMBERED_S = 86_400.0
_KEY_LENGTH_MAX = 128
_ASKED_BY_LENGTH_MAX = 128


def perform(turn: Turn, issuer: Issuer, request: Act) -> Record:
    """Does it, and answers. Under a key that was used before, for the same: only answers."""
    if request.idempotency_key:
        _check_key(request)
        before = turn.draft.remembered.get(request.idempotency_key)
        if before is not None and turn.wall_s - before.at_s < REMEMBERED_S:
            return _answer_again(turn, request, before)
    known = frozenset(turn.draft.jobs)
    answer = _do(turn, issuer, request)
    if isinstance(answer, JobStarted) and answer.job.id not in known:
        answer = JobStarted(job=_by(turn, answer.job, request.asked_by))
    if request.idempotency_key:
        _remember(turn, request, answer)
    return answer


def without_effect(answer: Record) -> Record:
    """The answer to a dry run: it names nothing that would have been made."""
    if isinstance(answer, JobStarted):
        return JobStarted(job=msgspec.structs.replace(answer.job, id=JobId("")))
    return Token(token="") if isinstance(answer, Token) else answer


def _do(turn: Turn, issuer: Issuer, request: Act) -> Record:
    command = COMMANDS.get(type(request))
    if command is not None:
        return JobStarted(job=command(turn, request))
    match request:
        case CreateToken():
            return create_token(turn, issuer, request)
        case RemoveNode():
            remove_node(turn, request)
            return Done()
        case SetStandby():
            set_standby(turn, request)
            return Done()
        case SetCopiesApart():
            set_copies_apart(turn, request)
            return Done()
        case CancelJob():
            cancel_job(turn, request)
            return Done()
    raise InvalidError(f"the manager is not asked {method_of(type(request))}")


def _by(turn: Turn, job: Job, who: str) -> Job:
    signed = msgspec.structs.replace(job, started_by=who[:_ASKED_BY_LENGTH_MAX])
    turn.draft.put(signed)
    return signed


# --- asked again -------------------------------------------------------------------------


def _check_key(request: Act) -> None:
    if isinstance(request, CreateToken):
        raise InvalidError(
            "a token's secret is not kept: creating one takes no idempotency key",
            hint="ask again without; a token that nobody uses expires",
        )
    key = request.idempotency_key
    if len(key) > _KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidError(
            f"an idempotency key has 1 to {_KEY_LENGTH_MAX} printable characters",
            hint="draw one with `uuidgen`",
        )


def _digest(request: Act) -> str:
    """Of what is asked for, whoever asks."""
    bare = msgspec.structs.replace(request, dry_run=False, idempotency_key="", asked_by="")
    content = method_of(type(request)).encode() + b"\0" + msgspec.msgpack.encode(bare)
    return hashlib.sha256(content).hexdigest()


def _answer_again(turn: Turn, request: Act, before: Remembered) -> Record:
    if before.digest != _digest(request):
        raise ConflictError(
            "this idempotency key was used for another request",
            hint="draw a new key for each request, with `uuidgen` for example, and keep it for"
            " asking again",
        )
    if not before.job:
        return Done()
    job = turn.draft.jobs.get(before.job)
    if job is None:
        raise ConflictError(
            f"this was done already, by job {before.job}, which is no longer kept",
            hint="`vastskyctl status` and `vastskyctl volume list` show what has become of it",
        )
    return JobStarted(job=job)


def _remember(turn: Turn, request: Act, answer: Record) -> None:
    turn.draft.put(
        Remembered(
            key=request.idempotency_key,
            digest=_digest(request),
            job=answer.job.id if isinstance(answer, JobStarted) else JobId(""),
            at_s=turn.wall_s,
        )
    )
    oldest_first = sorted(turn.draft.remembered.values(), key=lambda each: each.at_s)
    excess = len(oldest_first) - REMEMBERED_MAX
    for number, old in enumerate(oldest_first):
        if number < excess or turn.wall_s - old.at_s >= REMEMBERED_S:
            turn.draft.delete(old)
