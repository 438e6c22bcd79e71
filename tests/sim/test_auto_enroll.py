"""Disks that are plugged in: taken in by themselves if that was asked for and nothing is on them,
announced if they are somebody's, and else left alone."""

import asyncio
import re
from dataclasses import replace

import msgspec
import pytest

from tests.sim.cluster import TUNING, SimCluster
from tests.sim.fake_disks import FAILING, DiskBlock, FakeMedia, empty_slots
from tests.sim.test_cluster import simulate
from vastskyd.core import answers, api
from vastskyd.core.description import DiskDescription
from vastskyd.core.errors import ConflictError
from vastskyd.core.ids import ClusterId, DiskId, NodeId
from vastskyd.core.model import Event, JobKind, JobState
from vastskyd.core.offers import TRIES_MAX, match
from vastskyd.core.units import MIB
from vastskyd.ondisk.codec import encode

PATTERN = "/dev/disk/by-id/new-*"
PATH = "/dev/disk/by-id/new-1"
OLD = DiskId("0123456789abcdef")


def disk(serial: str = "new-1") -> FakeMedia:
    return FakeMedia(serial, 128 * MIB)


def described(cluster: str = "f" * 16) -> FakeMedia:
    media = disk()
    description = DiskDescription(
        cluster=ClusterId(cluster), cluster_name="prod", disk=OLD,
        area_start_bytes=4 * MIB, area_end_bytes=127 * MIB,
    )  # fmt: skip
    media.slots = [encode(description, 1), b""]
    return media


def ask_for(cluster: SimCluster, *patterns: str) -> None:
    """As vastskyd.toml of all hosts says it."""
    cluster.tuning = replace(TUNING, auto_enroll=patterns)
    for member in cluster.members.values():
        member.retune(cluster.policy, cluster.tuning)


async def settle(cluster: SimCluster) -> None:
    await asyncio.sleep(15)


async def plug(cluster: SimCluster, *media: FakeMedia) -> None:
    for each in media:
        cluster.world.hosts["s1"].insert(each)
    await settle(cluster)


async def shown(cluster: SimCluster, path: str = PATH) -> answers.DiskView:
    """To who asks the manager, and to who asks the host."""
    listed: answers.DiskList = await cluster.ask(api.ListDisks(disk=f"s1:{path}"))
    assert listed.disks[0] in cluster.members["s1"].local_disks()
    return listed.disks[0]


async def said(cluster: SimCluster, kind: str) -> list[Event]:
    listed: answers.EventList = await cluster.ask(api.ListEvents(limit=1000))
    return [event for event in listed.events if event.kind == kind]


# --- by themselves --------------------------------------------------------------------------


def test_an_empty_disk_that_matches_is_taken_in() -> None:
    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, "/dev/disk/by-id/other-*", PATTERN)
        media = disk()
        await plug(cluster, media)
        assert (await shown(cluster)).state == "online"
        assert media.is_member()
        event = (await said(cluster, "disk-enrolled"))[-1]
        assert "by itself" in event.message
        assert PATH in event.message
        jobs = [j for j in cluster.state().jobs.values() if j.about == f"s1:{PATH}"]
        assert [(job.state, job.started_by) for job in jobs] == [(JobState.DONE, "")]

    simulate(body, lambda: SimCluster(91))


def test_what_does_not_match_is_offered_and_no_more() -> None:
    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, "/dev/disk/by-id/other-*")
        await plug(cluster, disk())
        view = await shown(cluster)
        assert (view.state, view.message) == ("candidate", "")
        ask_for(cluster, PATTERN)  # a reload is enough
        await settle(cluster)
        assert (await shown(cluster)).state == "online"

    simulate(body, lambda: SimCluster(92))


def test_several_at_once_are_all_taken_in() -> None:
    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, PATTERN)
        await plug(cluster, *(disk(f"new-{number}") for number in range(4)))
        for number in range(4):
            assert (await shown(cluster, f"/dev/disk/by-id/new-{number}")).state == "online"

    simulate(body, lambda: SimCluster(93))


def test_a_disk_is_known_by_all_its_names() -> None:
    """It was enrolled by the kernel's: that names it afterwards, too."""

    async def body(cluster: SimCluster) -> None:
        await plug(cluster, disk())
        blocks = cluster.world.hosts["s1"].kernel.blocks.values()
        (by_kernel,) = [
            block.path
            for block in blocks
            if isinstance(block, DiskBlock) and block.stable_path == PATH
        ]
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path=by_kernel))
        await settle(cluster)
        for path in (PATH, by_kernel):
            assert (await shown(cluster, path)).state == "online"
            again = api.EnrolDisk(node=NodeId("s1"), path=path, wipe=True)
            job = await cluster.start_job(again)
            assert job.state is JobState.DONE, "it is as asked"
            assert re.search("is enrolled already, as disk .*; nothing was wiped", job.message)
            await cluster.ask(msgspec.structs.replace(again, dry_run=True))
        await cluster.do(api.RetireDisk(disk=f"s1:{by_kernel}"))

    simulate(body, lambda: SimCluster(102))


def test_a_disk_with_something_on_it_is_not_touched() -> None:
    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, PATTERN)
        media = disk()
        media.found = "GPT partition table"
        await plug(cluster, media)
        view = await shown(cluster)
        assert (view.state, view.message) == ("candidate", "GPT partition table")
        assert not media.is_member()
        assert not [j for j in cluster.state().jobs.values() if j.about == f"s1:{PATH}"]

    simulate(body, lambda: SimCluster(94))


@pytest.mark.parametrize("grain", [2, 127], ids=["start", "end"])
def test_what_no_signature_tells_of_is_not_touched_either(grain: int) -> None:
    """Nobody asked for it, so it must read as zeros. It is tried some times, and that is said."""

    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, PATTERN)
        media = disk()
        media.data[grain] = 77
        await plug(cluster, media)
        cluster.world.kill_daemon("h1")  # the manager; it counts on from where it was
        await asyncio.sleep(400)
        assert media.data == {grain: 77}
        assert not media.is_member()
        view = await shown(cluster)
        assert view.state == "candidate"
        assert f"refused {TRIES_MAX} times: {PATH} is not new" in view.message
        jobs = [j for j in cluster.state().jobs.values() if j.about == f"s1:{PATH}"]
        assert [job.state for job in jobs] == [JobState.FAILED] * TRIES_MAX
        (refused,) = await said(cluster, "disk-refused")
        assert refused.message.endswith(
            f"; on s1: to take it all the same: `vastskyctl disk enrol {PATH}`"
        )
        # Asked for, it is taken: no signature is on it.
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path=PATH))
        assert media.is_member()

    simulate(body, lambda: SimCluster(95))


def test_a_disk_that_was_refused_is_tried_again_when_it_is_plugged_again() -> None:
    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, PATTERN)
        media = disk()
        media.data[1] = 77
        await plug(cluster, media)
        await asyncio.sleep(300)
        assert cluster.state().candidates
        cluster.world.hosts["s1"].pull("new-1")
        await settle(cluster)
        assert not cluster.state().candidates
        media.data.clear()
        await plug(cluster, media)
        assert (await shown(cluster)).state == "online"

    simulate(body, lambda: SimCluster(96))


def test_a_disk_that_says_that_it_is_failing_is_not_taken_in() -> None:
    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, PATTERN)
        media = disk()
        media.smart = FAILING
        await plug(cluster, media)
        await asyncio.sleep(300)
        assert not media.is_member()
        assert "SMART" in (await shown(cluster)).message

    simulate(body, lambda: SimCluster(97))


def test_a_retired_disk_is_not_taken_in_again() -> None:
    """Not as it is, and not when it was made empty; only if somebody says so. Then it is as new."""

    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, PATTERN)
        media = disk()
        await plug(cluster, media)
        await cluster.do(api.RetireDisk(disk=f"s1:{PATH}"))
        await settle(cluster)
        view = await shown(cluster)
        assert view.state == "candidate"
        assert "which was retired" in view.message
        cluster.world.hosts["s1"].pull("new-1")
        await asyncio.sleep(90)
        await plug(cluster, media)
        assert "was retired" in (await said(cluster, "disk-recognised"))[-1].message
        cluster.world.hosts["s1"].pull("new-1")
        media.slots = empty_slots()
        await settle(cluster)
        await plug(cluster, media)
        view = await shown(cluster)
        assert view.state == "candidate"
        assert "it was retired" in view.message
        assert not media.is_member()
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path=PATH))
        assert not cluster.state().retired

    simulate(body, lambda: SimCluster(98))


def test_a_crash_of_either_side_enrols_it_once() -> None:
    for host in ("h1", "s1"):
        for after_s in (0.8, 1.0, 1.2, 1.4, 1.6):

            async def body(cluster: SimCluster, host: str = host, after_s: float = after_s) -> None:
                ask_for(cluster, PATTERN)
                media = disk()
                cluster.world.hosts["s1"].insert(media)
                await asyncio.sleep(after_s)
                cluster.world.kill_daemon(host)
                await asyncio.sleep(200)
                disks = [d for d in cluster.state().disks.values() if d.serial == "new-1"]
                assert len(disks) == 1, (host, after_s)
                assert (await shown(cluster)).state == "online"
                jobs = cluster.state().jobs.values()
                assert not [
                    job for job in jobs
                    if job.kind is JobKind.ENROL and job.state is JobState.RUNNING
                ]  # fmt: skip

            simulate(body, lambda: SimCluster(99))


# --- disks that are somebody's --------------------------------------------------------------


def test_a_disk_of_another_cluster_is_announced_once_and_left_alone() -> None:
    async def body(cluster: SimCluster) -> None:
        ask_for(cluster, PATTERN)
        media = described()
        before = list(media.slots)
        await plug(cluster, media)
        (event,) = await said(cluster, "disk-recognised")
        assert event.subject == OLD
        assert (
            f"is recognised: disk {OLD} of another cluster, prod (ffffffffffffffff)"
            in event.message
        )
        assert (
            await shown(cluster)
        ).message == f"disk {OLD} of another cluster, prod (ffffffffffffffff)"
        cluster.world.kill_daemon("h1")
        cluster.world.kill_daemon("s1")
        await asyncio.sleep(100)
        assert len(await said(cluster, "disk-recognised")) == 1
        with pytest.raises(ConflictError, match="of another cluster, prod"):
            await cluster.ask(api.EnrolDisk(node=NodeId("s1"), path=PATH))
        assert media.slots == before
        cluster.world.hosts["s1"].pull("new-1")
        await settle(cluster)
        await plug(cluster, media)
        assert len(await said(cluster, "disk-recognised")) == 2

    simulate(body, lambda: SimCluster(100))


def test_a_disk_of_this_cluster_that_the_manager_does_not_know() -> None:
    async def body(cluster: SimCluster) -> None:
        await plug(cluster, described(cluster="c" * 16))
        (event,) = await said(cluster, "disk-recognised")
        assert f"disk {OLD} of this cluster, which the manager does not know" in event.message

    simulate(body, lambda: SimCluster(101))


def test_a_damaged_disk_is_announced() -> None:
    async def body(cluster: SimCluster) -> None:
        media = described()
        media.slots = [media.slots[0][:200] + b"x" + media.slots[0][201:], b""]
        await plug(cluster, media)
        assert "damaged vastsky disk" in (await said(cluster, "disk-recognised"))[-1].message

    simulate(body, lambda: SimCluster(102))


def test_a_disk_that_moves_between_hosts_is_not_announced() -> None:
    """It is this cluster's, and goes on where it is."""

    async def body(cluster: SimCluster) -> None:
        media = cluster.world.hosts["s1"].pull("s1-0")
        await settle(cluster)
        cluster.world.hosts["s2"].insert(media)
        await settle(cluster)
        assert "disk-moved" in await cluster.events()
        assert not await said(cluster, "disk-recognised")

    simulate(body, lambda: SimCluster(103))


def test_patterns() -> None:
    names = (
        "/dev/disk/by-id/nvme-A_1",
        "/dev/disk/by-path/pci-0000:01:00.0-nvme-1",
        "/dev/nvme0n1",
    )
    assert match(("/dev/disk/by-id/ata-*", "/dev/disk/by-path/pci-0000:01:*"), names) != ""
    assert match(("/dev/disk/by-id/NVME-*",), names) == ""
    assert match((), names) == ""
