"""The jobs that this host shows as its own: each is watched until it ends, and told of."""

import asyncio
import logging
import time

from vastskyd.core import answers, api
from vastskyd.core.errors import NotFoundError, VastskyError
from vastskyd.core.ids import JobId
from vastskyd.core.model import Job, JobState
from vastskyd.dbus.cluster import Cluster
from vastskyd.dbus.own import OwnObjects
from vastskyd.dbus.paths import Kind, Place

log = logging.getLogger(__name__)

OWN_MAX = 200
KEPT_S = 600.0
PAUSE_S = 0.5  # between two changes that are told
RETRY_S = 1.0
_WATCH_S = 30.0
WAIT_MOST_S = 30.0
# Questions that the manager keeps open until there is news: a session has room for 256 at once, for
# all that this host asks and tells.
WAITS_MOST = 64
LOOK_S = 1.0


class JobWatch:
    """`close` ends it; the jobs go on."""

    def __init__(self, cluster: Cluster, own: OwnObjects) -> None:
        self._cluster = cluster
        self._own = own
        self._tasks: dict[JobId, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()
        self._waits = asyncio.Semaphore(WAITS_MOST)

    def track(self, job: Job) -> None:
        """From here on it is the host's own; nothing if it is, or if there are too many."""
        if job.id in self._tasks or not self._make_room():
            return
        self._own.put(_place(job.id), job)
        task = asyncio.create_task(self._watch(job), name=f"watch job {job.id}")
        self._tasks[job.id] = task
        task.add_done_callback(lambda ended: self._forget(job.id, ended))

    def _forget(self, job: JobId, ended: asyncio.Task[None]) -> None:
        if self._tasks.get(job) is ended:
            del self._tasks[job]
        if not ended.cancelled() and (fault := ended.exception()) is not None:
            log.error("job %s is watched no longer", job, exc_info=fault)
            self._own.remove(_place(job))

    def _make_room(self) -> bool:
        """The one that ended first goes, if there is one."""
        if len(self._tasks) < OWN_MAX:
            return True
        ended = [
            job
            for known in self._tasks
            if (job := self._job(known)) is not None and job.state is not JobState.RUNNING
        ]
        if not ended:
            return False
        first = min(ended, key=lambda job: job.ended_s)
        self._tasks.pop(first.id).cancel()
        self._own.remove(_place(first.id))
        return True

    def _job(self, job: JobId) -> Job | None:
        known = self._own.get(_place(job))
        return known if isinstance(known, Job) else None

    async def show(self, request: api.ShowJob) -> answers.JobList:
        """As the manager would, but of one that is watched without asking it."""
        job = self._job(request.job)
        if job is None:
            return await self._shown(request)
        try:
            limit_s = max(
                0.0, min(request.wait_s, WAIT_MOST_S)
            )  # in this order: it may be no number
            async with asyncio.timeout(limit_s), self._changed:
                while job.goes_on_as(request.seen):
                    await self._changed.wait()
                    job = self._job(request.job) or job
        except TimeoutError:
            pass
        return answers.JobList(jobs=(job,))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, job: Job) -> None:
        place = _place(job.id)
        try:
            while job.state is JobState.RUNNING:
                job = await self._next(job)
                self._own.put(place, job)
                async with self._changed:
                    self._changed.notify_all()
                if job.state is JobState.RUNNING:
                    await asyncio.sleep(PAUSE_S)
        except NotFoundError as error:  # the manager has lost its records, jobs and all
            self._own.completed(place, error.code, error.message, error.hint)
        else:
            self._own.completed(place, job.error_code, job.message, job.hint)
            await asyncio.sleep(KEPT_S)
        self._own.remove(place)

    async def _next(self, job: Job) -> Job:
        """The job when it has changed. While the manager is away it is asked again and again."""
        while True:
            request = api.ShowJob(job=job.id, wait_s=_WATCH_S, seen=job)
            try:
                answer = await self._shown(request)
            except NotFoundError:
                raise
            except VastskyError as error:
                log.debug("job %s: %s", job.id, error.message)
                await asyncio.sleep(RETRY_S)
                continue
            if answer.jobs:
                return answer.jobs[0]
            await asyncio.sleep(RETRY_S)

    async def _shown(self, request: api.ShowJob) -> answers.JobList:
        """By the manager. Where enough wait there, others look again and again."""
        if not request.wait_s > 0:
            return await self._asked(request)
        if not self._waits.locked():
            async with self._waits:
                return await self._asked(request)
        end_s = time.monotonic() + min(request.wait_s, WAIT_MOST_S)
        while True:
            shown = await self._asked(api.ShowJob(job=request.job))
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not all(job.goes_on_as(request.seen) for job in shown.jobs):
                return shown
            await asyncio.sleep(min(LOOK_S, left_s))

    async def _asked(self, request: api.ShowJob) -> answers.JobList:
        answer = await self._cluster.ask(request)
        return answer if isinstance(answer, answers.JobList) else answers.JobList(jobs=())


def _place(job: JobId) -> Place:
    return Place(Kind.JOB, job)
