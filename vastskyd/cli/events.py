"""vastskyctl events"""

import time
from typing import TYPE_CHECKING

import click

from vastskyd.cli.connect import connect
from vastskyd.cli.options import json_option
from vastskyd.cli.output import cell, format_time, heading, paint, print_json, say
from vastskyd.core import answers, api
from vastskyd.core.errors import UnreachableError
from vastskyd.core.model import Event

if TYPE_CHECKING:
    from vastskyd.cli.client import Client

INTERVAL_S = 1.0
BATCH = 1000
_TIME_WIDTH = len("2026-01-31 23:59:59")  # a line is printed before the next is known


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, BATCH), default=20, show_default=True,
              metavar="N", help="So many of the newest.")  # fmt: skip
@json_option
def events(follow: bool, lines: int, as_json: bool) -> None:
    """What happened in the cluster, oldest first.

    \b
    Example:
      vastskyctl events --follow -n 5

    With --json: EventList; with --follow an Event on each line.
    """
    with connect() as client:
        # One at least, for its number, to go on from.
        found = client.ask(api.ListEvents(limit=max(lines, 1)), answers.EventList).events
        after = max((each.number for each in found), default=0)
        found = found[len(found) - min(lines, len(found)) :]
        if as_json and not follow:
            print_json(answers.EventList(events=found))
            return
        if not as_json:
            say("  ".join(map(heading, ("TIME".ljust(_TIME_WIDTH), "SEVERITY", "MESSAGE"))))
        for event in found:
            _print(event, as_json)
        while follow:
            time.sleep(INTERVAL_S)
            for event in _later(client, after):
                after = max(after, event.number)
                _print(event, as_json)


def _later(client: "Client", after: int) -> tuple[Event, ...]:
    try:
        return client.ask(api.ListEvents(after=after, limit=BATCH), answers.EventList).events
    except UnreachableError:  # back soon, or Ctrl-C
        return ()


def _print(event: Event, as_json: bool) -> None:
    if as_json:
        print_json(event, one_line=True)
        return
    blanks = " " * (len("SEVERITY") - len(event.severity))
    say(f"{format_time(event.time_s)}  {paint(event.severity)}{blanks}  {cell(event.message)}")
