"""Seeing a job through: wait, show how far it is, end as it ended."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vastskyd.cli.output import print_json, say
from vastskyd.core import answers, api
from vastskyd.core.errors import UnreachableError, from_code
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


def start_each(
    client: "Client", requests: Sequence[api.Act], *, as_json: bool, no_wait: bool
) -> None:
    """One after the other, as `start`; the first that is refused or fails ends it. As JSON: a
    JobList of those that were begun."""
    if requests[0].dry_run:
        for request in requests:
            client.ask(request, api.Done)
        show_rehearsed(as_json=as_json)
        return
    jobs: list[Job] = []
    try:
        for request in requests:
            jobs.append(client.ask(request, api.JobStarted).job)
            if not no_wait:
                jobs[-1] = _followed(client, jobs[-1], as_json=as_json)
                _end(jobs[-1], as_json=as_json)
            elif not as_json:
                _say_begun(jobs[-1])
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


def _followed(client: "Client", job: Job, *, as_json: bool) -> Job:
    try:
        return _wait(client, job, bar=not as_json and sys.stderr.isatty())
    except KeyboardInterrupt:
        say(
            f"\njob {job.id} goes on; come back to it with `vastskyctl job wait {job.id}`", err=True
        )
        raise


def _end(job: Job, *, as_json: bool) -> None:
    if job.state is JobState.FAILED:
        raise from_code(job.error_code, f"{job.kind} {job.about} failed: {job.message}")
    if not as_json:
        say(f"{job.kind} {job.about}: done" + (f" ({job.message})" if job.message else ""))


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
