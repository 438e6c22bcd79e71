"""The real daemons in a simulated cluster: what happens, and what goes wrong, one at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.sim import loop
from tests.sim.cluster import APART, TOGETHER, Shape, SimCluster, data_grain
from tests.sim.faults import Fault, FaultKind, FaultPlan, NoFaults, ScriptedFaults
from vastskyd.core import answers, api
from vastskyd.core.errors import BusyError, ConflictError, NotFoundError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import DiskState, JobState, Role
from vastskyd.core.units import MIB

LIMIT_S = 3600.0


def simulate(
    body: Callable[[SimCluster], Awaitable[None]], cluster: Callable[[], SimCluster]
) -> None:
    async def main() -> None:
        made = cluster()
        await made.enrol_all()
        await body(made)
        made.world.check()

    loop.run(main(), LIMIT_S)


@pytest.mark.parametrize("shape", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_from_disks_to_a_volume_and_back(shape: Shape, copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        first, second = cluster.heads[:2]
        await cluster.create(copies=copies)
        await cluster.attach(head=first)
        for number in range(40):
            assert await cluster.checker.write(first, "v", number)
        await cluster.checker.read_all(first, "v")
        assert await cluster.redundant()
        await cluster.detach()
        await cluster.attach(head=second)
        await cluster.checker.read_all(second, "v")
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()
        assert (await cluster.status()).health == "ok"

    simulate(body, lambda: SimCluster(1, shape))


@pytest.mark.parametrize("seed", range(4))
def test_an_array_that_is_put_together_or_taken_apart_has_lost_nothing(seed: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(copies=3)
        for number in range(20):
            head = cluster.heads[number % 2]
            await cluster.attach(head=head)
            await cluster.checker.write(head, "v", number)
            await cluster.detach()
        assert not {"leg-lost", "leg-in-sync"} & set(await cluster.events())
        assert await cluster.redundant()

    simulate(body, lambda: SimCluster(seed))


def writing(cluster: SimCluster, head: str, grains: int = 40) -> None:
    task = cluster.spawn(cluster.checker.keep_writing(head, "v", grains, 0.2))
    cluster.checker.tasks.append(task)


async def attached(cluster: SimCluster, copies: int = 2, head: str = "h1") -> None:
    await cluster.create(copies=copies)
    await cluster.attach(head=head)
    writing(cluster, head)
    await asyncio.sleep(2)


async def at_the_end(cluster: SimCluster, head: str = "h1") -> None:
    """All that was acknowledged is there, on this head and on another; and all goes away."""
    await cluster.until("redundant", 120, cluster.redundant)
    await cluster.checker.read_all(head, "v")
    for task in cluster.checker.tasks:
        task.cancel()
    await asyncio.sleep(1)
    await cluster.detach()
    other = next(name for name in cluster.heads if name != head)
    await cluster.attach(head=other)
    await cluster.checker.read_all(other, "v")
    await cluster.detach()
    await cluster.delete()
    await cluster.nothing_left()


async def health(cluster: SimCluster, *words: str) -> bool:
    return (await cluster.volume("v")).health in words


async def legs_on(cluster: SimCluster, node: str) -> int:
    view = await cluster.volume("v")
    return sum(leg.node == node for segment in view.segments for leg in segment.legs)


@pytest.mark.parametrize("copies", [2, 3])
def test_a_storage_host_without_power_is_replaced(copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies)
        cluster.world.power_cut("s1")
        took_s = await cluster.until(
            "degraded is seen", 10, lambda: health(cluster, "degraded", "stalled")
        )
        assert took_s < 10
        await cluster.until("writes go on", 15, lambda: health(cluster, "degraded"))
        before = cluster.checker.acknowledged
        await asyncio.sleep(2)
        assert cluster.checker.acknowledged > before + 5
        if copies == 2:
            await cluster.until("rebuilt elsewhere", 90, cluster.redundant)
            assert await legs_on(cluster, "s1") == 0
        else:  # no third node is left
            await asyncio.sleep(90)
            assert await health(cluster, "degraded")
        cluster.power_on("s1")
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(2))


def test_a_storage_host_that_returns_soon_brings_its_legs_back() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        there = await legs_on(cluster, "s1")
        assert there
        cluster.world.power_cut("s1")
        await cluster.until("degraded is seen", 15, lambda: health(cluster, "degraded"))
        await asyncio.sleep(5)
        cluster.power_on("s1")
        await cluster.until("redundant", 60, cluster.redundant)
        assert await legs_on(cluster, "s1") == there
        assert "leg-replaced" not in await cluster.events()
        jobs: answers.JobList = await cluster.ask(api.ListJobs())
        returned = [job for job in jobs.jobs if job.kind == "rebuild"]
        assert len(returned) == there
        assert all(" were written to it" in job.message for job in returned)
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(3))


def test_a_pulled_disk_is_rebuilt_elsewhere_at_once() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        media = cluster.world.hosts["s1"].pull("s1-0")
        await cluster.until("it is seen", 10, lambda: health(cluster, "degraded", "rebuilding"))
        await cluster.until("rebuilt elsewhere", 30, cluster.redundant)
        assert await legs_on(cluster, "s1") == 0
        cluster.world.hosts["s1"].insert(media)
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(4))


def test_a_disk_that_moves_to_another_host_takes_its_data_along() -> None:
    """From a host that lives, while its volume is detached; then from one that is dead."""

    async def body(cluster: SimCluster) -> None:
        hosts = cluster.world.hosts
        await attached(cluster)
        for task in cluster.checker.tasks:
            task.cancel()
        await asyncio.sleep(1)
        await cluster.detach()
        assert await legs_on(cluster, "s1")
        hosts["s2"].insert(hosts["s1"].pull("s1-0"))
        await cluster.until("it is known", 20, lambda: "disk-moved" in _kinds(cluster))
        assert not await legs_on(cluster, "s1")
        await cluster.until("by its lasting name", 10, lambda: _shown(cluster, "s1-0"))
        await cluster.attach()
        await cluster.checker.read_all("h1", "v")
        writing(cluster, "h1")
        cluster.world.power_cut("s2")
        # Both legs of a segment may have come to be on s2: then writes wait.
        await cluster.until("it is seen", 15, lambda: health(cluster, "degraded", "stalled"))
        hosts["s1"].insert(hosts["s2"].pull("s1-0"))
        await cluster.until("it is back", 30, lambda: legs_on(cluster, "s1"))
        cluster.power_on("s2")
        await cluster.until("redundant", 60, cluster.redundant)
        assert "leg-replaced" not in await cluster.events()
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(41))


def _shown(cluster: SimCluster, serial: str) -> bool:
    (disk,) = (disk for disk in cluster.state().disks.values() if disk.serial == serial)
    return disk.path == f"/dev/disk/by-id/{serial}"


def _kinds(cluster: SimCluster) -> set[str]:
    return {event.kind for event in cluster.state().events.values()}


@pytest.mark.parametrize("seed", range(6))
def test_a_disk_pulled_under_writes_is_missing_and_not_failed(seed: int) -> None:
    """Its description is to be written just then, before anybody has seen that it is gone."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        await cluster.attach(head="n2")
        writing(cluster, "n2")
        await asyncio.sleep(2)
        host = cluster.world.hosts["n2"]
        host.kernel.notify()  # disks were looked at just now, and are not so soon again
        await asyncio.sleep(seed / 10)
        media = host.pull("n2-0")
        await asyncio.sleep(10)
        (disk,) = [d for d in cluster.state().disks.values() if d.serial == "n2-0"]
        assert disk.state is DiskState.MISSING, disk
        host.insert(media)
        await cluster.until(
            "it is used again", 20, lambda: cluster.state().disks[disk.id].state == "online"
        )
        await at_the_end(cluster, "n2")

    simulate(body, lambda: SimCluster(seed, TOGETHER))


@pytest.mark.parametrize("away_s", [0.2, 10.0])
def test_a_disk_that_was_pulled_and_plugged_in_again_serves_again(away_s: float) -> None:
    """Soon enough, and nobody used it meanwhile: the legs on it are whole."""

    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        await cluster.attach()
        for number in range(40):
            assert await cluster.checker.write("h1", "v", number)
        await cluster.detach()
        there = await legs_on(cluster, "s1")
        assert there
        host = cluster.world.hosts["s1"]
        media = host.pull("s1-0")
        await asyncio.sleep(away_s)
        host.insert(media)
        await asyncio.sleep(5)
        await cluster.attach()
        await cluster.until("redundant", 30, cluster.redundant)
        assert await legs_on(cluster, "s1") == there
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(13))


def test_a_disk_that_fails_is_rebuilt_elsewhere_at_once() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        cluster.world.hosts["s1"].media[0].failed = True
        await cluster.until("it is left", 40, lambda: left(cluster))
        await cluster.until("rebuilt elsewhere", 40, cluster.redundant)
        cluster.world.hosts["s1"].media[0].failed = False
        await cluster.do(api.RetireDisk(disk="s1:/dev/disk/by-id/s1-0"))
        await at_the_end(cluster)

    async def left(cluster: SimCluster) -> bool:
        return await legs_on(cluster, "s1") == 0

    simulate(body, lambda: SimCluster(5))


def test_a_bad_grain_costs_its_extent_only() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        await asyncio.sleep(5)
        media = cluster.world.hosts["s1"].media[0]
        bad = min(grain for grain in media.data if media.data[grain])
        media.bad[bad] = None
        await cluster.until("a leg is lost", 30, lambda: lost_leg(cluster))
        await cluster.until("redundant", 60, cluster.redundant)
        media.bad.clear()
        await asyncio.sleep(60)  # until the extent's wipe is tried again
        await at_the_end(cluster)

    async def lost_leg(cluster: SimCluster) -> bool:
        return "leg-replaced" in await cluster.events()

    simulate(body, lambda: SimCluster(6))


@pytest.mark.parametrize("away_s", [0.7, 20.0])
@pytest.mark.parametrize("head", ["h", "a"])
def test_the_disk_of_the_last_leg_comes_back(head: str, away_s: float) -> None:
    """Pulled and plugged in again, with nothing left to go on with: writes wait, and go on. The
    leg is remote to the one head, and local to the other."""
    shape: Shape = {
        "h": ((Role.MANAGER, Role.HEAD), 0),
        "a": ((Role.STORAGE, Role.HEAD), 1),
        "b": ((Role.STORAGE,), 1),
    }

    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=16 * MIB)
        await cluster.attach(head=head)
        writing(cluster, head, grains=16)
        await asyncio.sleep(2)
        cluster.world.power_cut("b")
        await cluster.until("one leg", 20, lambda: len(_in_sync(cluster)) == 1)
        await asyncio.sleep(3)
        media = cluster.world.hosts["a"].pull("a-0")
        await asyncio.sleep(away_s)
        acknowledged = cluster.checker.acknowledged
        cluster.world.hosts["a"].insert(media)
        await cluster.until(
            "writes go on", 30, lambda: cluster.checker.acknowledged > acknowledged + 5
        )
        await cluster.checker.read_all(head, "v")
        cluster.power_on("b")
        await cluster.until("redundant", 60, cluster.redundant)
        await at_the_end(cluster, head)

    simulate(body, lambda: SimCluster(15, shape))


def _in_sync(cluster: SimCluster) -> tuple[str, ...]:
    return cluster.state_of("v").segments[0].in_sync()


@pytest.mark.parametrize("shape", [APART, TOGETHER], ids=["apart", "together"])
def test_without_copies_a_bad_grain_is_its_users_trouble(shape: Shape) -> None:
    """An error for that grain, and for no other; once the disk has mended it, for none."""

    async def body(cluster: SimCluster) -> None:
        head = cluster.heads[0]
        await cluster.create(size_bytes=16 * MIB, copies=1)
        await cluster.attach(head=head)
        for number in range(16):
            assert await cluster.checker.write(head, "v", number)
        (segment,) = cluster.state_of("v").segments
        extent = cluster.state().extents[segment.legs[0].extent]
        serial = cluster.state().disks[extent.disk].serial
        hosts = cluster.world.hosts.values()
        (media,) = [m for host in hosts for m in host.media if m.serial == serial]
        grain = data_grain(extent, with_array=False) + 5
        media.bad[grain] = None
        for _ in range(2):
            async with asyncio.timeout(30):
                assert not await cluster.checker.write(head, "v", 5)
            await cluster.until("others work", 30, lambda: cluster.checker.write(head, "v", 6))
        del media.bad[grain]
        await cluster.until("it works", 30, lambda: cluster.checker.write(head, "v", 5))
        await at_the_end(cluster, head)

    simulate(body, lambda: SimCluster(14, shape))


@pytest.mark.parametrize("head", ["h1", "h2"])
def test_a_head_that_was_cut_brings_its_volume_back(head: str) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head=head)
        cluster.world.power_cut(head)
        await asyncio.sleep(20)
        cluster.power_on(head)
        await cluster.until("attached again", 60, cluster.redundant)
        await at_the_end(cluster, head)

    simulate(body, lambda: SimCluster(7))


def test_a_head_that_is_gone_is_fenced() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, head="h2")
        cluster.world.partition("h2")
        await cluster.until("it is known", 15, lambda: health(cluster, "unknown"))
        await cluster.attach(head="h1")
        await cluster.checker.read_all("h1", "v")
        cluster.world.heal()
        await cluster.until("torn down", 60, lambda: not cluster.stacks("h2"))
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(8))


def test_a_fenced_head_that_reaches_one_leg_acknowledges_nothing() -> None:
    """Its storage host's vastskyd is dead, so the old epoch is served there still."""

    async def body(cluster: SimCluster) -> None:
        world = cluster.world
        await attached(cluster, head="h2")
        world.restart_s = None
        world.kill_daemon("s1")
        world.partition("h2")
        world.network.heal_data("h2", "s1", 0)
        world.network.heal_data("h2", "s1", 1)
        await cluster.until("it is known", 15, lambda: health(cluster, "unknown"))
        await cluster.attach(head="h1")
        writing(cluster, "h1")
        await asyncio.sleep(5)
        world.network.heal()
        await cluster.until("torn down", 60, lambda: not cluster.stacks("h2"))
        await cluster.checker.read_all("h1", "v")
        cluster.start("s1")
        await cluster.until("redundant", 120, cluster.redundant)
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(9))


def test_a_volume_in_use_is_not_detached() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        await cluster.attach()
        host = cluster.world.hosts["h1"]
        host.mount("v", "/srv/data")
        for _ in range(2):
            job = await cluster.job(await cluster.start_job(api.DetachVolume(volume="v")))
            assert job.error_code == "Busy"
            assert "mounted on /srv/data" in job.message
            assert cluster.attached_on("v") == "h1"
            assert await cluster.checker.write("h1", "v", 3)
        with pytest.raises(BusyError):
            await cluster.delete()
        host.unmount("v", "/srv/data")
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(10))


def test_a_detach_with_both_legs_away_ends_and_says_why() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=16 * MIB)
        await cluster.attach()
        assert await cluster.checker.write("h1", "v", 1)
        legs = [name for name in ("s1", "s2", "s3") if await legs_on(cluster, name)]
        for name in legs:
            cluster.world.power_cut(name)
        await asyncio.sleep(1)
        job = await cluster.job(await cluster.start_job(api.DetachVolume(volume="v")))
        assert job.state in (JobState.DONE, JobState.FAILED)
        await cluster.until("nothing of it on the head", 60, lambda: not cluster.stacks("h1"))
        cluster.power_on(*legs)
        await cluster.until("detached", 60, lambda: not cluster.state_of("v").attachment)
        await cluster.attach(head="h2")
        await cluster.checker.read_all("h2", "v")
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(11))


def test_a_delete_with_a_node_away_is_done_at_once_and_cleaned_up_later() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        cluster.world.power_cut("s1")
        await cluster.delete()
        assert await cluster.find("v") is None
        await asyncio.sleep(100)
        cluster.power_on("s1")
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(12))


def test_a_create_goes_on_elsewhere_when_its_node_dies() -> None:
    async def body(cluster: SimCluster) -> None:
        job = await cluster.start_job(api.CreateVolume(name="v", size_bytes=40 * MIB))
        cluster.world.power_cut("s1")
        ended = await cluster.job(job)
        assert ended.state is JobState.DONE, ended
        await cluster.attach()
        assert await cluster.redundant()
        assert await legs_on(cluster, "s1") == 0
        cluster.power_on("s1")
        await at_the_end(cluster)

    simulate(body, lambda: SimCluster(13))


def test_no_range_is_taken_for_zeros_that_was_not_wiped() -> None:
    """Released before its host had heard of it."""

    async def body(cluster: SimCluster) -> None:
        for host in cluster.world.hosts.values():
            for media in host.media:
                media.data |= dict.fromkeys(range(2, 100), 99)
        for name in ("s1", "s2", "s3"):
            cluster.world.network.partition((name,))
        await cluster.start_job(api.CreateVolume(name="v", size_bytes=40 * MIB))
        await cluster.delete()
        cluster.world.heal()
        await cluster.nothing_left()
        await cluster.create()
        await cluster.attach()
        for number in range(40):
            assert await cluster.checker.read("h1", "v", number)
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()

    simulate(body, lambda: SimCluster(14))


def test_a_retired_disk_can_be_enrolled_again() -> None:
    async def body(cluster: SimCluster) -> None:
        path = "/dev/disk/by-id/s1-0"
        await cluster.do(api.RetireDisk(disk=f"s1:{path}"))
        again = api.EnrolDisk(node=NodeId("s1"), path=path)
        await cluster.until("offered", 10, lambda: refused(cluster, again))
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path=path, wipe=True))
        await cluster.create(copies=3)
        await cluster.delete()
        await cluster.nothing_left()

    async def refused(cluster: SimCluster, request: api.EnrolDisk) -> bool:
        try:
            await cluster.ask(request)
        except NotFoundError:
            return False
        except ConflictError as error:
            return "which the manager does not know" in error.message
        return False

    simulate(body, lambda: SimCluster(15))


# --- a crash between any two steps ------------------------------------------------------------

# What only looks changes nothing: a crash there is one at the step before.
LOOKS: tuple[str, ...] = (
    "devices",
    "arrays",
    "leg_status",
    "holders",
    "wait_change",
    "list",
    "exports.exports",
    "exports.servers",
    "superblock",
    "read_slots",
    "store.load",
)


@dataclass
class Recorder:
    """Which points each host passes; nothing goes wrong."""

    passed: list[tuple[str, str]] = field(default_factory=list)

    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        self.passed.append((host, point))
        return None

    def places(self, host: str, prefixes: tuple[str, ...]) -> list[tuple[str, str, int]]:
        counts: dict[str, int] = {}
        found = []
        for at, point in self.passed:
            if at == host and point.startswith(prefixes):
                counts[point] = counts.get(point, 0) + 1
                if not any(look in point for look in LOOKS):
                    found.append((host, point, counts[point]))
        return found


SMALL = 16 * MIB
Action = Callable[[SimCluster], Awaitable[None]]


async def create(cluster: SimCluster) -> None:
    await cluster.insist(api.CreateVolume(name="v", size_bytes=SMALL))


async def attach(cluster: SimCluster) -> None:
    await cluster.insist(api.AttachVolume(volume="v", head=NodeId("h2")))


async def detach(cluster: SimCluster) -> None:
    await cluster.insist(api.DetachVolume(volume="v"))


async def delete(cluster: SimCluster) -> None:
    await cluster.insist(api.DeleteVolume(volume="v"))
    await cluster.nothing_left()


async def life_of_a_volume(cluster: SimCluster, action: Action, plan: FaultPlan) -> None:
    """With `plan` in force from the beginning of one of its actions until some time after it."""
    for step in (create, attach, detach, delete):
        if step is action:
            cluster.world.plan = plan
        await step(cluster)
        if step is action:
            await asyncio.sleep(5)
            cluster.world.plan = NoFaults()
        if step is attach:
            for number in range(3):
                assert await cluster.checker.write("h2", "v", number)
            await cluster.checker.read_all("h2", "v")
            await cluster.until("redundant", 30, cluster.redundant)
    cluster.world.check()


def crash_places(
    action: Action, host: str, prefixes: tuple[str, ...]
) -> list[tuple[str, str, int]]:
    recorder = Recorder()
    simulate(lambda cluster: life_of_a_volume(cluster, action, recorder), lambda: SimCluster(20))
    return recorder.places(host, prefixes)


@pytest.mark.parametrize("action", [create, attach, detach, delete])
@pytest.mark.parametrize(
    ("host", "prefixes"),
    [
        ("h1", ("store.",)),
        ("h2", ("nbd.", "dm.", "md.")),
        ("s1", ("disks.", "dm.", "exports.")),
        ("s2", ("disks.", "dm.", "exports.")),
    ],
    ids=["manager", "head", "storage", "storage2"],
)
def test_a_crash_anywhere(action: Action, host: str, prefixes: tuple[str, ...]) -> None:
    places = crash_places(action, host, prefixes)
    for place in places:
        plan = ScriptedFaults({place: Fault(FaultKind.CRASH)})
        try:
            simulate(
                lambda cluster, plan=plan: life_of_a_volume(cluster, action, plan),  # type: ignore[misc]
                lambda: SimCluster(20),
            )
        except Exception as error:
            raise AssertionError(f"crash at {place}: {error}") from error
