"""vastskyctl top"""

import time
from typing import TYPE_CHECKING

import click

from vastskyd.cli.connect import connect
from vastskyd.cli.output import format_duration, has_screen
from vastskyd.core import answers, api
from vastskyd.core.errors import UnreachableError

if TYPE_CHECKING:
    from vastskyd.cli.client import Client
    from vastskyd.cli.dashboard import Snapshot

INTERVAL_S = 2.0
EVENTS = 50  # more than a screen shows


@click.command()
def top() -> None:
    """The whole cluster on one page, live: volumes, rebuilds, nodes, disks, events. Ctrl-C ends it.

    What is not well stands first in each table, and is what is shown if there is no room for all.
    It needs a terminal; programs ask `vastskyctl status --watch --json` and the lists.

    \b
    Example:
      vastskyctl top
    """
    if not has_screen():
        raise click.UsageError(
            "top needs a terminal to draw on: elsewhere use `vastskyctl status --watch`"
        )
    with connect() as client:
        _run(client)


def _run(client: "Client") -> None:
    from rich.console import Console  # noqa: PLC0415 - rich is slow to load
    from rich.live import Live  # noqa: PLC0415

    from vastskyd.cli.dashboard import Rates, page  # noqa: PLC0415

    rates = Rates()
    newest = _ask(client)
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        note = ""
        while True:
            rates.see(newest)
            drawn = page(newest, rates, columns=console.width, height=console.height, note=note)
            live.update(drawn, refresh=True)
            time.sleep(INTERVAL_S)
            try:
                newest, note = _ask(client), ""
            except UnreachableError as error:
                age = format_duration(time.monotonic() - newest.time_s)
                note = f"{error.message}: this is from {age} ago"


def _ask(client: "Client") -> "Snapshot":
    from vastskyd.cli.dashboard import Snapshot  # noqa: PLC0415

    return Snapshot(
        time_s=time.monotonic(),
        status=client.ask(api.ShowStatus(), answers.ClusterStatus),
        nodes=client.ask(api.ListNodes(), answers.NodeList).nodes,
        disks=client.ask(api.ListDisks(), answers.DiskList).disks,
        volumes=client.ask(api.ListVolumes(), answers.VolumeList).volumes,
        jobs=client.ask(api.ListJobs(running=True), answers.JobList).jobs,
        events=client.ask(api.ListEvents(limit=EVENTS), answers.EventList).events,
    )
