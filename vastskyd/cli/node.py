"""vastskyctl node"""

from collections.abc import Sequence

import click

from vastskyd.cli.complete import node_names
from vastskyd.cli.connect import connect
from vastskyd.cli.jobs import show_rehearsed
from vastskyd.cli.options import Manner, act_options, json_option, not_empty
from vastskyd.cli.output import (
    format_duration,
    paint,
    print_facts,
    print_json,
    say,
)
from vastskyd.cli.several import Several
from vastskyd.cli.table import Column, print_table
from vastskyd.cli.watch import shown, watch_option
from vastskyd.core import answers, api
from vastskyd.core.ids import NodeId
from vastskyd.core.units import format_size

_COLUMNS = (
    Column("NODE"), Column("STATE"), Column("ROLES", spare=2), Column("RACK", spare=1),
    Column("ADDRESSES", least=16),
)  # fmt: skip
_DISK_COLUMNS = (
    Column("DISK"), Column("SIZE", spare=2), Column("FREE", spare=1), Column("STATE"),
    Column("VOLUMES", least=16),
)  # fmt: skip


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
        _COLUMNS,
        [
            (each.id, _state(each), ",".join(each.roles), each.rack, ",".join(each.addresses))
            for each in found.nodes
        ],
    )


def _state(view: answers.NodeView) -> str:
    since = f" {format_duration(view.unreachable_s)}" if view.unreachable_s else ""
    return paint(view.state) + since


@node.command()
@click.argument("name", metavar="NODE", callback=not_empty, shell_complete=node_names)
@watch_option
@json_option
def show(name: str, watch: bool, as_json: bool) -> None:
    """One node: whether it is there, its disks, and the volumes on it.

    \b
    Example:
      vastskyctl node show store1

    With --json: NodeView.
    """

    def one() -> answers.NodeView:
        return client.ask(api.ListNodes(node=NodeId(name)), answers.NodeList).nodes[0]

    def tell(view: answers.NodeView) -> None:
        disks = client.ask(api.ListDisks(node=view.id), answers.DiskList).disks
        volumes = client.ask(api.ListVolumes(), answers.VolumeList).volumes
        _show_one(view, disks, [volume for volume in volumes if volume.head == view.id])

    with connect() as client:
        shown(one, tell, as_json=as_json, watch=watch)


def _show_one(
    view: answers.NodeView,
    disks: Sequence[answers.DiskView],
    volumes: Sequence[answers.VolumeView],
) -> None:
    print_facts(
        (
            ("Node", view.id),
            ("State", _state(view)),
            ("Roles", ", ".join(view.roles)),
            ("Addresses", ", ".join(view.addresses)),
            ("Rack", view.rack),
            ("Volumes", ", ".join(f"{each.name} ({paint(each.health)})" for each in volumes)),
        )
    )
    enrolled = [each for each in disks if each.id]
    if enrolled:
        say()
        print_table(
            _DISK_COLUMNS,
            [
                (
                    each.path,
                    format_size(each.size_bytes),
                    format_size(each.free_bytes),
                    paint(each.state),
                    ",".join(each.volumes),
                )
                for each in enrolled
            ],
        )


@node.command()
@click.argument("names", nargs=-1, required=True, metavar="NODE...", shell_complete=node_names)
@act_options
@json_option
def remove(names: tuple[str, ...], manner: Manner, as_json: bool) -> None:
    """Forget nodes, which must have no disks and no attached volumes left.

    \b
    Example:
      vastskyctl disk retire store3:/dev/sdb      (first, for each of its disks)
      vastskyctl node remove store3

    With --json: Done, an empty object, if none was refused.
    """
    requests = manner.of_each({name: api.RemoveNode(node=NodeId(name)) for name in names})
    several = Several(tuple(requests))
    with connect() as client:
        done = several.each(requests, lambda name: client.ask(requests[name], api.Done))
    if not (manner.dry_run or as_json):
        for name in done:
            say(f"remove {name}: done")
    several.end(
        "nothing stands in the way of the others" if manner.dry_run else "the others are gone"
    )
    if manner.dry_run:
        show_rehearsed(as_json=as_json)
    elif as_json:
        print_json(api.Done())
