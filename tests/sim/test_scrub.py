"""Scrubs: what differs between a volume's copies is found, and repaired where it can be decided."""

import asyncio
from dataclasses import replace

import pytest

from tests.sim import loop
from tests.sim.cluster import POLICY, TUNING, SimCluster, data_grain
from tests.sim.fake_array import FakeArray
from tests.sim.fake_disks import FakeMedia
from vastskyd.core import answers, api
from vastskyd.core.errors import BusyError, ConflictError
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import Job, JobKind, JobState
from vastskyd.core.units import MIB

LIMIT_S = 4000.0
VOLUME_GRAINS = 40


async def attached(
    seed: int = 1, copies: int = 3, head: str = "h1", **settings: object
) -> SimCluster:
    cluster = SimCluster(seed, **settings)  # type: ignore[arg-type]
    await cluster.enrol_all()
    await cluster.create(size_bytes=VOLUME_GRAINS * MIB, copies=copies)
    await cluster.attach(head=head)
    for grain in range(0, VOLUME_GRAINS, 3):
        assert await cluster.checker.write(head, "v", grain)
    await asyncio.sleep(15)  # the bitmaps are clean
    return cluster


def leg_of(cluster: SimCluster, segment: int, number: int) -> tuple[ExtentId, FakeMedia, int]:
    """The leg, the medium that has it, and the first grain of its data there."""
    state = cluster.state()
    leg = cluster.state_of("v").segments[segment].legs[number]
    extent = state.extents[leg.extent]
    disk = state.disks[extent.disk]
    media = next(
        m for h in cluster.world.hosts.values() for m in h.media if m.serial == disk.serial
    )
    return leg.extent, media, data_grain(extent)


def flip(cluster: SimCluster, segment: int, number: int, *at_bytes: int) -> None:
    """A bit of each of these bytes of a leg's data, behind everybody's back."""
    _, media, first = leg_of(cluster, segment, number)
    for at in at_bytes:
        grain = first + at // MIB
        was = media.data.get(grain, 0)
        media.data[grain] = cluster.world.contents.flipped(at % MIB, was)


def data(cluster: SimCluster) -> list[list[dict[int, int]]]:
    """By segment and leg: the numbers of its grains."""
    found = []
    for segment in cluster.state_of("v").segments:
        legs = []
        for number in range(len(segment.legs)):
            _, media, first = leg_of(cluster, segment.index, number)
            grains = segment.length_bytes // MIB
            legs.append({g: media.data.get(first + g, 0) for g in range(grains)})
        found.append(legs)
    return found


def all_equal(cluster: SimCluster) -> bool:
    return all(leg == legs[0] for legs in data(cluster) for leg in legs)


async def scrub(cluster: SimCluster) -> Job:
    return await cluster.do(api.ScrubVolume(volume="v"), 600)


def arrays(cluster: SimCluster, host: str = "h1") -> list[FakeArray]:
    blocks = cluster.world.hosts[host].kernel.blocks.values()
    return [block for block in blocks if isinstance(block, FakeArray)]


def test_nothing_flipped_nothing_changed() -> None:
    async def main() -> None:
        cluster = await attached()
        before = data(cluster)
        job = await scrub(cluster)
        assert job.kind is JobKind.SCRUB
        assert job.message == "no difference in 40.0 MiB"
        assert job.done_bytes == job.total_bytes == 40 * MIB
        assert data(cluster) == before
        view = await cluster.volume("v")
        assert view.scrubbed is not None
        assert view.scrubbed.checked_bytes == 40 * MIB
        assert view.scrubbed.message == job.message
        assert "scrub-repaired" not in await cluster.events()
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()
        cluster.world.check()

    loop.run(main(), LIMIT_S)


@pytest.mark.parametrize("leg", [0, 1, 2])
def test_of_three_copies_the_majority_is_right(leg: int) -> None:
    async def main() -> None:
        cluster = await attached()
        before = data(cluster)
        flip(cluster, 0, leg, 3 * MIB + 5000, 3 * MIB + 8192)
        flip(cluster, 1, leg, 7)
        flip(cluster, 2, (leg + 1) % 3, 8 * MIB - 1)
        assert data(cluster) != before
        job = await scrub(cluster)
        assert job.message == "16.0 KiB differed and were repaired from the majority"
        assert data(cluster) == before
        events = await cluster.events()
        assert events.count("scrub-repaired") == 3
        status = await cluster.status()
        assert status.health == "ok", status.problems
        assert (await scrub(cluster)).message == "no difference in 40.0 MiB"
        await cluster.checker.read_all("h1", "v")
        assert not any(array.held != (0, 0) for array in arrays(cluster))
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_of_two_copies_nobody_knows_which_is_right() -> None:
    async def main() -> None:
        cluster = await attached(copies=2)
        flip(cluster, 1, 0, 2 * MIB + 9000)
        before = data(cluster)
        for _ in range(2):
            job = await scrub(cluster)
            assert job.message.startswith("4.0 KiB differ and cannot be decided: check the data")
            assert data(cluster) == before, "undecided is untouched"
            status = await cluster.status()
            assert status.health == "degraded"
            assert any("4.0 KiB differ" in problem for problem in status.problems)
            view = await cluster.volume("v")
            assert view.health == "redundant"
            assert "cannot be decided" in view.message
        events: answers.EventList = await cluster.ask(api.ListEvents())
        said = [event.message for event in events.events if event.kind == "scrub-undecided"]
        assert len(said) == 2
        at = cluster.state_of("v").segments[0].length_bytes + 2 * MIB
        assert f"the first at byte {at + 8192} of the volume" in said[0]
        # Written anew, both copies are the same.
        assert await cluster.checker.write("h1", "v", at // MIB)
        assert (await scrub(cluster)).message == "no difference in 40.0 MiB"
        assert (await cluster.status()).health == "ok"
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_three_different_copies_have_no_majority() -> None:
    async def main() -> None:
        cluster = await attached()
        flip(cluster, 0, 0, 0)
        flip(cluster, 0, 1, 1)
        flip(cluster, 0, 2, 4096)
        job = await scrub(cluster)
        assert "4.0 KiB differed and were repaired" in job.message
        assert "4.0 KiB differ and cannot be decided" in job.message
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_writes_meanwhile_are_no_difference() -> None:
    async def main() -> None:
        cluster = await attached(policy=replace(POLICY, sync_rate_max_kib_s=2000))
        writers = [
            cluster.spawn(cluster.checker.keep_writing("h1", "v", VOLUME_GRAINS, 0.01))
            for _ in range(3)
        ]
        assert (await scrub(cluster)).message == "no difference in 40.0 MiB"
        for writer in writers:
            writer.cancel()
        await asyncio.sleep(5)
        await cluster.checker.read_all("h1", "v")
        assert all_equal(cluster)
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_writes_where_a_difference_is_looked_for_are_none() -> None:
    async def main() -> None:
        cluster = await attached()
        flip(cluster, 0, 1, 12 * MIB)
        known = len(cluster.world.trace)
        writers = [cluster.spawn(_rewrite(cluster, grain)) for grain in range(12)]
        assert (await scrub(cluster)).message == (
            "4.0 KiB differed and were repaired from the majority"
        )
        held = [line for line in cluster.world.trace[known:] if line.endswith("hold_writes")]
        assert len(held) > 1, "no write was caught on its way"
        for writer in writers:
            writer.cancel()
        await asyncio.sleep(5)
        await cluster.checker.read_all("h1", "v")
        assert all_equal(cluster)
        cluster.world.check()

    loop.run(main(), LIMIT_S)


async def _rewrite(cluster: SimCluster, grain: int) -> None:
    while True:
        await cluster.checker.write("h1", "v", grain)
        await asyncio.sleep(0.003)


def test_refusals() -> None:
    async def main() -> None:
        cluster = await attached(copies=2)
        await cluster.start_job(api.ScrubVolume(volume="v"))
        with pytest.raises(BusyError, match="is being scrubbed"):
            await cluster.ask(api.ScrubVolume(volume="v"))
        await cluster.create("one", 8 * MIB, 1)
        await cluster.attach("one")
        with pytest.raises(ConflictError, match="one copy"):
            await cluster.ask(api.ScrubVolume(volume="one"))
        await cluster.create("idle", 8 * MIB, 2)
        with pytest.raises(ConflictError, match="not attached"):
            await cluster.ask(api.ScrubVolume(volume="idle"))

    loop.run(main(), LIMIT_S)


async def begun(cluster: SimCluster, what: str) -> Job:
    """A scrub that has passed this point of a port."""
    known = len(cluster.world.trace)
    job = await cluster.start_job(api.ScrubVolume(volume="v"))
    await cluster.until(
        what, 120, lambda: any(line.endswith(what) for line in cluster.world.trace[known:])
    )
    return job


def test_detached_meanwhile() -> None:
    async def main() -> None:
        cluster = await attached(policy=replace(POLICY, sync_rate_max_kib_s=500))
        job = await begun(cluster, "h1 md.check_status.done")
        await cluster.detach()
        ended = await cluster.job(job)
        assert ended.state is JobState.FAILED
        assert "was detached meanwhile" in ended.message
        assert not arrays(cluster)
        await cluster.delete()
        await cluster.nothing_left()
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_moved_meanwhile() -> None:
    async def main() -> None:
        cluster = await attached(policy=replace(POLICY, sync_rate_max_kib_s=500))
        job = await begun(cluster, "h1 md.check_status.done")
        await cluster.do(api.FailoverVolume(volume="v", head="h2"))
        ended = await cluster.job(job)
        assert ended.state is JobState.FAILED
        assert "was moved to h2 meanwhile" in ended.message
        await cluster.until("h1 has nothing", 60, lambda: not arrays(cluster))
        flip(cluster, 0, 2, 0)
        assert "repaired" in (await scrub(cluster)).message
        cluster.world.check()

    loop.run(main(), LIMIT_S)


@pytest.mark.parametrize(
    "point",
    [
        "md.start_check.done",
        "md.check_status.done",
        "md.read_leg.done",
        "md.hold_writes",
        "md.hold_writes.done",
        "md.write_leg",
        "md.write_leg.done",
        "md.release_writes",
        "md.release_writes.done",
    ],
)
def test_the_head_daemon_dies_in_the_middle(point: str) -> None:
    async def main() -> None:
        cluster = await attached()
        before = data(cluster)
        flip(cluster, 0, 0, 3 * MIB)
        flip(cluster, 2, 1, 5 * MIB)
        job = await begun(cluster, f"h1 {point}")
        cluster.world.kill_daemon("h1")
        ended = await cluster.job(job)
        assert ended.state is JobState.DONE
        assert "cannot be decided" not in ended.message
        assert data(cluster) == before
        held = lambda: not any(array.held != (0, 0) for array in arrays(cluster))  # noqa: E731
        await cluster.until("nothing is held", 10, held)
        for grain in range(VOLUME_GRAINS):
            async with asyncio.timeout(5):
                assert await cluster.checker.write("h1", "v", grain)
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_the_manager_is_restarted_in_the_middle() -> None:
    async def main() -> None:
        policy = replace(POLICY, sync_rate_max_kib_s=1000)
        cluster = await attached(policy=policy, head="h2")
        flip(cluster, 2, 0, 5)
        known = len(cluster.world.trace)
        job = await begun(cluster, "h2 md.check_status.done")
        for _ in range(4):
            await asyncio.sleep(7)
            cluster.world.kill_daemon("h1")
        ended = await cluster.job(job)
        assert ended.message == "4.0 KiB differed and were repaired from the majority"
        starts = [line for line in cluster.world.trace[known:] if "md.start_check.done" in line]
        assert len(starts) == 3, "each segment is checked once"
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_a_rebuild_goes_first() -> None:
    async def main() -> None:
        policy = replace(POLICY, sync_rate_max_kib_s=1000, rebuild_delay_s=5.0)
        cluster = await attached(policy=policy, copies=2)
        await cluster.create("w", 8 * MIB, 3)
        await cluster.attach("w")
        assert await cluster.checker.write("h1", "w", 0)
        job = await begun(cluster, "h1 md.check_status.done")
        # All three disks have a leg of w; the one that returns has much to catch up on.
        cluster.world.power_cut("s3")
        await cluster.until("w is degraded", 60, lambda: _is(cluster, "degraded", "w"))
        for grain in range(8):
            assert await cluster.checker.write("h1", "w", grain)
        cluster.power_on("s3")
        await cluster.until("w is rebuilt", 60, lambda: _is(cluster, "rebuilding", "w"))
        await asyncio.sleep(2)
        checks = [a for a in arrays(cluster) if a.sync_action == "check"]
        assert not checks
        assert await _says(cluster, job, "waits: ")
        assert (await cluster.job(job)).message == "no difference in 40.0 MiB"
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_a_lost_leg_is_waited_for() -> None:
    async def main() -> None:
        policy = replace(POLICY, sync_rate_max_kib_s=4000)
        cluster = await attached(copies=2, policy=policy)
        job = await begun(cluster, "h1 md.check_status.done")
        _, media, _ = leg_of(cluster, 0, 0)
        host = next(n for n, h in cluster.world.hosts.items() if media in h.media)
        cluster.world.power_cut(host)
        waits = lambda: _says(cluster, job, "waits: segment 0 has 1 of 2 legs")  # noqa: E731
        await cluster.until("it waits", 60, waits)
        cluster.power_on(host)
        ended = await cluster.job(job)
        assert ended.message == "no difference in 40.0 MiB"
        cluster.world.check()

    loop.run(main(), LIMIT_S)


async def _says(cluster: SimCluster, job: Job, text: str) -> bool:
    shown: answers.JobList = await cluster.ask(api.ShowJob(job=job.id))
    return text in shown.jobs[0].message


def test_what_stays_degraded_is_left_out() -> None:
    async def main() -> None:
        cluster = await attached(copies=3)
        cluster.world.power_cut("s3")
        await cluster.until("degraded", 60, lambda: _is(cluster, "degraded"))
        ended = await cluster.job(await cluster.start_job(api.ScrubVolume(volume="v")))
        assert ended.state is JobState.FAILED
        assert ended.message == (
            "segments left out: 0, 1, 2, the last because"
            " segment 2 has 2 of 3 legs in sync and at work"
        )
        cluster.world.check()

    loop.run(main(), 3 * LIMIT_S)


async def _is(cluster: SimCluster, health: str, name: str = "v") -> bool:
    return (await cluster.volume(name)).health == health


def test_scheduled() -> None:
    async def main() -> None:
        cluster = await attached(policy=replace(POLICY, scrub_interval_s=300.0))
        flip(cluster, 0, 0, 3 * MIB)
        assert (await cluster.volume("v")).scrubbed is None
        await cluster.until("it is scrubbed", 400, lambda: _is_scrubbed(cluster, "repaired"))
        await asyncio.sleep(700)
        state = cluster.state()
        jobs = [job for job in state.jobs.values() if job.kind is JobKind.SCRUB]
        assert [job.message for job in sorted(jobs, key=lambda job: job.started_s)] == [
            "4.0 KiB differed and were repaired from the majority",
            "no difference in 40.0 MiB",
            "no difference in 40.0 MiB",
        ]
        cluster.world.check()

    loop.run(main(), LIMIT_S)


def test_never_until_the_setting_changes() -> None:
    async def main() -> None:
        cluster = await attached(policy=replace(POLICY, scrub_interval_s=0.0))
        await asyncio.sleep(1000)
        assert not any(job.kind is JobKind.SCRUB for job in cluster.state().jobs.values())
        cluster.members["h1"].retune(replace(POLICY, scrub_interval_s=60.0), TUNING)
        await cluster.until("it is scrubbed", 30, lambda: _is_scrubbed(cluster, "no difference"))
        cluster.world.check()

    loop.run(main(), LIMIT_S)


async def _is_scrubbed(cluster: SimCluster, text: str) -> bool:
    result = (await cluster.volume("v")).scrubbed
    return result is not None and text in result.message
