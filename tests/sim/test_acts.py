"""What is asked to be changed: only tried, asked twice, cancelled; by whom; why it would fit."""

import pytest

from tests.sim import loop
from tests.sim.cluster import SimCluster
from tests.sim.test_cluster import attached, simulate
from vastskyd.core import answers, api
from vastskyd.core.errors import ConflictError, ExistsError, InvalidError, NoSpaceError
from vastskyd.core.ids import JobId, NodeId
from vastskyd.core.model import Job, JobKind, JobState
from vastskyd.core.units import MIB
from vastskyd.roles import acts

CREATE = api.CreateVolume(name="v", size_bytes=24 * MIB, asked_by="root on h1")


def test_who_asked_is_noted_and_the_cluster_asks_too() -> None:
    async def body(cluster: SimCluster) -> None:
        job = await cluster.do(CREATE)
        assert job.started_by == "root on h1"
        await cluster.attach(head="h1")
        assert (await _jobs(cluster, JobKind.ATTACH))[-1].started_by == ""

    simulate(body, lambda: SimCluster(1))


def test_a_dry_run_checks_and_changes_nothing() -> None:
    async def body(cluster: SimCluster) -> None:
        commits = cluster.world.stores["h1"].commits
        tried = api.CreateVolume(name="v", size_bytes=24 * MIB, dry_run=True, idempotency_key="k")
        answer: api.JobStarted = await cluster.ask(tried)
        assert (answer.job.id, answer.job.about) == ("", "v")
        with pytest.raises(NoSpaceError):
            await cluster.ask(api.CreateVolume(name="v", size_bytes=2**40, dry_run=True))
        assert cluster.world.stores["h1"].commits == commits
        await cluster.do(CREATE)
        with pytest.raises(ExistsError):
            await cluster.ask(tried)
        await cluster.ask(api.DeleteVolume(volume="v", dry_run=True))
        assert cluster.available("v")
        await cluster.ask(api.DeleteVolume(volume="v", idempotency_key="k"))  # "k" is still new

    simulate(body, lambda: SimCluster(2))


def test_the_same_key_twice_is_done_once_also_by_the_next_manager() -> None:
    async def body(cluster: SimCluster) -> None:
        keyed = api.CreateVolume(name="v", size_bytes=24 * MIB, idempotency_key="k1")
        first = await cluster.start_job(keyed)
        assert [each.job for each in cluster.state().remembered.values()] == [first.id]
        assert (await cluster.start_job(keyed)).id == first.id
        cluster.world.kill_daemon("h1")
        assert (await cluster.start_job(keyed)).id == first.id
        assert (await cluster.job(first)).state is JobState.DONE
        await cluster.delete()
        assert (await cluster.start_job(keyed)).id == first.id  # done once, though it is gone
        with pytest.raises(ConflictError, match="another request"):
            await cluster.ask(api.CreateVolume(name="w", size_bytes=24 * MIB, idempotency_key="k1"))
        with pytest.raises(InvalidError, match="takes no idempotency key"):
            await cluster.ask(api.CreateToken(roles=(), idempotency_key="k1"))
        with pytest.raises(InvalidError, match="printable"):
            await cluster.ask(api.RemoveNode(node=NodeId("h2"), idempotency_key="x" * 129))
        removed = api.RemoveNode(node=NodeId("h2"), idempotency_key="k2")
        assert await cluster.ask(removed) == await cluster.ask(removed) == api.Done()

    simulate(body, lambda: SimCluster(3))


def test_keys_are_remembered_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "REMEMBERED_MAX", 3)

    async def body(cluster: SimCluster) -> None:
        await cluster.do(CREATE)
        for number in range(6):
            await cluster.ask(api.SetStandby(volume="v", heads=(), idempotency_key=f"k{number}"))
        assert sorted(cluster.state().remembered) == ["k3", "k4", "k5"]
        monkeypatch.setattr(acts, "REMEMBERED_S", 0.0)
        other = api.SetStandby(volume="v", heads=(NodeId("h1"),), idempotency_key="k5")
        assert await cluster.ask(other) == api.Done()  # so long ago that it is a new one
        assert not cluster.state().remembered

    simulate(body, lambda: SimCluster(4))


def test_creating_can_be_cancelled() -> None:
    async def body(cluster: SimCluster) -> None:
        cluster.world.power_cut("s1")  # so that it cannot come to its end
        job = await cluster.start_job(api.CreateVolume(name="v", size_bytes=24 * MIB, copies=3))
        await _cancel(cluster, job)
        with pytest.raises(ConflictError, match="has ended already"):
            await cluster.ask(api.CancelJob(job=job.id))
        cluster.power_on("s1")
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(5))


def test_attaching_can_be_cancelled() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(copies=3)
        cluster.world.power_cut("s1")
        cluster.world.power_cut("s2")
        job = await cluster.start_job(api.AttachVolume(volume="v", head=NodeId("h2")))
        await _cancel(cluster, job)
        await cluster.until("it is off its head", 30, lambda: not cluster.owner("v"))
        cluster.power_on("s1", "s2")
        await cluster.attach(head="h1")
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(6))


def test_a_scrub_can_be_cancelled() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        job = await cluster.start_job(api.ScrubVolume(volume="v"))
        await _cancel(cluster, job)
        await cluster.do(api.ScrubVolume(volume="v"), 600)  # its head is free for the next

    simulate(body, lambda: SimCluster(7))


def test_what_would_begin_anew_cannot_be_cancelled() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        (leg,) = cluster.state_of("v").segments[0].legs[:1]
        disk = cluster.state().disk_of(leg.extent)
        assert disk is not None
        cluster.world.power_cut(disk.node)
        await cluster.until("it is rebuilt", 200, lambda: _running(cluster, JobKind.REBUILD))
        (job, *_) = await _jobs(cluster, JobKind.REBUILD)
        with pytest.raises(ConflictError, match="would begin anew"):
            await cluster.ask(api.CancelJob(job=job.id))

    simulate(body, lambda: SimCluster(8))


def test_a_placement_is_explained_disk_by_disk() -> None:
    async def body(cluster: SimCluster) -> None:
        asked = api.ExplainPlacement(size_bytes=32 * MIB, copies=3)
        fits: answers.Placement = await cluster.ask(asked)
        assert fits.fits
        assert all(disk.takes_bytes for disk in fits.disks)
        cluster.world.power_cut("s2")
        await cluster.until("it is missed", 30, lambda: _explained(cluster, asked, fits=False))
        why: answers.Placement = await cluster.ask(asked)
        assert "3 copies need disks" in why.reason
        said = {str(disk.node): disk.reason for disk in why.disks}
        assert said["s2"] == "its node s2 is unreachable"
        assert said["s1"].startswith("has room")

    simulate(body, lambda: SimCluster(9))


def test_lists_come_in_pages() -> None:
    async def main() -> None:
        cluster = SimCluster(10)
        await cluster.enrol_all()
        nodes: list[str] = []
        after = ""
        while True:
            shown: answers.NodeList = await cluster.ask(api.ListNodes(limit=2, after=after))
            nodes += [node.id for node in shown.nodes]
            after = shown.next
            if not after:
                break
        assert nodes == ["h1", "h2", "s1", "s2", "s3"]
        jobs = await cluster.ask(api.ListJobs(limit=1))
        later = await cluster.ask(api.ListJobs(after=jobs.next))
        assert len({job.id for job in (*jobs.jobs, *later.jobs)}) == 3

    loop.run(main(), 600)


async def _cancel(cluster: SimCluster, job: Job) -> None:
    await cluster.ask(api.CancelJob(job=JobId(job.id)))
    ended = await cluster.job(job)
    assert (ended.state, ended.error_code) == (JobState.FAILED, "Cancelled")


async def _jobs(cluster: SimCluster, kind: JobKind) -> list[Job]:
    shown: answers.JobList = await cluster.ask(api.ListJobs())
    return [job for job in shown.jobs if job.kind is kind]


async def _running(cluster: SimCluster, kind: JobKind) -> bool:
    return any(job.state is JobState.RUNNING for job in await _jobs(cluster, kind))


async def _explained(cluster: SimCluster, asked: api.ExplainPlacement, *, fits: bool) -> bool:
    answer: answers.Placement = await cluster.ask(asked)
    return answer.fits is fits
