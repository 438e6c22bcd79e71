"""vastskyctl cluster recover"""

import time
from typing import TYPE_CHECKING

import click

from vastskyd.cli.connect import connect
from vastskyd.cli.options import json_option
from vastskyd.cli.output import interactive, print_facts, print_json, say
from vastskyd.cli.table import Column, print_table
from vastskyd.core import answers, api
from vastskyd.core.errors import ConflictError
from vastskyd.core.units import format_size

if TYPE_CHECKING:
    from vastskyd.cli.client import Client

# After the records were set aside the hosts are asked once more, and are there already.
HEARD_WITHIN_S = 20.0
LOOK_EVERY_S = 2.0


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be found.")
@click.option("--again", is_flag=True,
              help="Although the manager has its records: take in hosts that were away when they"
              " were made anew.")  # fmt: skip
@click.option("--without-missing", is_flag=True,
              help="Go on without the hosts and disks that others speak of.")  # fmt: skip
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Needed where nobody can be asked.")
@json_option
def recover(dry_run: bool, again: bool, without_missing: bool, yes: bool, as_json: bool) -> None:
    """Make the manager's lost records anew from what the hosts and their disks say.

    Start all hosts first. Attached volumes go on meanwhile. What was there of the old database is
    kept beside the new one. Jobs, events, join tokens and standby heads are not on the disks; of
    them only --again keeps what there is, but for jobs.

    What was missing can be taken in later, with --again. Until then a volume whose legs were not
    all seen is attached only with --force.

    \b
    Example:
      vastskyctl cluster recover --dry-run
      vastskyctl cluster recover

    With --json: RecoveryView.
    """
    with connect() as client:
        view = client.ask(api.ShowRecovery(), answers.RecoveryView)
        if not dry_run:
            if not view.recovering:
                view = _begin(client, again=again, yes=yes)
            elif view.missing and view.listens_s:
                say(f"hosts may connect for {view.listens_s:.0f} s yet: waiting", err=True)
                view = _look_on(client, view, view.listens_s)
            if not as_json:
                _show(view)
            _check(view, without_missing=without_missing)
            _confirm("Make these the manager's records?", yes=yes)
            request = api.FinishRecovery(without_missing=without_missing)
            view = client.ask(request, answers.RecoveryView)
    if as_json:
        print_json(view)
    elif dry_run and not view.recovering:
        say("the manager has its records: there is nothing to recover")
    elif dry_run:
        _show(view)
    else:
        kept = f"; those before are kept as {view.kept_as}" if view.kept_as else ""
        say(f"the manager has its records{kept}")


def _begin(client: "Client", *, again: bool, yes: bool) -> answers.RecoveryView:
    if not again:
        raise ConflictError(
            "the manager has its records: there is nothing to recover",
            hint="to take in hosts that were away when they were made anew: `vastskyctl cluster"
            " recover --again`",
        )
    _confirm("Set the manager's records aside, and make them anew?", yes=yes)
    view = client.ask(api.BeginRecovery(), answers.RecoveryView)
    return _look_on(client, view, HEARD_WITHIN_S)


def _look_on(client: "Client", view: answers.RecoveryView, within_s: float) -> answers.RecoveryView:
    """Until nothing is missing, or that time is over."""
    end_s = time.monotonic() + within_s
    while view.missing and time.monotonic() < end_s:
        time.sleep(min(LOOK_EVERY_S, within_s))
        view = client.ask(api.ShowRecovery(), answers.RecoveryView)
    return view


def _check(view: answers.RecoveryView, *, without_missing: bool) -> None:
    """What vastskyd would refuse, before anybody is asked."""
    if view.blocked:
        raise ConflictError(
            "the records cannot be made anew yet",
            hint="start the hosts that have these disks, then try again",
        )
    if view.missing and not without_missing:
        raise ConflictError(
            "not all was seen that others speak of",
            hint="start these hosts and try again, or go on without them: `vastskyctl cluster"
            " recover --without-missing`",
        )


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not interactive():
        raise click.UsageError("without a terminal to ask on, say --yes")
    click.confirm(question, abort=True)


_COLUMNS = (
    Column("VOLUME"), Column("SIZE", spare=2), Column("COPIES", spare=1), Column("HEAD", spare=3),
    Column("LEGS SEEN"),
)  # fmt: skip


def _show(view: answers.RecoveryView) -> None:
    print_facts(
        (
            ("Reason", view.why),
            ("Nodes", ", ".join(view.nodes)),
            ("Disks", str(view.disks)),
            ("Volumes", str(len(view.volumes))),
        )
    )
    if view.volumes:
        say()
        print_table(
            _COLUMNS,
            [
                (
                    volume.name,
                    format_size(volume.size_bytes),
                    str(volume.copies),
                    volume.head,
                    f"{volume.legs_seen} of {volume.legs}",
                )
                for volume in view.volumes
            ],
        )
    for title, lines in (
        ("Not seen", view.missing),
        ("Cannot go on without", view.blocked),
        ("To know", view.notes),
    ):
        if lines:
            say(f"\n{title}:")
        for line in lines:
            say(f"  {line}")
