"""vastskyctl volume take, and leave: a volume of this host, as vastsky-attach@.service wants it.

Both may be asked before the manager can be reached, and neither has a say where another host has
the volume.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from vastskyd.cli.complete import volume_names
from vastskyd.cli.connect import connect
from vastskyd.cli.jobs import failure
from vastskyd.cli.jobs import show as show_job
from vastskyd.cli.options import duration_s, json_option, not_empty
from vastskyd.cli.output import print_json, say
from vastskyd.core import answers, api
from vastskyd.core.errors import (
    BusyError,
    ConflictError,
    NotFoundError,
    UnreachableError,
)
from vastskyd.core.ids import NodeId
from vastskyd.core.model import AttachmentState, Job, JobState, VolumeState

if TYPE_CHECKING:
    from vastskyd.cli.client import Client

T = TypeVar("T")

POLL_S = 0.5
# What can be mounted. Of one that is stalled a read may wait, and whoever asked with it.
_USABLE = ("active", "degraded", "rebuilding")

name_argument = click.argument("name", callback=not_empty, shell_complete=volume_names)


@click.command()
@name_argument
@click.option("--within", "within_s", callback=duration_s, default="75s", show_default=True,
              metavar="TIME",
              help="How long to wait for the manager and the device: 30s, 5m.")  # fmt: skip
@json_option
def take(name: str, within_s: float, as_json: bool) -> None:
    """Have a volume on this host: attach it, unless it is, and wait for /dev/vastsky/NAME.

    Refused where another host has it, be that out of reach. vastsky-attach@NAME.service does this
    at boot.

    \b
    Example:
      vastskyctl volume take data --within 30s

    With --json: LocalVolume.
    """
    deadline_s = time.monotonic() + within_s
    with connect(within_s) as client:
        taken = _taken(client, name, deadline_s)
    if as_json:
        print_json(taken)
    else:
        say(f"volume {taken.name} is here: {taken.device}")


@click.command()
@name_argument
@click.option("--within", "within_s", callback=duration_s, default="20s", show_default=True,
              metavar="TIME",
              help="How long to wait for the manager and the detach: 30s, 5m.")  # fmt: skip
@json_option
def leave(name: str, within_s: float, as_json: bool) -> None:
    """Detach a volume from this host, if this host has it. Refused while it is in use.

    vastsky-attach@NAME.service does this when it is stopped.

    \b
    Example:
      vastskyctl volume leave data

    With --json: Done.
    """
    deadline_s = time.monotonic() + within_s
    with connect(within_s) as client:
        _leave(client, name, deadline_s)
    if as_json:
        print_json(api.Done())
    else:
        say(f"volume {name} is not on this host")


def _taken(client: "Client", name: str, deadline_s: float) -> answers.LocalVolume:
    """The manager is asked for what this host does not know: while it is away, a volume that is
    here is here. So for as long as this host is not in a cluster, or the manager has no records."""
    job: Job | None = None
    why = "its device is not there"
    while True:
        try:
            local = _local(client)
            found = next((each for each in local.volumes if name in (each.name, each.id)), None)
            if found is not None and found.state in _USABLE:
                return found
            if found is not None:
                why = f"it is {found.state}" + (f": {found.message}" if found.message else "")
            job = _attach(client, name, local.node) if job is None else _still(client, job)
        except UnreachableError as error:
            why = error.message
        _wait(deadline_s, f"volume {name} is not here in time: {why}")


def _attach(client: "Client", name: str, me: str) -> Job | None:
    """The job that was begun; None: it is attached here, or still on its way off."""
    view = _known(client, name)
    given = view.attachment not in (None, AttachmentState.UNFENCED)
    if view.state is VolumeState.CREATING:
        raise UnreachableError(f"volume {name} is still being created")
    if view.attachment is AttachmentState.DETACHING and view.head != me:
        raise UnreachableError(f"volume {name} is detaching on {view.head}")
    if given and view.head != me:
        raise BusyError(
            f"volume {name} is {view.attachment} on {view.head}",
            hint=f"unmount it there and detach it first: `vastskyctl volume detach {name}`; if"
            f" {view.head} is lost: `vastskyctl volume failover {name} {me}`",
        )
    if given:
        return None
    return client.ask(api.AttachVolume(volume=name, head=NodeId(me)), api.JobStarted).job


def _leave(client: "Client", name: str, deadline_s: float) -> None:
    job: Job | None = None
    while True:
        try:
            me = client.ask(api.ShowLocal(), answers.LocalView).node
            view = _known(client, name)
            if not me or view.head != me:
                return
            if job is None:
                job = client.ask(api.DetachVolume(volume=name), api.JobStarted).job
            job = _still(client, job)
            why = "its head has not let go of it"
        except NotFoundError:
            return
        except UnreachableError as error:
            why = error.message
        _wait(deadline_s, f"volume {name} is not detached in time: {why}")


def _still(client: "Client", job: Job) -> Job | None:
    """The job as it is now; one that failed raises its error. None: it went with the records of a
    manager that has new ones."""
    try:
        now = _answered(lambda: show_job(client, job.id))
    except NotFoundError:
        return None
    if now.state is JobState.FAILED:
        raise failure(now)
    return now


def _known(client: "Client", name: str) -> answers.VolumeView:
    return _answered(lambda: one_volume(client, name))


def _answered(question: Callable[[], T]) -> T:
    """A manager that has lost its records refuses all questions, until it has made them anew; and
    whoever asks on a host that is not in a cluster yet is refused until it is."""
    try:
        return question()
    except ConflictError as error:
        raise UnreachableError(error.message, hint=error.hint) from error


def one_volume(client: "Client", name: str) -> answers.VolumeView:
    found = client.ask(api.ListVolumes(volume=name), answers.VolumeList).volumes
    if len(found) != 1:
        raise NotFoundError(
            f"there is no volume {name!r}",
            hint="`vastskyctl volume list` shows the cluster's volumes",
        )
    return found[0]


def _local(client: "Client") -> answers.LocalView:
    local = client.ask(api.ShowLocal(), answers.LocalView)
    if not local.node:
        raise UnreachableError("this host belongs to no cluster")
    return local


def _wait(deadline_s: float, why: str) -> None:
    if time.monotonic() + POLL_S > deadline_s:
        raise UnreachableError(
            why, hint="`vastskyctl status` and `journalctl -u vastskyd` say more"
        )
    time.sleep(POLL_S)
