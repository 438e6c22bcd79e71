"""vastskyctl disk"""

from typing import TYPE_CHECKING

import click

from vastskyd.cli.complete import disk_names, disks_to_enrol, node_names
from vastskyd.cli.connect import connect
from vastskyd.cli.disk_view import show_disk
from vastskyd.cli.jobs import start_each, start_named
from vastskyd.cli.options import Manner, act_options, json_option, no_wait_option, not_empty
from vastskyd.cli.output import interactive, paint, say
from vastskyd.cli.table import Column, print_table
from vastskyd.cli.watch import shown, watch_option
from vastskyd.core import answers, api
from vastskyd.core.errors import InvalidError
from vastskyd.core.ids import NodeId
from vastskyd.core.units import format_size

if TYPE_CHECKING:
    from vastskyd.cli.client import Client


_COLUMNS = (
    Column("NODE"), Column("PATH", least=16), Column("SIZE", spare=3), Column("FREE", spare=2),
    Column("STATE"), Column("SERIAL", spare=4), Column("ID", spare=1), Column("MESSAGE", least=16),
)  # fmt: skip


@click.group()
def disk() -> None:
    """The disks that volumes are made of."""


@disk.command("list")
@click.option("--all", "all_", is_flag=True, help="Also disks that are not enrolled.")
@click.option("--node", default="", metavar="NODE", help="Of this node only.",
              shell_complete=node_names)  # fmt: skip
@watch_option
@json_option
def list_(all_: bool, node: str, watch: bool, as_json: bool) -> None:
    """Enrolled disks; with --all also those that could be.

    \b
    Example:
      vastskyctl disk list --all --node store1

    With --json: DiskList; a disk without an id is not enrolled.
    """
    with connect() as client:
        found = _Disks(client, node, all_=all_)
        shown(found.ask, found.show, as_json=as_json, watch=watch)


class _Disks:
    """Asked for, and shown with a word on those that are left out."""

    def __init__(self, client: "Client", node: str, *, all_: bool) -> None:
        self._client = client
        self._node = node
        self._all = all_
        self._left_out = 0

    def ask(self) -> answers.DiskList:
        found = self._client.ask(api.ListDisks(node=self._node), answers.DiskList).disks
        kept = tuple(each for each in found if self._all or each.id)
        self._left_out = len(found) - len(kept)
        return answers.DiskList(disks=kept)

    def show(self, found: answers.DiskList) -> None:
        print_table(_COLUMNS, [_row(each) for each in found.disks])
        if self._left_out and interactive():
            say(f"\n{self._left_out} more not enrolled: vastskyctl disk list --all")


def _row(view: answers.DiskView) -> tuple[str, ...]:
    free = format_size(view.free_bytes) if view.id else ""
    size = format_size(view.size_bytes)
    state = paint(view.state)
    return (view.node, view.path, size, free, state, view.serial, view.id, view.message)


@disk.command()
@click.argument("name", metavar="ID|NODE:PATH", callback=not_empty, shell_complete=disk_names)
@watch_option
@json_option
def show(name: str, watch: bool, as_json: bool) -> None:
    """One enrolled disk: its state, who uses it, and what it says of its health.

    \b
    Example:
      vastskyctl disk show store1:/dev/sdb

    With --json: DiskView.
    """
    with connect() as client:
        shown(
            lambda: client.ask(api.ListDisks(disk=name), answers.DiskList).disks[0], show_disk,
            as_json=as_json, watch=watch,
        )  # fmt: skip


@disk.command()
@click.argument("where", nargs=-1, required=True, metavar="NODE PATH | [NODE:]PATH...",
                shell_complete=disks_to_enrol)  # fmt: skip
@click.option("--wipe", is_flag=True, help="Destroy what is on the disk.")
@click.option("--failing", is_flag=True, help="Take it though it says that it is failing (SMART).")
@act_options
@no_wait_option
@json_option
def enrol(
    where: tuple[str, ...], wipe: bool, failing: bool, manner: Manner, no_wait: bool, as_json: bool
) -> None:
    """Take disks into the cluster. A path alone is of this host.

    A disk is a whole one, a partition, or a file of which vastsky-file@.service makes a disk. One
    with anything on it is refused, unless --wipe; and one whose SMART health fails, unless
    --failing: then its word does not count. One that is enrolled already is as asked. Of several
    each is tried.

    \b
    Examples:
      vastskyctl disk enrol /dev/sdb /dev/sdc3
      vastskyctl disk enrol store1 /dev/sdb
      vastskyctl disk enrol store1:/dev/disk/by-id/nvme-S5H9 --wipe

    With --json: a JobList.
    """
    with connect() as client:
        requests = {
            f"{node}:{path}": api.EnrolDisk(
                node=NodeId(node), path=path, wipe=wipe, failing=failing
            )
            for node, path in _nodes_and_paths(client, where)
        }
        start_each(client, manner.of_each(requests), as_json=as_json, no_wait=no_wait)


def _nodes_and_paths(client: "Client", where: tuple[str, ...]) -> list[tuple[str, str]]:
    if len(where) == 2 and "/" not in where[0] and ":" not in where[0]:
        return [(where[0], where[1])]
    return [_node_and_path(client, each) for each in where]


def _node_and_path(client: "Client", where: str) -> tuple[str, str]:
    if where.startswith("/"):
        return client.ask(api.ShowLocal(), answers.LocalView).node, where
    node, colon, path = where.partition(":")
    if node and colon and path:
        return node, path
    raise InvalidError(
        f"{where!r} does not name a disk",
        hint="write it as `store1 /dev/sdb` or `store1:/dev/sdb`; see `vastskyctl disk list --all`",
    )


@disk.command()
@click.argument("names", nargs=-1, required=True, metavar="ID|NODE:PATH...",
                shell_complete=disk_names)  # fmt: skip
@act_options
@no_wait_option
@json_option
def retire(names: tuple[str, ...], manner: Manner, no_wait: bool, as_json: bool) -> None:
    """Empty disks and let them go; or forget those that are lost.

    Their legs move to other disks while they are in use; a disk's job ends when all have.
    Cancelling it leaves the disk in use. Refused while it holds the only copy of a volume.

    \b
    Examples:
      vastskyctl disk retire store1:/dev/sdb
      vastskyctl disk retire store1:/dev/sdb store1:/dev/sdc --no-wait

    With --json: the Job, of several a JobList.
    """
    requests = manner.of_each({name: api.RetireDisk(disk=name) for name in names})
    with connect() as client:
        start_named(client, requests, as_json=as_json, no_wait=no_wait)
