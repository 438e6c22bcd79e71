"""vastskyctl volume: the commands. What `show` prints is in volume_view."""

import click

from vastskyd.cli.complete import node_names, volume_names
from vastskyd.cli.connect import connect
from vastskyd.cli.jobs import start
from vastskyd.cli.options import json_option, no_wait_option, size_bytes
from vastskyd.cli.output import interactive, paint, print_json, print_table
from vastskyd.cli.volume_view import show_volume
from vastskyd.core import api
from vastskyd.core.errors import NotFoundError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Layout
from vastskyd.core.units import format_size

name_argument = click.argument("name", shell_complete=volume_names)


@click.group()
def volume() -> None:
    """Volumes: made of extents of many disks, used as /dev/vastsky/NAME."""


@volume.command("list")
@json_option
def list_(as_json: bool) -> None:
    """All volumes.

    \b
    Example:
      vastskyctl volume list

    With --json: VolumeList.
    """
    with connect() as client:
        found = client.ask(api.ListVolumes(), api.VolumeList)
    if as_json:
        print_json(found)
        return
    print_table(
        ("VOLUME", "SIZE", "COPIES", "LAYOUT", "HEALTH", "HEAD", "STATE", "MESSAGE"),
        [_row(each) for each in found.volumes],
    )


def _row(view: api.VolumeView) -> tuple[str, ...]:
    size = format_size(view.size_bytes)
    health, state = paint(view.health), paint(view.attachment or view.state)
    return (view.name, size, str(view.copies), view.layout, health, view.head, state, view.message)


@volume.command()
@name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """One volume with its segments and their legs, by name or id.

    \b
    Example:
      vastskyctl volume show data

    With --json: VolumeView.
    """
    with connect() as client:
        found = client.ask(api.ListVolumes(volume=name), api.VolumeList).volumes
    if len(found) != 1:
        raise NotFoundError(f"there is no volume {name!r}", hint="see `vastskyctl volume list`")
    if as_json:
        print_json(found[0])
    else:
        show_volume(found[0])


@volume.command()
@click.argument("name")
@click.argument("size", callback=size_bytes)
@click.option("--copies", type=click.IntRange(1, 8), help="Legs of each segment, on as many hosts."
              " [default: 2; 1 with --layout linear]")  # fmt: skip
@click.option("--layout", type=click.Choice([each.value for each in Layout]), default="raid1",
              show_default=True, help="linear: one leg, no redundancy.")  # fmt: skip
@no_wait_option
@json_option
def create(
    name: str, size: int, copies: int | None, layout: str, no_wait: bool, as_json: bool
) -> None:
    """Make a volume. SIZE as in 512M, 100G or 1.5T, powers of 1024.

    \b
    Examples:
      vastskyctl volume create data 100G
      vastskyctl volume create ledger 2T --copies 3

    With --json: the Job.
    """
    chosen = Layout(layout)
    request = api.CreateVolume(
        name=name,
        size_bytes=size,
        copies=copies or (1 if chosen is Layout.LINEAR else 2),
        layout=chosen,
    )
    with connect() as client:
        start(client, request, as_json=as_json, no_wait=no_wait)


@volume.command()
@name_argument
@click.argument("head", shell_complete=node_names)
@click.option("--force", is_flag=True, help="Even with fewer legs than surely hold every write:"
              " the last writes may be lost.")  # fmt: skip
@no_wait_option
@json_option
def attach(name: str, head: str, force: bool, no_wait: bool, as_json: bool) -> None:
    """Make a volume the device /dev/vastsky/NAME of node HEAD.

    Attached to another head, it moves, once that one is fenced.

    \b
    Example:
      vastskyctl volume attach data head1

    With --json: the Job.
    """
    with connect() as client:
        request = api.AttachVolume(volume=name, head=NodeId(head), force=force)
        start(client, request, as_json=as_json, no_wait=no_wait)


@volume.command()
@name_argument
@no_wait_option
@json_option
def detach(name: str, no_wait: bool, as_json: bool) -> None:
    """Take a volume off its head. Refused while it is in use there.

    \b
    Example:
      vastskyctl volume detach data

    With --json: the Job.
    """
    with connect() as client:
        start(client, api.DetachVolume(volume=name), as_json=as_json, no_wait=no_wait)


@volume.command()
@name_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Needed where nobody can be asked.")
@no_wait_option
@json_option
def delete(name: str, yes: bool, no_wait: bool, as_json: bool) -> None:
    """Delete a volume and its data. It must be detached.

    \b
    Example:
      vastskyctl volume delete data --yes

    With --json: the Job.
    """
    if not yes:
        if not interactive():
            raise click.UsageError("without a terminal to ask on, deleting needs --yes")
        click.confirm(f"Delete volume {name} and all its data?", abort=True)
    with connect() as client:
        start(client, api.DeleteVolume(volume=name), as_json=as_json, no_wait=no_wait)
