"""vastskyctl node"""

import click

from vastskyd.cli.complete import node_names
from vastskyd.cli.connect import connect
from vastskyd.cli.jobs import show_rehearsed
from vastskyd.cli.options import Manner, act_options, json_option
from vastskyd.cli.output import format_duration, paint, print_json, print_table, say
from vastskyd.cli.watch import shown, watch_option
from vastskyd.core import answers, api
from vastskyd.core.ids import NodeId


@click.group()
def node() -> None:
    """The cluster's hosts."""


@node.command("list")
@watch_option
@json_option
def list_(watch: bool, as_json: bool) -> None:
    """All nodes, and whether they are there.

    \b
    Example:
      vastskyctl node list

    With --json: NodeList.
    """
    with connect() as client:
        shown(
            lambda: client.ask(api.ListNodes(), answers.NodeList),
            _show,
            as_json=as_json,
            watch=watch,
        )


def _show(found: answers.NodeList) -> None:
    print_table(
        ("NODE", "STATE", "ROLES", "RACK", "ADDRESSES"),
        [
            (each.id, _state(each), ",".join(each.roles), each.rack, ",".join(each.addresses))
            for each in found.nodes
        ],
    )


def _state(view: answers.NodeView) -> str:
    since = f" {format_duration(view.unreachable_s)}" if view.unreachable_s else ""
    return paint(view.state) + since


@node.command()
@click.argument("name", metavar="NODE", shell_complete=node_names)
@act_options
@json_option
def remove(name: str, manner: Manner, as_json: bool) -> None:
    """Forget a node, which must have no disks and no attached volumes left.

    \b
    Example:
      vastskyctl disk retire store3:/dev/sdb      (first, for each of its disks)
      vastskyctl node remove store3

    With --json: Done, an empty object.
    """
    with connect() as client:
        done = client.ask(manner.of(api.RemoveNode(node=NodeId(name))), api.Done)
    if manner.dry_run:
        show_rehearsed(as_json=as_json)
    elif as_json:
        print_json(done)
    else:
        say(f"remove {name}: done")
