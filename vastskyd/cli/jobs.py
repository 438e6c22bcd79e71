"""Seeing a job through: wait, show how far it is, end as it ended."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vastskyd.cli.output import print_json, say
from vastskyd.cli.several import Several
from vastskyd.core import answers, api
from vastskyd.core.errors import UnreachableError, VastskyError, from_code
from vastskyd.core.ids import JobId
from vastskyd.core.model import Job, JobState

if TYPE_CHECKING:
    from vastskyd.cli.client import Client

WAIT_S = 20.0  # for each question; the manager answers earlier if anything changed
QUICK_S = 0.5  # a job that takes no longer needs no bar
PAUSE_S = 0.2
PATIENCE_S = 60.0  # the manager or vastskyd may restart meanwhile


def start(client: "Client", request: api.Act, *, as_json: bool, no_wait: bool) -> None:
    """Ask for a job and, unless `no_wait`, see it through. Of a dry run there is none."""
    if request.dry_run:
        client.ask(request, api.Done)
        show_rehearsed(as_json=as_json)
        return
    job = client.ask(request, api.JobStarted).job
    if not no_wait:
        see_through(client, job, as_json=as_json)
    elif as_json:
        print_json(job)
    else:
        _say_begun(job)


def start_named(
    client: "Client", requests: Mapping[str, api.Act], *, as_json: bool, no_wait: bool
) -> None:
    """One as `start`, several as `start_each`."""
    if len(requests) == 1:
        start(client, *requests.values(), as_json=as_json, no_wait=no_wait)
    else:
        start_each(client, requests, as_json=as_json, no_wait=no_wait)


def start_each(
    client: "Client", requests: Mapping[str, api.Act], *, as_json: bool, no_wait: bool
) -> None:
    """All are begun, then seen through; what is refused or fails ends none of the others, and fails
    the command. As JSON: a JobList of those that were begun."""
    several = Several(tuple(requests))
    if any(request.dry_run for request in requests.values()):
        several.each(requests, lambda name: client.ask(requests[name], api.Done))
        several.end("nothing stands in the way of the others, each by itself")
        show_rehearsed(as_json=as_json)
        return
    jobs = several.each(requests, lambda name: client.ask(requests[name], api.JobStarted).job)
    try:
        if not no_wait:
            _see_all_through(client, jobs, several, as_json=as_json)
        elif not as_json:
            for job in jobs.values():
                _say_begun(job)
    finally:
        if as_json and jobs:
            print_json(answers.JobList(jobs=tuple(jobs.values())))
    several.end("the others have begun" if no_wait else "the others are done")


def _see_all_through(
    client: "Client", jobs: dict[str, Job], several: Several, *, as_json: bool
) -> None:
    """`jobs` are what has become of them."""

    def follow(name: str) -> None:
        later = [job for job in jobs.values() if job.state is JobState.RUNNING]
        jobs[name] = _followed(client, jobs[name], as_json=as_json, later=later)
        _end(jobs[name], as_json=as_json)

    several.each(tuple(jobs), follow)


def start_in_turn(client: "Client", requests: Sequence[api.Act], *, as_json: bool) -> None:
    """Each when that before it is done: one that is refused or fails ends it. As JSON: a JobList
    of those that were begun."""
    jobs: list[Job] = []
    try:
        for request in requests:
            jobs.append(client.ask(request, api.JobStarted).job)
            jobs[-1] = _followed(client, jobs[-1], as_json=as_json)
            _end(jobs[-1], as_json=as_json)
    finally:
        if as_json and jobs:
            print_json(answers.JobList(jobs=tuple(jobs)))


def _say_begun(job: Job) -> None:
    say(f"{job.kind} {job.about}: job {job.id} has begun")


def show_rehearsed(*, as_json: bool) -> None:
    """What there is to say after a dry run that was not refused."""
    if as_json:
        print_json(api.Done())
    else:
        say("dry run: nothing is known that stands in its way, and nothing was changed")


def see_through(client: "Client", job: Job, *, as_json: bool) -> None:
    """Wait for the job's end and print it; a failed job raises its error."""
    job = _followed(client, job, as_json=as_json)
    if as_json:
        print_json(job)
    _end(job, as_json=as_json)


def _followed(client: "Client", job: Job, *, as_json: bool, later: Sequence[Job] = ()) -> Job:
    """The job when it has ended; `later`: with it, those that are waited for after it."""
    try:
        return _wait(client, job, bar=not as_json and sys.stderr.isatty())
    except KeyboardInterrupt:
        say(err=True)
        for each in later or (job,):
            said = f"job {each.id} goes on; come back to it with `vastskyctl job wait {each.id}`"
            say(said, err=True)
        raise


def _end(job: Job, *, as_json: bool) -> None:
    if job.state is JobState.FAILED:
        raise failure(job)
    if not as_json:
        say(f"{job.kind} {job.about}: done" + (f" ({job.message})" if job.message else ""))


def failure(job: Job) -> VastskyError:
    """The error that the job failed with, and what to do next if that is known."""
    said = f"{job.kind} {job.about} failed: {job.message}"
    return from_code(job.error_code, said, job.hint)


def show(client: "Client", job: JobId) -> Job:
    return client.ask(api.ShowJob(job=job), answers.JobList).jobs[0]


def _wait(client: "Client", job: Job, *, bar: bool) -> Job:
    if job.state is JobState.RUNNING:
        job = _next(client, job, QUICK_S)
    if job.state is not JobState.RUNNING:
        return job
    if not bar:
        return _wait_on(client, job)
    from vastskyd.cli.progress import JobBar  # noqa: PLC0415 - rich is slow to load

    with JobBar() as shown:
        return _wait_on(client, job, shown.show)


def _wait_on(client: "Client", job: Job, show_job: Callable[[Job], None] | None = None) -> Job:
    while job.state is JobState.RUNNING:
        if show_job is not None:
            show_job(job)
        job = _next(client, job, WAIT_S)
        if job.state is JobState.RUNNING:
            time.sleep(PAUSE_S)
    return job


def _next(client: "Client", job: Job, wait_s: float) -> Job:
    """The job when it has changed, or after `wait_s`. Who cannot be reached for a while is asked
    again."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            request = api.ShowJob(job=job.id, wait_s=wait_s, seen=job)
            return client.ask(request, answers.JobList).jobs[0]
        except UnreachableError as error:
            if time.monotonic() > give_up:
                raise UnreachableError(
                    error.message,
                    hint=f"the job may go on; ask again with `vastskyctl job wait {job.id}`",
                ) from None
            time.sleep(1.0)
