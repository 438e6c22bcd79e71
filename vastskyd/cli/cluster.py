"""vastskyctl cluster, and join"""

import sys

import click

from vastskyd.cli.connect import connect
from vastskyd.cli.options import (
    addresses_option,
    duration_s,
    json_option,
    node_option,
    rack_option,
    roles_of,
    roles_option,
)
from vastskyd.cli.output import print_json
from vastskyd.cli.recover import recover
from vastskyd.core import answers, api
from vastskyd.core.model import Encryption, Role


@click.group()
def cluster() -> None:
    """Make a cluster, and let hosts into it."""


@cluster.command()
@click.option("--name", default="vastsky", show_default=True, help="What to call the cluster.")
@addresses_option
@rack_option
@node_option
@roles_option
@click.option("--data-encryption", type=click.Choice([each.value for each in Encryption]),
              help="none: for isolated networks only. [default: as configured]")  # fmt: skip
@json_option
def init(
    name: str,
    addresses: tuple[str, ...],
    rack: str,
    node: str,
    roles: tuple[str, ...],
    data_encryption: str | None,
    as_json: bool,
) -> None:
    """Make a cluster with this host as its first node and manager.

    \b
    Example:
      vastskyctl cluster init --name demo --address 10.0.1.1 --address 10.0.2.1

    With --json: Initialised.
    """
    request = api.InitCluster(
        name=name,
        addresses=addresses,
        rack=rack,
        node=node,
        encryption=Encryption(data_encryption) if data_encryption else None,
        roles=roles_of(roles),
    )
    with connect() as client:
        _report(client.ask(request, answers.Initialised), as_json)
    if not as_json:
        click.echo("next: `vastskyctl cluster token`, and on each other host `vastskyctl join`")


@cluster.command()
@roles_option
@click.option("--valid", "valid_s", callback=duration_s, default="1h", show_default=True,
              help="How long it can be used: 30m, 1h, 2d.")  # fmt: skip
@json_option
def token(roles: tuple[str, ...], valid_s: float, as_json: bool) -> None:
    """Print a token with which a host can join. Who has it can join: keep it to yourself.

    Without --role, nodes that join by it are storage and head.

    \b
    Example:
      vastskyctl cluster token --role storage --valid 30m

    With --json: Token.
    """
    request = api.CreateToken(roles=roles_of(roles) or (Role.STORAGE, Role.HEAD), valid_s=valid_s)
    with connect() as client:
        made = client.ask(request, api.Token)
    if as_json:
        print_json(made)
    else:
        click.echo(made.token)


@click.command()
@click.argument("token")
@addresses_option
@rack_option
@node_option
@roles_option
@json_option
def join(
    token: str,
    addresses: tuple[str, ...],
    rack: str,
    node: str,
    roles: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make this host a node of the cluster that made TOKEN; - reads it from standard input.

    \b
    Examples:
      vastskyctl join vst1.eyJjYSI6... --address 10.0.1.2 --rack b
      ssh manager1 vastskyctl cluster token | vastskyctl join -

    With --json: Initialised.
    """
    if token == "-":  # noqa: S105
        token = sys.stdin.readline()
    request = api.JoinCluster(
        token=token.strip(), addresses=addresses, rack=rack, node=node, roles=roles_of(roles)
    )
    with connect() as client:
        _report(client.ask(request, answers.Initialised), as_json)


def _report(host: answers.Initialised, as_json: bool) -> None:
    if as_json:
        print_json(host)
    else:
        roles = ", ".join(host.roles)
        click.echo(f"this host is node {host.node} ({roles}) of cluster {host.cluster_name}")


cluster.add_command(recover)
