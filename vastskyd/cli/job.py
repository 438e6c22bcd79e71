"""vastskyctl job"""

import click

from vastskyd.cli.complete import job_ids, running_job_ids
from vastskyd.cli.connect import connect
from vastskyd.cli.jobs import see_through, show_rehearsed
from vastskyd.cli.jobs import show as show_job
from vastskyd.cli.options import Manner, act_options, json_option
from vastskyd.cli.output import (
    format_share,
    format_time,
    paint,
    print_facts,
    print_json,
    say,
)
from vastskyd.cli.table import Column, print_table
from vastskyd.cli.watch import shown, watch_option
from vastskyd.core import answers, api
from vastskyd.core.ids import JobId
from vastskyd.core.model import Job
from vastskyd.core.units import format_size

_COLUMNS = (
    Column("ID"), Column("KIND"), Column("ABOUT", least=20), Column("STATE"), Column("DONE"),
    Column("STARTED", spare=1), Column("MESSAGE", least=20),
)  # fmt: skip


@click.group()
def job() -> None:
    """Work that takes time, begun by a command or by the cluster itself."""


@job.command("list")
@click.option("--running", is_flag=True, help="Only those that have not ended.")
@watch_option
@json_option
def list_(running: bool, watch: bool, as_json: bool) -> None:
    """Jobs and how far they are.

    \b
    Example:
      vastskyctl job list --running

    With --json: JobList.
    """
    with connect() as client:
        shown(
            lambda: client.ask(api.ListJobs(running=running), answers.JobList), _show_list,
            as_json=as_json, watch=watch,
        )  # fmt: skip


def _show_list(found: answers.JobList) -> None:
    print_table(_COLUMNS, [_row(each) for each in found.jobs])


def _row(each: Job) -> tuple[str, ...]:
    share = format_share(each.done_bytes, each.total_bytes)
    started = format_time(each.started_s)
    return (each.id, each.kind, each.about, paint(each.state), share, started, each.message)


@job.command()
@click.argument("job_id", metavar="ID", shell_complete=job_ids)
@json_option
def show(job_id: str, as_json: bool) -> None:
    """One job.

    \b
    Example:
      vastskyctl job show 3f9c0a1b5d7e2468

    With --json: the Job.
    """
    with connect() as client:
        shown(lambda: show_job(client, JobId(job_id)), _show, as_json=as_json)


def _show(found: Job) -> None:
    done = f"{format_size(found.done_bytes)} of {format_size(found.total_bytes)}"
    print_facts(
        (
            ("Job", found.id),
            ("What", f"{found.kind} {found.about}"),
            ("State", paint(found.state)),
            ("Done", done if found.total_bytes else ""),
            ("Rate", f"{format_size(found.rate_bytes)}/s" if found.rate_bytes else ""),
            ("Started", format_time(found.started_s)),
            ("Started by", found.started_by or "the cluster itself"),
            ("Expected", format_time(found.expected_end_s)),
            ("Ended", format_time(found.ended_s)),
            ("Error", found.error_code),
            ("Message", found.message),
            ("Hint", found.hint),
        )
    )


@job.command()
@click.argument("job_id", metavar="ID", shell_complete=running_job_ids)
@json_option
def wait(job_id: str, as_json: bool) -> None:
    """Wait for a job, and end as it ended.

    \b
    Example:
      vastskyctl job wait 3f9c0a1b5d7e2468 && mount /dev/vastsky/data /srv

    With --json: the Job.
    """
    with connect() as client:
        see_through(client, show_job(client, JobId(job_id)), as_json=as_json)


@job.command()
@click.argument("job_id", metavar="ID", shell_complete=running_job_ids)
@act_options
@json_option
def cancel(job_id: str, manner: Manner, as_json: bool) -> None:
    """End a job before it is done: a create, an attach, a scrub, or retiring a disk.

    A volume that was being made is deleted, one that was being attached is detached; a disk that
    was being emptied is used on. A rebuild would begin anew, and a detach or an enrolment may have
    begun on its host: these go on.

    \b
    Example:
      vastskyctl job cancel 3f9c0a1b5d7e2468

    With --json: the Job.
    """
    with connect() as client:
        client.ask(manner.of(api.CancelJob(job=JobId(job_id))), api.Done)
        if manner.dry_run:
            show_rehearsed(as_json=as_json)
        elif as_json:
            print_json(show_job(client, JobId(job_id)))
        else:
            say(f"cancel {job_id}: done")
