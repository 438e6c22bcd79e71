"""vastskyctl status"""

import time

import click

from vastskyd.cli.connect import connect
from vastskyd.cli.options import json_option
from vastskyd.cli.output import paint, print_facts, print_json, print_table
from vastskyd.core import api
from vastskyd.core.errors import UnreachableError
from vastskyd.core.units import format_size

INTERVAL_S = 2.0


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@click.option("--local", is_flag=True, help="Only what this host knows without the manager.")
def status(as_json: bool, watch: bool, local: bool) -> None:
    """How the cluster is: its health, what is wrong, and counts.

    Where the manager cannot be reached: what this host knows of itself and its volumes.

    \b
    Example:
      vastskyctl status --watch

    With --json: ClusterStatus, or LocalView with --local; with --watch too, one line each time.
    """
    if local and watch:
        raise click.UsageError("--local and --watch do not go together")
    with connect() as client:
        if local:
            _show_local(client.ask(api.ShowLocal(), api.LocalView), as_json)
            return
        if not watch:
            here = client.ask(api.ShowLocal(), api.LocalView)
            try:
                shown = client.ask(api.ShowStatus(), api.ClusterStatus)
            except UnreachableError:
                if not as_json:
                    _show_local(here, as_json)
                raise
            _show(shown, here, as_json, one_line=False)
            return
        while True:
            try:
                shown = client.ask(api.ShowStatus(), api.ClusterStatus)
                here = client.ask(api.ShowLocal(), api.LocalView)
            except UnreachableError as error:  # what is watched may be just this
                click.echo(f"vastskyctl: {error.message}", err=True)
            else:
                click.clear()
                _show(shown, here, as_json, one_line=True)
            time.sleep(INTERVAL_S)


def _show(view: api.ClusterStatus, local: api.LocalView, as_json: bool, *, one_line: bool) -> None:
    if as_json:
        print_json(view, one_line=one_line)
        return
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
            ("Jobs", f"{view.jobs_running} running"),
            ("This host", _describe(local)),
        )
    )
    if view.problems:
        click.echo("\nProblems:")
    for problem in view.problems:
        click.echo(f"  {problem}")


def _show_local(view: api.LocalView, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    print_facts((("Cluster", view.cluster_name), ("This host", _describe(view))))
    if view.volumes:
        click.echo("\nVolumes here, as this host sees them:")
        print_table(
            ("VOLUME", "DEVICE", "STATE", "MESSAGE"),
            [(each.name, each.device, paint(each.state), each.message) for each in view.volumes],
        )


def _describe(local: api.LocalView) -> str:
    roles = ", ".join(local.roles)
    manager = "connected to" if local.connected else "without a connection to"
    return f"{local.node}: {roles}; {manager} the manager; vastskyd {local.version}"
