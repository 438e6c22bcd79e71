"""vastskyctl status"""

from typing import TYPE_CHECKING

import click

from vastskyd.cli.connect import connect
from vastskyd.cli.options import json_option
from vastskyd.cli.output import paint, print_facts, say
from vastskyd.cli.table import Column, print_table
from vastskyd.cli.watch import shown, watch_option
from vastskyd.core import answers, api
from vastskyd.core.errors import UnreachableError
from vastskyd.core.units import format_size

if TYPE_CHECKING:
    from vastskyd.cli.client import Client


_COLUMNS = (
    Column("VOLUME"), Column("DEVICE", spare=1), Column("STATE"), Column("MESSAGE", least=24),
)  # fmt: skip


@click.command()
@watch_option
@click.option("--local", is_flag=True, help="Only what this host knows without the manager.")
@json_option
def status(watch: bool, local: bool, as_json: bool) -> None:
    """How the cluster is: its health, what is wrong, and counts.

    Where the manager cannot be reached: what this host knows of itself and its volumes.

    \b
    Example:
      vastskyctl status --watch

    With --json: ClusterStatus, or LocalView with --local; with --watch too, one line each time.
    """
    with connect() as client:
        if local:
            shown(lambda: _local(client), _show_local, as_json=as_json, watch=watch)
            return
        try:
            shown(
                lambda: client.ask(api.ShowStatus(), answers.ClusterStatus),
                lambda found: _show(found, _local(client)), as_json=as_json, watch=watch,
            )  # fmt: skip
        except UnreachableError:
            if not as_json:
                _show_local(_local(client))
            raise


def _local(client: "Client") -> answers.LocalView:
    return client.ask(api.ShowLocal(), answers.LocalView)


def _show(view: answers.ClusterStatus, local: answers.LocalView) -> None:
    print_facts(
        (
            ("Cluster", f"{view.name} ({view.cluster})"),
            ("Health", paint(view.health)),
            ("Manager", view.manager),
            ("Nodes", f"{view.nodes_online} of {view.nodes} online"),
            ("Disks", f"{view.disks_online} of {view.disks} online"),
            ("Volumes", f"{view.volumes_redundant} of {view.volumes} redundant"),
            (
                "Capacity",
                f"{format_size(view.capacity_bytes)}, {format_size(view.free_bytes)} free",
            ),
            ("Data path", "encrypted (TLS)" if view.encryption == "tls" else "not encrypted"),
            ("Copies", f"on different {view.copies_apart}s"),
            ("Jobs", f"{view.jobs_running} running"),
            ("This host", _describe(local)),
        )
    )
    if view.problems:
        say("\nProblems:")
    for problem in view.problems:
        say(f"  {problem}")
    if view.notes:
        say("\nNotes:")
    for note in view.notes:
        say(f"  {note}")


def _show_local(view: answers.LocalView) -> None:
    print_facts((("Cluster", view.cluster_name), ("This host", _describe(view))))
    if view.volumes:
        say("\nVolumes here, as this host sees them:")
        print_table(
            _COLUMNS,
            [(each.name, each.device, paint(each.state), each.message) for each in view.volumes],
        )


def _describe(local: answers.LocalView) -> str:
    if not local.node:
        return f"in no cluster; vastskyd {local.version}"
    roles = ", ".join(local.roles)
    manager = "connected to" if local.connected else "without a connection to"
    return f"{local.node}: {roles}; {manager} the manager; vastskyd {local.version}"
