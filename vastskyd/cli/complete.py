"""Names for the shell's completion: live ones, soon or not at all, and never an error. Nothing is
started for them."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from vastskyd.core import answers, api
from vastskyd.core.model import Record, Role

LIMIT_S = 1.0

A = TypeVar("A", bound=Record)
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _ask(request: Record, answer: type[A]) -> A | None:
    try:
        from vastskyd.cli.client import Client  # noqa: PLC0415 - see connect

        with Client(timeout_s=LIMIT_S, may_start=False) as client:
            return client.ask(request, answer)
    except Exception:  # noqa: BLE001 - whatever it was, it must not land in a command line
        return None


def _completer(names: Callable[[], list[str]]) -> Completer:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return _offered(names(), ctx, param, incomplete)

    return complete


def _offered(
    names: Iterable[str], ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[str]:
    """Of several each once."""
    before = ctx.params.get(param.name or "") or ()
    return [name for name in names if name.startswith(incomplete) and name not in before]


def _volumes() -> list[str]:
    answer = _ask(api.ListVolumes(), answers.VolumeList)
    return [volume.name for volume in answer.volumes] if answer else []


def _nodes() -> list[str]:
    answer = _ask(api.ListNodes(), answers.NodeList)
    return [str(node.id) for node in answer.nodes] if answer else []


def _heads() -> list[str]:
    answer = _ask(api.ListNodes(), answers.NodeList)
    return [str(node.id) for node in answer.nodes if Role.HEAD in node.roles] if answer else []


def _jobs(*, running: bool) -> list[str]:
    answer = _ask(api.ListJobs(running=running), answers.JobList)
    return [str(job.id) for job in answer.jobs] if answer else []


def _settings() -> list[str]:
    from vastskyd.config.settings import EFFECTS  # noqa: PLC0415 - only this needs it

    tables = dict.fromkeys(key.partition(".")[0] for key in EFFECTS if "." in key)
    return [*EFFECTS, *tables]


def disk_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """NODE:PATH of enrolled disks; their ids only if one is being typed."""
    answer = _ask(api.ListDisks(), answers.DiskList)
    disks = [disk for disk in answer.disks if disk.id] if answer else []
    places = [f"{disk.node}:{disk.path}" for disk in disks]
    found = _offered(places, ctx, param, incomplete)
    return found or _offered([disk.id for disk in disks], ctx, param, incomplete)


def disks_to_enrol(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Disks that are not enrolled: paths of this host's, NODE:PATH of others', or a node and then a
    path of its."""
    before = ctx.params.get(param.name or "") or ()
    of_node = before[0] if before and not set(":/") & set(before[0]) else ""
    if len(before) > 1 and of_node:
        return []
    answer = _ask(api.ListDisks(node=of_node), answers.DiskList)
    if answer is None:
        return []
    free = [disk for disk in answer.disks if not disk.id]
    if of_node:
        offered = [disk.path for disk in free]
    else:
        local = _ask(api.ShowLocal(), answers.LocalView)
        here = local.node if local else ""
        offered = [disk.path for disk in free if disk.node == here]
        if before or ":" in incomplete:
            offered += [f"{disk.node}:{disk.path}" for disk in free if disk.node != here]
        else:
            offered = _nodes() + offered
    return _offered(offered, ctx, param, incomplete)


volume_names = _completer(_volumes)
node_names = _completer(_nodes)
head_names = _completer(_heads)
job_ids = _completer(lambda: _jobs(running=False))
running_job_ids = _completer(lambda: _jobs(running=True))
setting_keys = _completer(_settings)
