"""Names for the shell's completion: live ones, soon or not at all, and never an error."""

from collections.abc import Callable
from typing import TypeVar

import click

from vastskyd.core import api
from vastskyd.core.model import Record

LIMIT_S = 1.0

A = TypeVar("A", bound=Record)
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def _ask(request: Record, answer: type[A]) -> A | None:
    try:
        from vastskyd.cli.client import Client  # noqa: PLC0415 - see connect

        with Client(timeout_s=LIMIT_S) as client:
            return client.ask(request, answer)
    except Exception:  # noqa: BLE001 - whatever it was, it must not land in a command line
        return None


def _completer(names: Callable[[], list[str]]) -> Completer:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def _volumes() -> list[str]:
    answer = _ask(api.ListVolumes(), api.VolumeList)
    return [volume.name for volume in answer.volumes] if answer else []


def _nodes() -> list[str]:
    answer = _ask(api.ListNodes(), api.NodeList)
    return [str(node.id) for node in answer.nodes] if answer else []


def _disks() -> list[str]:
    answer = _ask(api.ListDisks(), api.DiskList)
    return [str(disk.id) for disk in answer.disks if disk.id] if answer else []


def _jobs() -> list[str]:
    answer = _ask(api.ListJobs(running=True), api.JobList)
    return [str(job.id) for job in answer.jobs] if answer else []


volume_names = _completer(_volumes)
node_names = _completer(_nodes)
disk_ids = _completer(_disks)
job_ids = _completer(_jobs)
