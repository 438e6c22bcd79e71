"""vastskyctl cluster, and join"""

import sys

import click

from vastskyd.cli.connect import connect
from vastskyd.cli.jobs import show_rehearsed
from vastskyd.cli.options import (
    Manner,
    act_options,
    addresses_option,
    duration_s,
    joining_roles_option,
    json_option,
    node_option,
    rack_option,
    roles_of,
    roles_option,
)
from vastskyd.cli.output import print_json, say
from vastskyd.cli.recover import recover
from vastskyd.core import answers, api
from vastskyd.core.model import JOINING_ROLES, Apart, Encryption
from vastskyd.core.reaching import is_loopback


@click.group()
def cluster() -> None:
    """Make a cluster, and let hosts into it."""


@cluster.command()
@click.option("--name", default="vastsky", show_default=True, metavar="NAME",
              help="What to call the cluster.")  # fmt: skip
@addresses_option
@rack_option
@node_option
@roles_option
@click.option("--data-encryption", type=click.Choice([each.value for each in Encryption]),
              help="none: for isolated networks only. [default: as configured]")  # fmt: skip
@click.option("--single", is_flag=True,
              help="On this host alone, for now: all roles, copies on different disks, and the"
              " address of its default route, or its only one, unless --address gives another."
              )  # fmt: skip
@json_option
def init(
    single: bool,
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
    Examples:
      vastskyctl cluster init --single
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
        single=single,
    )
    with connect() as client:
        host = client.ask(request, answers.Initialised)
    _report(host, as_json)
    if not as_json:
        _say_what_next(host.addresses, single=single)


@cluster.command("set")
@click.option("--copies-apart", required=True, type=click.Choice([each.value for each in Apart]),
              help="What copies of the same data do not share, at the least.")  # fmt: skip
@act_options
@json_option
def set_(copies_apart: str, manner: Manner, as_json: bool) -> None:
    """Keep the copies of volumes on different hosts, or only on different disks.

    With disk they are on different hosts as far as there are any with room. Copies that share too
    much move apart by themselves, once there is room for them.

    \b
    Example:
      vastskyctl cluster set --copies-apart host

    With --json: ClusterStatus.
    """
    with connect() as client:
        client.ask(manner.of(api.SetCopiesApart(copies_apart=Apart(copies_apart))), api.Done)
        if manner.dry_run:
            show_rehearsed(as_json=as_json)
        elif as_json:
            print_json(client.ask(api.ShowStatus(), answers.ClusterStatus))
        else:
            say(f"set copies apart, {copies_apart}: done")


@cluster.command()
@joining_roles_option
@click.option("--valid", "valid_s", callback=duration_s, default="1h", show_default=True,
              metavar="TIME", help="How long it can be used: 30m, 1h, 2d.")  # fmt: skip
@json_option
def token(roles: tuple[str, ...], valid_s: float, as_json: bool) -> None:
    """Print a token with which a host can join. Who has it can join: keep it to yourself.

    Without --role, nodes that join by it are storage and head.

    \b
    Example:
      vastskyctl cluster token --role storage --valid 30m

    With --json: Token.
    """
    request = api.CreateToken(roles=roles_of(roles) or JOINING_ROLES, valid_s=valid_s)
    with connect() as client:
        made = client.ask(request, api.Token)
    if as_json:
        print_json(made)
    else:
        say(made.token)


@click.command()
@click.argument("token")
@addresses_option
@rack_option
@node_option
@joining_roles_option
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
      vastskyctl join vsky1-... --address 10.0.1.2 --rack b
      ssh manager1 vastskyctl cluster token | vastskyctl join - --address 10.0.1.3

    With --json: Initialised.
    """
    if token == "-":  # noqa: S105
        token = _read_line()
    request = api.JoinCluster(
        token=token.strip(), addresses=addresses, rack=rack, node=node, roles=roles_of(roles)
    )
    with connect() as client:
        _report(client.ask(request, answers.Initialised), as_json)


def _read_line() -> str:
    try:
        return sys.stdin.readline()
    except UnicodeDecodeError:
        raise click.UsageError("what stands on standard input is no token") from None


def _say_what_next(addresses: tuple[str, ...], *, single: bool) -> None:
    shown = ", ".join(addresses)
    alone = any(map(is_loopback, addresses))
    if alone:
        say(f"no other host can ever join it: {shown} leads each host to itself")
    elif single:
        say(f"hosts that join later reach it at {shown}")
    if single or alone:
        say("next: `vastskyctl disk list --all`, and `vastskyctl disk enrol PATH...`")
    else:
        say("next: `vastskyctl cluster token`, and on each other host `vastskyctl join TOKEN`")


def _report(host: answers.Initialised, as_json: bool) -> None:
    if as_json:
        print_json(host)
    else:
        roles = ", ".join(host.roles)
        say(f"this host is node {host.node} ({roles}) of cluster {host.cluster_name}")


cluster.add_command(recover)
