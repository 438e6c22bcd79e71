"""vastskyctl volume: the commands. What `show` prints is in volume_view."""

from typing import TYPE_CHECKING

import click

from vastskyd.cli.complete import head_names, volume_names
from vastskyd.cli.connect import connect
from vastskyd.cli.here import leave, one_volume, take
from vastskyd.cli.jobs import show_rehearsed, start, start_in_turn, start_named
from vastskyd.cli.options import (
    Manner,
    act_options,
    json_option,
    no_wait_option,
    not_empty,
    size_bytes,
)
from vastskyd.cli.output import interactive, paint, print_json, say
from vastskyd.cli.table import Column, print_table
from vastskyd.cli.volume_view import show_placement, show_volume
from vastskyd.cli.watch import shown, watch_option
from vastskyd.core import answers, api
from vastskyd.core.ids import NodeId
from vastskyd.core.model import COPIES_MAX, Layout
from vastskyd.core.units import format_size

if TYPE_CHECKING:
    from vastskyd.cli.client import Client

standby_option = click.option(
    "--standby", multiple=True, metavar="HEAD", shell_complete=head_names,
    help="A head that takes the volume over when its own is unreachable; give it again for the"
    " next one.",
)  # fmt: skip
size_argument = click.argument("size", callback=size_bytes)
copies_option = click.option(
    "--copies", type=click.IntRange(1, COPIES_MAX), metavar="N",
    help="Legs of each segment, on as many hosts or disks. [default: 2; 1 with --layout linear]",
)  # fmt: skip
layout_option = click.option(
    "--layout", type=click.Choice([each.value for each in Layout]), default="raid1",
    show_default=True, help="linear: one leg, no redundancy.",
)  # fmt: skip
name_argument = click.argument("name", callback=not_empty, shell_complete=volume_names)
names_argument = click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=volume_names
)


_COLUMNS = (
    Column("VOLUME"), Column("SIZE", spare=3), Column("COPIES", spare=4), Column("LAYOUT", spare=5),
    Column("HEALTH"), Column("HEAD", spare=1), Column("STATE", spare=2),
    Column("MESSAGE", least=24),
)  # fmt: skip


@click.group()
def volume() -> None:
    """Volumes: made of extents of many disks, used as /dev/vastsky/NAME."""


@volume.command("list")
@watch_option
@json_option
def list_(watch: bool, as_json: bool) -> None:
    """All volumes.

    \b
    Example:
      vastskyctl volume list

    With --json: VolumeList.
    """
    with connect() as client:
        shown(
            lambda: client.ask(api.ListVolumes(), answers.VolumeList), _show_list,
            as_json=as_json, watch=watch,
        )  # fmt: skip


def _show_list(found: answers.VolumeList) -> None:
    print_table(_COLUMNS, [_row(each) for each in found.volumes])


def _row(view: answers.VolumeView) -> tuple[str, ...]:
    size = format_size(view.size_bytes)
    health, state = paint(view.health), paint(view.attachment or view.state)
    return (view.name, size, str(view.copies), view.layout, health, view.head, state, view.message)


@volume.command()
@name_argument
@watch_option
@json_option
def show(name: str, watch: bool, as_json: bool) -> None:
    """One volume with its segments and their legs, by name or id.

    \b
    Example:
      vastskyctl volume show data

    With --json: VolumeView.
    """
    with connect() as client:
        shown(lambda: one_volume(client, name), show_volume, as_json=as_json, watch=watch)


@volume.command()
@click.argument("name")
@size_argument
@copies_option
@layout_option
@standby_option
@click.option("--attach", is_flag=True, help="Attach it on this host, once it is made.")
@act_options
@no_wait_option
@json_option
def create(
    name: str,
    size: int,
    copies: int | None,
    layout: str,
    standby: tuple[str, ...],
    attach: bool,
    manner: Manner,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Make a volume. SIZE as in 512M, 100G or 1.5T, powers of 1024.

    \b
    Examples:
      vastskyctl volume create data 100G --attach
      vastskyctl volume create ledger 2T --copies 3
      vastskyctl volume create mail 50G --standby head1 --standby head2

    With --json: the Job; with --attach a JobList of both.
    """
    if attach and no_wait:
        raise click.UsageError("--attach waits until the volume is made: leave --no-wait away")
    chosen = Layout(layout)
    request = api.CreateVolume(
        name=name,
        size_bytes=size,
        copies=_copies(copies, chosen),
        layout=chosen,
        standby=tuple(NodeId(head) for head in standby),
    )
    with connect() as client:
        if not attach or manner.dry_run:
            start(client, manner.of(request), as_json=as_json, no_wait=no_wait)
            return
        here = NodeId(client.ask(api.ShowLocal(), answers.LocalView).node)
        then = manner.of(api.AttachVolume(volume=name, head=here), "attach")
        start_in_turn(client, (manner.of(request), then), as_json=as_json)


def _copies(asked: int | None, layout: Layout) -> int:
    return asked or (1 if layout is Layout.LINEAR else 2)


@volume.command()
@size_argument
@copies_option
@layout_option
@json_option
def explain(size: int, copies: int | None, layout: str, as_json: bool) -> None:
    """Say disk by disk why a volume of SIZE would fit, or would not.

    \b
    Example:
      vastskyctl volume explain 2T --copies 3

    With --json: Placement.
    """
    chosen = Layout(layout)
    request = api.ExplainPlacement(size_bytes=size, copies=_copies(copies, chosen), layout=chosen)
    with connect() as client:
        found = client.ask(request, answers.Placement)
    if as_json:
        print_json(found)
    else:
        show_placement(found)


@volume.command()
@name_argument
@click.argument("head", shell_complete=head_names)
@click.option("--force", is_flag=True, help="Even with fewer legs than surely hold every write:"
              " the last writes may be lost.")  # fmt: skip
@act_options
@no_wait_option
@json_option
def attach(name: str, head: str, force: bool, manner: Manner, no_wait: bool, as_json: bool) -> None:
    """Make a volume the device /dev/vastsky/NAME of node HEAD.

    A head that has it and is unreachable is fenced first; from one that is online it has to be
    detached.

    \b
    Example:
      vastskyctl volume attach data head1

    With --json: the Job.
    """
    with connect() as client:
        request = api.AttachVolume(volume=name, head=NodeId(head), force=force)
        start(client, manner.of(request), as_json=as_json, no_wait=no_wait)


@volume.command()
@name_argument
@click.argument("head", required=False, default="", shell_complete=head_names)
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Needed where nobody can be asked.")
@act_options
@no_wait_option
@json_option
def failover(name: str, head: str, yes: bool, manner: Manner, no_wait: bool, as_json: bool) -> None:
    """Move a volume to HEAD at once, or to its first standby head that is online.

    The head that has it is fenced: programs that use the volume there get I/O errors, and writes
    that were not acknowledged may be lost. To move a volume that works, unmount and detach it.

    \b
    Example:
      vastskyctl volume failover data head2

    With --json: the Job.
    """
    with connect() as client:
        if not (yes or manner.dry_run):
            _confirm_fencing(client, name)
        request = api.FailoverVolume(volume=name, head=head)
        start(client, manner.of(request), as_json=as_json, no_wait=no_wait)


def _confirm_fencing(client: "Client", name: str) -> None:
    """Asks where somebody may be hurt: the volume's head is online."""
    view = one_volume(client, name)
    nodes = {node.id: node for node in client.ask(api.ListNodes(), answers.NodeList).nodes}
    if not view.head or nodes[NodeId(view.head)].state != "online":
        return
    if not interactive():
        raise click.UsageError(f"{view.head} is online: without a terminal to ask on, say --yes")
    click.confirm(
        f"{view.head} is online; programs that use {name} there get I/O errors. Go on?", abort=True
    )


@volume.command("set")
@name_argument
@standby_option
@click.option("--no-standby", is_flag=True, help="It waits for its head, as long as that takes.")
@act_options
@json_option
def set_(
    name: str, standby: tuple[str, ...], no_standby: bool, manner: Manner, as_json: bool
) -> None:
    """Change what a volume does when its head is unreachable.

    \b
    Examples:
      vastskyctl volume set data --standby head1 --standby head2
      vastskyctl volume set data --no-standby

    With --json: VolumeView.
    """
    if bool(standby) == no_standby:
        raise click.UsageError("say either --standby HEAD or --no-standby")
    with connect() as client:
        heads = tuple(NodeId(head) for head in standby)
        client.ask(manner.of(api.SetStandby(volume=name, heads=heads)), api.Done)
        if manner.dry_run:
            show_rehearsed(as_json=as_json)
        elif as_json:
            print_json(one_volume(client, name))
        else:
            say(f"set {name}: done")


@volume.command()
@names_argument
@act_options
@no_wait_option
@json_option
def scrub(names: tuple[str, ...], manner: Manner, no_wait: bool, as_json: bool) -> None:
    """Compare the copies of attached volumes with each other.

    What differs is repaired where most of three or more copies agree, and reported where they do
    not. They can be used meanwhile.

    \b
    Example:
      vastskyctl volume scrub data

    With --json: the Job, of several a JobList.
    """
    requests = manner.of_each({name: api.ScrubVolume(volume=name) for name in names})
    with connect() as client:
        start_named(client, requests, as_json=as_json, no_wait=no_wait)


@volume.command()
@names_argument
@act_options
@no_wait_option
@json_option
def detach(names: tuple[str, ...], manner: Manner, no_wait: bool, as_json: bool) -> None:
    """Take volumes off their heads. One that is in use there is refused.

    \b
    Example:
      vastskyctl volume detach data

    With --json: the Job, of several a JobList.
    """
    requests = manner.of_each({name: api.DetachVolume(volume=name) for name in names})
    with connect() as client:
        start_named(client, requests, as_json=as_json, no_wait=no_wait)


@volume.command()
@names_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Needed where nobody can be asked.")
@act_options
@no_wait_option
@json_option
def delete(names: tuple[str, ...], yes: bool, manner: Manner, no_wait: bool, as_json: bool) -> None:
    """Delete volumes and their data. They must be detached.

    \b
    Example:
      vastskyctl volume delete data --yes

    With --json: the Job, of several a JobList.
    """
    requests = manner.of_each({name: api.DeleteVolume(volume=name) for name in names})
    if not (yes or manner.dry_run):
        if not interactive():
            raise click.UsageError("without a terminal to ask on, deleting needs --yes")
        what = f"volume {names[0]} and all its data"
        if len(requests) > 1:
            what = f"volumes {', '.join(requests)} and all their data"
        click.confirm(f"Delete {what}?", abort=True)
    with connect() as client:
        start_named(client, requests, as_json=as_json, no_wait=no_wait)


volume.add_command(take)
volume.add_command(leave)
