"""How a job that fails ends: with its error, be that the manager's or a host's."""

import msgspec

from tests.core.test_turns import IN, VOLUME, cluster, head_facts, turn
from vastskyd.core.errors import TEXT_LENGTH_MAX, ConflictError, NoSpaceError
from vastskyd.core.model import JobKind, JobState
from vastskyd.core.state import load


def test_a_failed_job_keeps_its_error_and_not_without_end() -> None:
    it = turn(cluster((IN,)), head_facts(()))
    error = NoSpaceError("m" * 9000, hint="h" * 9000)
    it.fail_job(it.start_job(JobKind.ATTACH, VOLUME, "v", total_bytes=4), error)
    (ended,) = it.draft.jobs.values()
    assert (ended.state, ended.error_code, ended.done_bytes) == (JobState.FAILED, "NoSpace", 0)
    assert ended.message == "m" * TEXT_LENGTH_MAX
    assert ended.hint == "h" * TEXT_LENGTH_MAX


def test_a_job_of_a_database_that_knows_no_hints_is_read() -> None:
    it = turn(cluster((IN,)), head_facts(()))
    it.fail_job(it.start_job(JobKind.ATTACH, VOLUME, "v"), ConflictError("it is not so"))
    (job,) = it.draft.jobs.values()
    members = msgspec.to_builtins(job)
    del members["hint"]
    back = load({"jobs": {job.id: msgspec.msgpack.encode(members)}})
    assert back.jobs == {job.id: job}
