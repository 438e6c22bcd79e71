"""Keeps the host's own objects as the host is: its disks, its attachments, their rebuilds."""

import asyncio
import logging
import time

from vastskyd.core import answers, api
from vastskyd.core.errors import VastskyError
from vastskyd.core.model import Job, JobKind
from vastskyd.dbus.cluster import Cluster
from vastskyd.dbus.jobs import JobWatch
from vastskyd.dbus.own import OwnObjects
from vastskyd.dbus.paths import Kind, Place, place_of

log = logging.getLogger(__name__)

PAUSE_S = 0.5  # so that a flock of changes is told as one
# How often, at most, the manager is asked for jobs that nobody on this host started.
_LOOK_S = 5.0
_IDLE_LOOK_S = 60.0
FIRST_LOOK_S = 5.0  # before that there is no session with the manager
_TICK_S = 10.0  # for what nothing on this host tells
_HERE = (JobKind.REBUILD, JobKind.SCRUB)


class Mirror:
    """`run` until cancelled."""

    def __init__(self, cluster: Cluster, own: OwnObjects, jobs: JobWatch) -> None:
        self._cluster = cluster
        self._own = own
        self._jobs = jobs
        self._looked_s = _ago(_IDLE_LOOK_S - FIRST_LOOK_S)
        self._look_due = asyncio.Event()

    def look(self) -> answers.LocalView:
        """Tells what is new."""
        view = self._cluster.local()
        self._own.put_host(view)
        self._own.replace(Kind.DISK, _placed(view.disks))
        self._own.replace(Kind.ATTACHMENT, _placed(view.volumes))
        return view

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="own objects")
            group.create_task(self._adopt(), name="rebuilds of own attachments")

    async def _follow(self) -> None:
        while True:
            view = self.look()
            if view.node and time.monotonic() - self._looked_s >= _patience_s(view):
                self._looked_s = time.monotonic()
                self._look_due.set()
            await asyncio.sleep(PAUSE_S)
            try:
                async with asyncio.timeout(_TICK_S):
                    await self._cluster.changed()
            except TimeoutError:
                continue

    async def _adopt(self) -> None:
        """Apart from what is told: the manager may be away."""
        while True:
            await self._look_due.wait()
            self._look_due.clear()
            try:
                answer = await self._cluster.ask(api.ListJobs(running=True, limit=api.PAGE_MOST))
            except VastskyError as error:
                log.debug("jobs: %s", error.message)
                self._looked_s = _ago(_patience_s(self._cluster.local()) - _LOOK_S)
                continue
            view = self._cluster.local()
            for job in answer.jobs if isinstance(answer, answers.JobList) else ():
                if _is_own(job, view):
                    self._jobs.track(job)


def _ago(duration_s: float) -> float:
    return time.monotonic() - duration_s


def _is_own(job: Job, view: answers.LocalView) -> bool:
    """It works on what is attached here, or was started through this host, by a vastskyd that
    was restarted since."""
    here = any(volume.id == job.subject for volume in view.volumes)
    return (here and job.kind in _HERE) or job.started_by.endswith(f" on {view.node}")


def _patience_s(view: answers.LocalView) -> float:
    busy = any(volume.state != "active" for volume in view.volumes)
    return _LOOK_S if busy else _IDLE_LOOK_S


def _placed(
    records: tuple[answers.DiskView, ...] | tuple[answers.LocalVolume, ...],
) -> dict[Place, answers.DiskView | answers.LocalVolume]:
    return {place: record for record in records if (place := place_of(record)) is not None}
