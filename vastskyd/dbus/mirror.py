"""Keeps the host's own objects as the host is: its disks, its attachments, their rebuilds."""

import asyncio
import logging
import time

from vastskyd.core import api
from vastskyd.core.errors import VastskyError
from vastskyd.core.model import JobKind
from vastskyd.dbus.cluster import Cluster
from vastskyd.dbus.jobs import JobWatch
from vastskyd.dbus.own import OwnObjects
from vastskyd.dbus.paths import Kind, Place, place_of

log = logging.getLogger(__name__)

PAUSE_S = 0.5  # so that a flock of changes is told as one
# How often, at most, the manager is asked for jobs that nobody on this host started.
_LOOK_S = 5.0
_IDLE_LOOK_S = 60.0
_HERE = (JobKind.REBUILD, JobKind.SCRUB)


class Mirror:
    """`run` until cancelled."""

    def __init__(self, cluster: Cluster, own: OwnObjects, jobs: JobWatch) -> None:
        self._cluster = cluster
        self._own = own
        self._jobs = jobs
        self._looked_s = float("-inf")
        self._look_due = asyncio.Event()

    def look(self) -> api.LocalView:
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
            if view.volumes and time.monotonic() - self._looked_s >= _patience_s(view):
                self._looked_s = time.monotonic()
                self._look_due.set()
            await asyncio.sleep(PAUSE_S)
            await self._cluster.changed()

    async def _adopt(self) -> None:
        """Apart from what is told: the manager may be away."""
        while True:
            await self._look_due.wait()
            self._look_due.clear()
            await self._look_for_jobs({volume.id for volume in self._cluster.local().volumes})

    async def _look_for_jobs(self, volumes: set[api.VolumeId]) -> None:
        try:
            answer = await self._cluster.ask(api.ListJobs(running=True))
        except VastskyError as error:
            log.debug("jobs: %s", error.message)
            return
        for job in answer.jobs if isinstance(answer, api.JobList) else ():
            if job.kind in _HERE and job.subject in volumes:
                self._jobs.track(job)


def _patience_s(view: api.LocalView) -> float:
    busy = any(volume.state != "active" for volume in view.volumes)
    return _LOOK_S if busy else _IDLE_LOOK_S


def _placed(
    records: tuple[api.DiskView, ...] | tuple[api.LocalVolume, ...],
) -> dict[Place, api.DiskView | api.LocalVolume]:
    return {place: record for record in records if (place := place_of(record)) is not None}
