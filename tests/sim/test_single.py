"""One host with several disks: copies on different disks of it; and its way to several hosts."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest

from tests.sim.cluster import ALONE, POLICY, REBUILD_DELAY_S, SimCluster
from tests.sim.fake_disks import FAILING, DiskBlock, FakeMedia
from tests.sim.faults import Fault, FaultKind, NoFaults, ScriptedFaults
from tests.sim.survey import Watch
from tests.sim.test_cluster import SMALL, Recorder, simulate
from tests.sim.test_failing_disks import Redundancy, is_of_one_size
from tests.sim.test_matrix import _says, media_of
from tests.sim.test_recover import lose, recover
from tests.sim.test_write_cache import GRAINS, Program, with_caches
from vastskyd.core import api
from vastskyd.core.errors import NoSpaceError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Apart, LegState, Role
from vastskyd.core.units import MIB

ME = "n1"
ALL = "the copies of all volumes are on one host, n1: they are lost with it"
DISK_BYTES = 128 * MIB


def alone(seed: int = 71) -> SimCluster:
    return SimCluster(seed, ALONE, copies_apart=Apart.DISK, disk_bytes=DISK_BYTES)


async def notes(cluster: SimCluster) -> str:
    return "\n".join((await cluster.status()).notes)


async def attached(cluster: SimCluster, copies: int = 2, size_bytes: int = 40 * MIB) -> None:
    await cluster.create(size_bytes=size_bytes, copies=copies)
    await cluster.attach(head=ME)
    task = cluster.spawn(cluster.checker.keep_writing(ME, "v", 40, 0.2))
    cluster.checker.tasks.append(task)
    await asyncio.sleep(2)


async def at_the_end(cluster: SimCluster, head: str = ME) -> None:
    await cluster.until("redundant", 120, cluster.redundant)
    for task in cluster.checker.tasks:
        task.cancel()
    await asyncio.sleep(1)
    await cluster.checker.read_all(head, "v")
    await cluster.detach()
    await cluster.delete()
    await cluster.nothing_left()


def disks_of(cluster: SimCluster) -> list[list[str]]:
    """The serials below each segment."""
    state = cluster.state()
    return [
        [d.serial for leg in segment.legs if (d := state.disk_of(leg.extent)) is not None]
        for segment in cluster.state_of("v").segments
    ]


def hosts_of(cluster: SimCluster) -> list[list[str]]:
    return [[serial.partition("-")[0] for serial in serials] for serials in disks_of(cluster)]


def are_apart(cluster: SimCluster) -> bool:
    return all(len(set(hosts)) == len(hosts) for hosts in hosts_of(cluster))


# --- one host ---------------------------------------------------------------------------------


@pytest.mark.parametrize("copies", [2, 3])
def test_from_disks_to_a_volume_and_back(copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies)
        assert all(len(set(serials)) == copies for serials in disks_of(cluster))
        status = await cluster.status()
        assert (status.health, status.problems, status.notes) == ("ok", (), (ALL,))
        await at_the_end(cluster)
        assert not (await cluster.status()).notes

    simulate(body, alone)


def test_without_its_leave_one_host_does_not_hold_two_copies() -> None:
    async def body(cluster: SimCluster) -> None:
        with pytest.raises(NoSpaceError) as refused:
            await cluster.create()
        assert "cluster set --copies-apart disk" in refused.value.hint
        await cluster.ask(api.SetCopiesApart(copies_apart=Apart.DISK))
        assert (await cluster.status()).copies_apart is Apart.DISK
        await cluster.create()
        assert "copies-apart-set" in await cluster.events()
        await cluster.ask(api.SetCopiesApart(copies_apart=Apart.HOST))
        assert await _says(cluster, "volume v, segment 0: 2 of its 2 legs are on n1")

    simulate(body, lambda: SimCluster(71, ALONE))


async def _dies(cluster: SimCluster) -> str:
    (serial, *_) = disks_of(cluster)[0]
    next(m for m in cluster.world.hosts[ME].media if m.serial == serial).failed = True
    return serial


async def _is_pulled(cluster: SimCluster) -> str:
    (serial, *_) = disks_of(cluster)[0]
    cluster.world.hosts[ME].pull(serial)
    return serial


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("happens", [_dies, _is_pulled])
def test_a_disk_that_goes_is_rebuilt_on_another(
    copies: int, happens: Callable[[SimCluster], Awaitable[str]]
) -> None:
    async def body(cluster: SimCluster) -> None:
        cluster.world.hosts[ME].insert(FakeMedia("n1-spare", DISK_BYTES))
        await asyncio.sleep(10)
        await cluster.do(api.EnrolDisk(node=NodeId(ME), path="/dev/disk/by-id/n1-spare"))
        await attached(cluster, copies)
        watch = cluster.spawn(Watch(cluster).run())
        before = cluster.checker.acknowledged
        serial = await happens(cluster)
        await cluster.until(
            "it is used no more", 60, lambda: all(serial not in s for s in disks_of(cluster))
        )
        await cluster.until("all is whole", 60, cluster.redundant)
        await asyncio.sleep(2)
        assert cluster.checker.acknowledged > before + 5
        assert all(len(set(serials)) == copies for serials in disks_of(cluster))
        watch.cancel()

    simulate(body, alone)


def test_without_a_spare_it_says_so() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies=3)
        await _dies(cluster)
        said = "no other disk has room for a rebuild"
        await cluster.until("it is said", 60, lambda: _says(cluster, said))
        cluster.world.hosts[ME].insert(FakeMedia("n1-new", DISK_BYTES))
        await asyncio.sleep(10)
        await cluster.do(api.EnrolDisk(node=NodeId(ME), path="/dev/disk/by-id/n1-new"))
        await cluster.until("all is whole", 60, cluster.redundant)

    simulate(body, alone)


def test_a_disk_that_says_it_is_failing_is_left() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        await asyncio.sleep(8)
        looks = cluster.spawn(Redundancy(cluster, 2, ME).run())
        media_of(cluster, ME).smart = FAILING
        await cluster.until(
            "its legs are elsewhere", 180, lambda: all("n1-0" not in s for s in disks_of(cluster))
        )
        await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster, ME))
        looks.cancel()
        await at_the_end(cluster)

    simulate(body, alone)


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_power_of_the_host_takes_all_copies_at_once(copies: int, seed: int) -> None:
    """What was flushed is there on every leg when it is back; of the rest each leg kept what it
    liked, and they are made equal."""

    async def body(cluster: SimCluster) -> None:
        with_caches(cluster.world)
        await cluster.create(size_bytes=GRAINS * MIB, copies=copies)
        await cluster.attach(head=ME)
        program = Program(cluster, ME)
        for _ in range(3):
            task = cluster.spawn(program.run())
            await cluster.until("flushed", 60, program.flushed_again)
            await asyncio.sleep(0.1 * seed)
            cluster.world.power_cut(ME)
            task.cancel()
            await asyncio.sleep(2)
            cluster.power_on(ME)
            await asyncio.sleep(1)
            await cluster.until("it is back", 60, cluster.redundant)
            for grain in range(GRAINS):
                values = {await cluster.world.hosts[ME].read("v", grain) for _ in range(6)}
                for value in values:
                    program.check(program.durable | {grain: value})
            await cluster.until("the copies are equal", 60, lambda: _are_equal(cluster))

    simulate(body, lambda: alone(100 + seed))


async def _are_equal(cluster: SimCluster) -> bool:
    for grain in range(GRAINS):
        if len({await cluster.world.hosts[ME].read("v", grain) for _ in range(6)}) > 1:
            return False
    return True


def test_two_partitions_of_a_drive_hold_one_copy_and_two_files_two() -> None:
    async def body(cluster: SimCluster) -> None:
        host = cluster.world.hosts[ME]
        for name, drive, file in (
            ("n1-a1", "/dev/a", ""), ("n1-a2", "/dev/a", ""),
            ("n1-f1", "/dev/b", "/srv/1.img"), ("n1-f2", "/dev/b", "/srv/2.img"),
        ):  # fmt: skip
            host.insert(FakeMedia(name, DISK_BYTES, drive=drive, file=file))
        for serial in ("n1-0", "n1-1", "n1-2"):
            host.pull(serial)
        await asyncio.sleep(20)
        for path in ("/dev/disk/by-id/n1-a1", "/dev/disk/by-id/n1-a2"):
            await cluster.do(api.EnrolDisk(node=NodeId(ME), path=path))
        with pytest.raises(NoSpaceError, match="2 copies need free space on 2 drives; 1 has any"):
            await cluster.create()
        for path in ("/srv/1.img", "/srv/2.img"):
            await cluster.do(api.EnrolDisk(node=NodeId(ME), path=path))
        await cluster.create(copies=3)
        state = cluster.state()
        for segment in cluster.state_of("v").segments:
            disks = [d for leg in segment.legs if (d := state.disk_of(leg.extent)) is not None]
            assert sorted(disk.drive for disk in disks) == ["/dev/a", "/dev/b", "/dev/b"]
        said = "copies of v are in files on one drive: they are lost with it"
        assert said in await notes(cluster)
        shown = await cluster.ask(api.ListDisks(disk=f"{ME}:/dev/disk/by-id/n1-f1"))
        assert shown.disks[0].message == "file /srv/1.img"

    simulate(body, alone)


# --- and then several -------------------------------------------------------------------------


async def grow(cluster: SimCluster, *names: str) -> None:
    for name in names:
        await cluster.join(name, Role.STORAGE, Role.HEAD, disks=1, disk_bytes=DISK_BYTES)


def counted(cluster: SimCluster) -> list[int]:
    """How many legs each segment has in sync, whenever the manager records anything."""
    store = cluster.world.stores[ME]
    counts: list[int] = []
    commit = store.commit

    def counting(
        puts: tuple[tuple[str, str, bytes], ...], deletes: tuple[tuple[str, str], ...]
    ) -> None:
        commit(puts, deletes)
        volumes = cluster.state().volumes.values()
        counts.extend(len(segment.in_sync()) for v in volumes for segment in v.segments)

    store.commit = counting  # type: ignore[method-assign]
    return counts


@pytest.mark.parametrize("copies", [2, 3])
def test_growing_moves_the_copies_apart_and_then_a_host_may_go(copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies)
        await asyncio.sleep(8)
        look = cluster.spawn(Redundancy(cluster, copies, ME).run())
        counts = counted(cluster)
        watch = cluster.spawn(Watch(cluster).run())
        await grow(cluster, "n2", "n3")
        await cluster.until("it is said", 30, lambda: _moving_is_said(cluster))
        await cluster.until("the copies are apart", 240, lambda: are_apart(cluster))
        await cluster.until("all is whole", 60, cluster.redundant)
        await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster, ME))
        look.cancel()
        watch.cancel()
        assert (min(counts), max(counts)) == (copies, copies + 1)
        assert "leg-lost" not in await cluster.events()
        hint = "`vastskyctl cluster set --copies-apart host`"
        assert hint in await notes(cluster)
        await cluster.ask(api.SetCopiesApart(copies_apart=Apart.HOST))
        status = await cluster.status()
        assert (status.health, status.notes) == ("ok", ())
        before = cluster.checker.acknowledged
        cluster.world.power_cut("n2")
        await asyncio.sleep(20)
        assert cluster.checker.acknowledged > before + 5
        cluster.power_on("n2")
        await cluster.until("redundant", 60, cluster.redundant)
        await at_the_end(cluster)

    simulate(body, alone)


async def _moving_is_said(cluster: SimCluster) -> bool:
    return "the copies of v share hosts, and are being moved apart" in await notes(cluster)


def test_the_first_host_may_lose_power_with_its_volume_in_use_on_another() -> None:
    """It is still the manager: with two copies, writes wait for its word on the one it has."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        await grow(cluster, "n2", "n3")
        await cluster.until("the copies are apart", 240, lambda: are_apart(cluster))
        await cluster.until("all is whole", 60, cluster.redundant)
        for task in cluster.checker.tasks:
            task.cancel()
        await asyncio.sleep(1)
        await cluster.detach()
        await cluster.attach(head="n2")
        await cluster.checker.read_all("n2", "v")
        task = cluster.spawn(cluster.checker.keep_writing("n2", "v", 40, 0.2))
        cluster.checker.tasks.append(task)
        cluster.world.power_cut(ME)
        before = cluster.checker.acknowledged
        await asyncio.sleep(10)
        assert cluster.checker.acknowledged <= before + 1
        cluster.power_on(ME)
        await asyncio.sleep(1)
        await cluster.until("redundant", 60, cluster.redundant)
        await cluster.until("writes go on", 30, lambda: cluster.checker.acknowledged > before + 5)
        await at_the_end(cluster, "n2")

    simulate(body, alone)


def test_a_detached_volume_moves_apart_once_it_is_attached() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        await cluster.attach(head=ME)
        for number in range(40):
            await cluster.checker.write(ME, "v", number)
        await cluster.detach()
        await grow(cluster, "n2", "n3")
        said = "the copies of v share hosts; they are moved apart once it is attached"
        assert said in await notes(cluster)
        await asyncio.sleep(30)
        assert not are_apart(cluster)
        await cluster.attach(head="n3")
        await cluster.until("the copies are apart", 240, lambda: are_apart(cluster))
        await cluster.until("all is whole", 60, cluster.redundant)
        await cluster.checker.read_all("n3", "v")

    simulate(body, alone)


def test_hosts_without_room_are_said_to_lack_it() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster, size_bytes=64 * MIB)
        await cluster.join("n2", Role.STORAGE, disks=1, disk_bytes=64 * MIB)
        said = "the copies of v share hosts, and no other host has room for them: enrol disks there"
        await cluster.until("it is said", 30, lambda: _notes_say(cluster, said))
        await at_the_end(cluster)

    tiny = replace(POLICY, segment_max_bytes=64 * MIB)
    simulate(
        body,
        lambda: SimCluster(71, ALONE, policy=tiny, copies_apart=Apart.DISK, disk_bytes=DISK_BYTES),
    )


async def _notes_say(cluster: SimCluster, text: str) -> bool:
    return text in await notes(cluster)


def test_a_host_that_dies_for_good_is_rebuilt_beside_the_rest_and_apart_when_it_can() -> None:
    """Two hosts, copies on different disks at the least: better two on one host than one."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        await grow(cluster, "n2")
        await cluster.until("the copies are apart", 240, lambda: are_apart(cluster))
        await cluster.until("all is whole", 60, cluster.redundant)
        cluster.world.power_cut("n2")
        await cluster.until("both on n1", REBUILD_DELAY_S + 60, lambda: _all_on_me(cluster))
        await cluster.until("all is whole", 60, cluster.redundant)
        cluster.power_on("n2")
        await cluster.until("apart again", 240, lambda: are_apart(cluster))
        await at_the_end(cluster)

    simulate(body, alone)


def _all_on_me(cluster: SimCluster) -> bool:
    return all(set(hosts) == {ME} for hosts in hosts_of(cluster))


# --- more goes wrong meanwhile ------------------------------------------------------------


async def _the_new_host_dies(cluster: SimCluster) -> None:
    cluster.world.power_cut("n2")
    await asyncio.sleep(REBUILD_DELAY_S + 30)
    cluster.power_on("n2")


async def _the_old_host_loses_power(cluster: SimCluster) -> None:
    cluster.world.power_cut(ME)
    await asyncio.sleep(5)
    cluster.power_on(ME)


async def _a_disk_dies(cluster: SimCluster) -> None:
    await _dies(cluster)


async def _its_daemon_is_killed(cluster: SimCluster) -> None:
    cluster.world.kill_daemon(ME)


@pytest.mark.parametrize(
    "happens", [_the_new_host_dies, _the_old_host_loses_power, _a_disk_dies, _its_daemon_is_killed]
)
@pytest.mark.parametrize("after_s", [0.0, 0.6, 1.5])
def test_something_fails_while_the_copies_move_apart(
    happens: Callable[[SimCluster], Awaitable[None]], after_s: float
) -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        await asyncio.sleep(8)
        await grow(cluster, "n2", "n3")
        await cluster.until("a leg moves", 60, lambda: _moves(cluster))
        await asyncio.sleep(after_s)
        await happens(cluster)
        await cluster.until("the copies are apart", 300, lambda: are_apart(cluster))
        await cluster.until("all is whole", 120, cluster.redundant)
        await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster, ME))
        for task in cluster.checker.tasks:
            task.cancel()
        await asyncio.sleep(1)
        await cluster.checker.read_all(ME, "v")

    simulate(body, alone)


async def _moves(cluster: SimCluster) -> bool:
    return "leg-moving" in await cluster.events()


def test_copies_never_move_twice() -> None:
    """Each move brings them further apart: it comes to an end, and nothing moves after it."""

    async def body(cluster: SimCluster) -> None:
        await attached(cluster, copies=3)
        await grow(cluster, "n2", "n3")
        await cluster.until("the copies are apart", 300, lambda: are_apart(cluster))
        await asyncio.sleep(60)
        segments = len(cluster.state_of("v").segments)
        assert (await cluster.events()).count("leg-moving") == 2 * segments
        for segment in cluster.state_of("v").segments:
            assert len(segment.in_state(LegState.IN_SYNC)) == 3

    simulate(body, alone)


async def _spread_out(plan: Recorder | ScriptedFaults, cluster: SimCluster) -> None:
    await cluster.create(size_bytes=SMALL)
    await cluster.attach(head=ME)
    for number in range(16):
        await cluster.checker.write(ME, "v", number)
    await cluster.join("n2", Role.STORAGE, disks=1, disk_bytes=DISK_BYTES)
    cluster.world.plan = plan
    stop = cluster.spawn(cluster.checker.keep_writing(ME, "v", 16, 0.3))
    await cluster.until("apart", 120, lambda: are_apart(cluster))
    await cluster.until("redundant", 90, cluster.redundant)
    cluster.world.plan = NoFaults()
    await cluster.until("no place is left over", 30, lambda: is_of_one_size(cluster, ME))
    stop.cancel()
    await cluster.checker.read_all(ME, "v")
    await asyncio.sleep(2)
    await cluster.detach()
    await cluster.delete()
    await cluster.nothing_left()


def test_a_crash_anywhere_while_a_copy_moves_to_another_host() -> None:
    recorder = Recorder()
    simulate(partial(_spread_out, recorder), alone)
    places = recorder.places(ME, ("dm.", "md.", "store.", "nbd."))
    assert places
    for place in places:
        plan = ScriptedFaults({place: Fault(FaultKind.CRASH)})
        try:
            simulate(partial(_spread_out, plan), alone)
        except Exception as error:
            raise AssertionError(f"crash at {place}: {error}") from error


# --- without the manager's records ------------------------------------------------------------


def test_records_made_anew_know_that_one_host_holds_all_copies() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        await lose(cluster)
        assert not (await recover(cluster)).missing
        assert (await cluster.status()).copies_apart is Apart.DISK
        await at_the_end(cluster)

    simulate(body, alone)


def test_records_made_anew_of_several_hosts_keep_copies_on_different_ones() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        await grow(cluster, "n2")
        await cluster.until("the copies are apart", 240, lambda: are_apart(cluster))
        await cluster.until("all is whole", 60, cluster.redundant)
        await lose(cluster)
        assert not (await recover(cluster)).missing
        assert (await cluster.status()).copies_apart is Apart.HOST
        await at_the_end(cluster)

    simulate(body, alone)


def test_a_loop_device_that_changed_hands_is_not_written_to() -> None:
    """It has the name of a disk of ours, and is another file by now."""

    async def body(cluster: SimCluster) -> None:
        host = cluster.world.hosts[ME]
        media = FakeMedia("loop0", DISK_BYTES, drive="/dev/a", file="/srv/1.img")
        host.insert(media)
        await asyncio.sleep(10)
        await cluster.do(api.EnrolDisk(node=NodeId(ME), path="/srv/1.img"))
        other = FakeMedia("loop0", DISK_BYTES, drive="/dev/a", file="/srv/other.img")
        for block in host.kernel.blocks.values():
            if isinstance(block, DiskBlock) and block.media is media:
                block.media = other
        host.kernel.notify()
        await asyncio.sleep(5)
        with pytest.raises(NoSpaceError):
            await cluster.create(copies=4)
        said = f"disk {ME}:/dev/disk/by-id/loop0 is missing"
        await cluster.until("it is said", 60, lambda: _says(cluster, said))
        assert not other.is_member()
        assert not other.data

    simulate(body, alone)
