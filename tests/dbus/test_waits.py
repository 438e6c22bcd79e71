"""Waiting for jobs: the manager keeps few questions open, and who has no place there is told of
news all the same."""

import asyncio

import msgspec
import pytest

from tests.dbus.fake_cluster import FakeCluster, job
from vastskyd.core import answers, api
from vastskyd.core.ids import JobId
from vastskyd.core.model import Job, JobState, Record
from vastskyd.dbus import jobs
from vastskyd.dbus.jobs import JobWatch
from vastskyd.dbus.own import OwnObjects
from vastskyd.dbus.variants import record_in, record_out

RUNNING, DONE = job(), job(state=JobState.DONE)
FASTER = msgspec.structs.replace(RUNNING, rate_bytes=7)
WAIT = api.ShowJob(job=JobId("j1"), wait_s=20.0, seen=RUNNING)


class Patient(FakeCluster):
    """A manager: who may wait does so until there is news."""

    def __init__(self) -> None:
        super().__init__()
        self.now = RUNNING
        self.news = asyncio.Event()
        self.waiting = self.most = 0

    async def ask(self, request: Record) -> Record:
        self.asked.append(request)
        assert isinstance(request, api.ShowJob)
        if request.wait_s:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            await self.news.wait()
            self.waiting -= 1
        return answers.JobList(jobs=(self.now,))


@pytest.fixture
def manager() -> Patient:
    return Patient()


@pytest.fixture
def watch(manager: Patient, monkeypatch: pytest.MonkeyPatch) -> JobWatch:
    monkeypatch.setattr(jobs, "WAITS_MOST", 3)
    monkeypatch.setattr(jobs, "LOOK_S", 0.02)
    return JobWatch(manager, OwnObjects(lambda _: None))


async def test_few_wait_at_the_manager_and_all_are_told(manager: Patient, watch: JobWatch) -> None:
    waiting = [asyncio.create_task(watch.show(WAIT)) for _ in range(20)]
    await asyncio.sleep(0.1)
    assert manager.most == 3
    assert not any(task.done() for task in waiting)
    manager.now = FASTER  # of its pace nobody is told
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in waiting)
    manager.now = DONE
    _, others = await asyncio.wait(waiting, timeout=1.0)
    assert len(others) == 3
    manager.news.set()
    assert {each.jobs for each in await asyncio.gather(*waiting)} == {(DONE,)}
    assert (manager.most, manager.waiting) == (3, 0)


async def test_who_does_not_wait_needs_no_place(manager: Patient, watch: JobWatch) -> None:
    waiting = [asyncio.create_task(watch.show(WAIT)) for _ in range(3)]
    await asyncio.sleep(0)
    shown = await asyncio.wait_for(watch.show(api.ShowJob(job=JobId("j1"))), 1.0)
    assert shown.jobs == (RUNNING,)
    manager.news.set()
    await asyncio.gather(*waiting)


async def test_a_wait_is_no_longer_than_was_asked(manager: Patient, watch: JobWatch) -> None:
    waiting = [asyncio.create_task(watch.show(WAIT)) for _ in range(3)]
    await asyncio.sleep(0)
    short = api.ShowJob(job=JobId("j1"), wait_s=0.05)
    assert (await asyncio.wait_for(watch.show(short), 1.0)).jobs == (RUNNING,)
    manager.news.set()
    await asyncio.gather(*waiting)


async def test_the_hosts_own_jobs_wait_there_too(manager: Patient, watch: JobWatch) -> None:
    """Those past the bound are looked at, and so no later than others told of."""
    for number in range(10):
        watch.track(job(name=f"j{number}"))
    await asyncio.sleep(0.1)
    assert manager.most == 3
    await watch.close()


@pytest.mark.parametrize("own", [True, False])
async def test_what_was_seen_by_the_bus_is_the_job_as_it_is(
    manager: Patient, watch: JobWatch, own: bool
) -> None:
    """D-Bus has whole microseconds: less than one is no news, else a wait would be none."""
    manager.now = begun = job(started_s=1764485601.1234567)
    seen = record_in(Job, record_out(begun))
    assert seen != begun
    if own:
        watch.track(begun)
    waiting = [asyncio.create_task(watch.show(api.ShowJob(job=begun.id, wait_s=20.0, seen=seen)))]
    for _ in range(3):  # the last one looks by itself
        waiting += [asyncio.create_task(watch.show(msgspec.structs.replace(WAIT, seen=seen)))]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in waiting)
    manager.now = DONE
    manager.news.set()
    assert {each.jobs for each in await asyncio.gather(*waiting)} == {(DONE,)}
    await watch.close()
