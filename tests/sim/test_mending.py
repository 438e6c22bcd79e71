"""A volume that nobody has attached heals all the same: a head has it for that, and nobody else may
use it there."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.sim.cluster import (
    ALONE,
    APART,
    LEG_TIMEOUT_S,
    REBUILD_DELAY_S,
    TOGETHER,
    Shape,
    SimCluster,
)
from tests.sim.fake_disks import FAILING, FakeMedia
from tests.sim.faults import Fault, FaultKind, NoFaults, ScriptedFaults
from tests.sim.put_away import (
    BEGUN_S,
    GRAINS,
    HEADS,
    all_online,
    detached,
    filling,
    healed,
    holds_everything,
    is_degraded,
    mending,
    pull,
    running,
    spread,
    store_of,
)
from tests.sim.test_cluster import SMALL, Recorder, legs_on, simulate
from tests.sim.test_matrix import SPREAD, _is_ok, _says, media_of
from tests.sim.test_recover import lose, recover
from vastskyd.core import api
from vastskyd.core.ids import NodeId
from vastskyd.core.mending import PATIENCE_S, REST_S
from vastskyd.core.model import Apart, JobKind
from vastskyd.roles.letting_go import GENTLY_S, LettingGo

# --- it heals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "copies_apart"),
    [(APART, Apart.HOST), (TOGETHER, Apart.HOST), (SPREAD, Apart.HOST), (ALONE, Apart.DISK)],
    ids=["apart", "together", "spread", "alone"],
)
def test_a_detached_volume_that_loses_a_disk_heals(shape: Shape, copies_apart: Apart) -> None:
    async def body(cluster: SimCluster) -> None:
        looks = await detached(cluster)
        host, _ = pull(cluster)
        await cluster.until("degraded is seen", 15, lambda: _says(cluster, "volume v is degraded"))
        await cluster.until("it is rebuilt", BEGUN_S, partial(filling, cluster))
        view = await cluster.volume("v")
        assert (view.head, view.attachment, view.device) == ("", None, "")
        on = cluster.mended_on("v")
        assert f"; mended on {on}" in view.message
        assert await _says(cluster, f"volume v is rebuilding: {view.message}")
        assert set(running(cluster, JobKind.REBUILD, JobKind.ATTACH)) == {JobKind.REBUILD}
        assert not cluster.members[on].local_volumes()
        await healed(cluster)
        if host not in ("n1", "n3"):  # which have other disks
            assert await legs_on(cluster, host) == 0
        assert looks.seen_on
        events = await cluster.events()
        assert {"volume-mending", "leg-lost", "leg-replaced", "volume-mended"} <= set(events)
        assert events.count("volume-mending") == events.count("volume-mended") == 1
        assert not {"head-fenced", "mending-failed", "mending-ended"} & set(events)
        await asyncio.sleep(2 * (PATIENCE_S + REST_S))
        assert (await cluster.events()).count("volume-mending") == 1
        await holds_everything(cluster)

    simulate(body, lambda: SimCluster(62, shape, copies_apart=copies_apart))


@pytest.mark.parametrize("copies", [2, 3])
def test_a_detached_volume_whose_host_stays_away_heals(copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster, copies)
        host = store_of(cluster)
        cluster.world.power_cut(host)
        await asyncio.sleep(REBUILD_DELAY_S - 5)
        assert not cluster.mended_on("v"), "most come back"
        await mending(cluster)
        await healed(cluster)
        assert await legs_on(cluster, host) == 0
        cluster.power_on(host)
        await cluster.until("all is well", 60, lambda: _is_ok(cluster))
        await holds_everything(cluster)

    simulate(body, spread)


def test_a_host_that_comes_back_in_time_is_as_before() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        epoch = cluster.state_of("v").epoch
        cluster.world.power_cut("s1")
        await asyncio.sleep(REBUILD_DELAY_S - 10)
        cluster.power_on("s1")
        _, media = pull(cluster, "s2")
        await asyncio.sleep(PATIENCE_S - 8)
        cluster.world.hosts["s3"].insert(media)
        await asyncio.sleep(60)
        assert cluster.state_of("v").epoch == epoch
        assert (await cluster.volume("v")).health == "redundant"

    simulate(body, spread)


def test_what_was_behind_when_it_was_detached_is_filled() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        await cluster.attach(head="h1")
        host = store_of(cluster)
        cluster.world.power_cut(host)
        await asyncio.sleep(LEG_TIMEOUT_S + 10)
        for number in range(GRAINS):
            await cluster.checker.write("h1", "v", number)
        await cluster.detach()
        cluster.power_on(host)
        await healed(cluster)
        assert await legs_on(cluster, host)
        assert "leg-replaced" not in await cluster.events()
        await holds_everything(cluster)

    simulate(body, spread)


def test_legs_of_a_detached_volume_leave_a_failing_disk() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        host = store_of(cluster)
        media_of(cluster, host).smart = FAILING
        await cluster.until("empty", 120, partial(_is_empty, cluster, host))
        assert (await cluster.volume("v")).health == "redundant"
        await healed(cluster)
        events = await cluster.events()
        assert {"leg-moving", "leg-moved"} <= set(events)
        assert "leg-lost" not in events
        await holds_everything(cluster)

    simulate(body, spread)


async def _is_empty(cluster: SimCluster, host: str) -> bool:
    return await legs_on(cluster, host) == 0


def test_legs_that_nothing_was_written_to_are_placed_elsewhere_without_a_head() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create()
        host = store_of(cluster)
        media_of(cluster, host).smart = FAILING
        await cluster.until("empty", 120, partial(_is_empty, cluster, host))
        assert "volume-mending" not in await cluster.events()
        await cluster.attach(head="h1")
        await cluster.until("redundant", 20, cluster.redundant)

    simulate(body, spread)


def test_without_room_it_is_not_attached_until_there_is_some() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster, copies=3)
        _, media = pull(cluster, "s1")
        said = (
            "volume v is degraded: segment 0: 2 of 3 legs; without s1:/dev/disk/by-id/s1-0; no disk"
        )
        await cluster.until("it is said", 15, lambda: _says(cluster, said))
        await asyncio.sleep(5 * REST_S)
        assert "volume-mending" not in await cluster.events()
        assert len(cluster.state_of("v").segments[0].in_sync()) == 3
        fresh = FakeMedia("fresh", media.size_bytes)
        cluster.world.hosts["s1"].insert(fresh)
        await asyncio.sleep(5)
        await cluster.do(api.EnrolDisk(node=NodeId("s1"), path="/dev/disk/by-id/fresh"))
        await healed(cluster)
        await holds_everything(cluster)

    simulate(body, lambda: SimCluster(7))


def test_with_fewer_legs_than_tell_the_last_writes_nothing_is_begun() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster, copies=3)
        legs = cluster.state_of("v").segments[0].legs
        hosts = [disk.node for leg in legs if (disk := cluster.state().disk_of(leg.extent))]
        pulled = [pull(cluster, host) for host in hosts[:2]]
        await asyncio.sleep(3 * REST_S)
        assert "volume-mending" not in await cluster.events()
        host, media = pulled[0]
        cluster.world.hosts[host].insert(media)
        await healed(cluster)
        await holds_everything(cluster)

    simulate(body, spread)


def test_many_volumes_are_mended_a_few_at_a_time_on_all_heads() -> None:
    async def body(cluster: SimCluster) -> None:
        names = [f"v{number}" for number in range(10)]
        for name in names:
            await cluster.create(name, size_bytes=8 << 20)
            await cluster.attach(name, "h1")
            await cluster.checker.write("h1", name, 0)
            await cluster.detach(name)
        pull(cluster, "s1")
        most, used = 0, set[str]()
        for _ in range(2000):
            on = [head for name in names if (head := cluster.mended_on(name))]
            most, used = max(most, len(on)), used | set(on)
            await asyncio.sleep(0.1)
        assert 1 < most <= 8
        assert used == set(HEADS)
        for name in names:
            assert await cluster.redundant(name)
            assert not cluster.mended_on(name)

    simulate(body, spread)


# --- heads, managers and records that go --------------------------------------------------------


@pytest.mark.parametrize("returns", [True, False])
def test_a_head_that_dies_while_it_mends_is_succeeded(returns: bool) -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        pull(cluster)
        first = await mending(cluster)
        await cluster.until("it is rebuilt", 30, partial(filling, cluster))
        cluster.world.power_cut(first)
        await cluster.until("on another", 60, lambda: cluster.mended_on("v") not in ("", first))
        if returns:
            cluster.power_on(first)
        await healed(cluster)
        if not returns:
            cluster.power_on(first)
        await asyncio.sleep(20)
        assert not cluster.stacks(first)
        await holds_everything(cluster)

    simulate(body, spread)


def test_the_only_head_mends_on_when_it_is_back() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        cluster.world.power_cut("h2")
        pull(cluster)
        assert await mending(cluster) == "h1"
        cluster.world.power_cut("h1")
        await asyncio.sleep(60)
        cluster.power_on("h1")
        await healed(cluster)
        cluster.power_on("h2")
        await holds_everything(cluster)

    simulate(body, spread)


@pytest.mark.parametrize("again_s", [0.0, 1.0, 3.0])
def test_a_vastskyd_that_is_restarted_goes_on_mending(again_s: float) -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        pull(cluster)
        on = await mending(cluster)
        for _ in range(5):
            await asyncio.sleep(again_s)
            cluster.world.kill_daemon(on)
        await healed(cluster)
        await holds_everything(cluster)

    simulate(body, spread)


def test_a_head_that_does_not_reach_the_legs_is_given_up_for_another() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        for store in ("s1", "s2", "s3", "s4"):
            for network in range(2):
                cluster.world.network.cut_data("h1", store, network)
        pull(cluster)
        assert await mending(cluster) == "h1"
        await cluster.until("on another", 240, lambda: cluster.mended_on("v") == "h2")
        await healed(cluster)
        assert (await cluster.events()).count("mending-failed") == 1
        cluster.world.heal()
        await holds_everything(cluster)

    simulate(body, spread)


@pytest.mark.parametrize("exposed_again", [False, True])
def test_records_lost_while_it_is_mended(exposed_again: bool) -> None:
    """What is made anew knows that nobody asked for it."""

    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        pull(cluster)
        on = await mending(cluster)
        await cluster.until("it is rebuilt", 30, partial(filling, cluster))
        if exposed_again:  # and then it did
            await cluster.attach(head=on)
            await asyncio.sleep(2)
        await lose(cluster)
        cluster.world.power_cut(on)
        cluster.power_on(on)
        found = await recover(cluster)
        assert [volume.head for volume in found.volumes] == [on if exposed_again else ""]
        if exposed_again:
            await cluster.until("attached", 60, lambda: cluster.attached_on("v") == on)
            await cluster.until("redundant", 120, cluster.redundant)
            await cluster.detach()
        else:
            await healed(cluster)
            assert "volume-attached" not in await cluster.events()
        await holds_everything(cluster)

    simulate(body, spread)


def test_records_of_a_single_host_lost_while_a_volume_is_mended() -> None:
    """Nothing is exported there: that it was mended is seen from its having no device."""

    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        pull(cluster)
        await mending(cluster)
        await cluster.until("it is rebuilt", 30, partial(filling, cluster))
        await lose(cluster)
        await recover(cluster)
        assert cluster.owner("v") == ""
        await cluster.until("it is taken down", 30, lambda: not cluster.stacks("n1"))
        await cluster.attach()
        await cluster.checker.read_all("n1", "v")
        await cluster.until("redundant", 120, cluster.redundant)
        await cluster.detach()
        await holds_everything(cluster)

    simulate(body, lambda: SimCluster(62, ALONE, copies_apart=Apart.DISK))


def test_a_head_that_shuts_down_lets_go_of_what_it_mends() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        pull(cluster)
        on = await mending(cluster)
        await cluster.until("it is rebuilt", 30, partial(filling, cluster))
        cluster.world.restart_s = None
        cluster.world.kill_daemon(on)
        ports = cluster.world.ports(on)
        began_s = cluster.world.now_s()
        await LettingGo(ports.kernel, ports.clock).run()
        assert cluster.world.now_s() - began_s < GENTLY_S
        assert not cluster.stacks(on)
        cluster.world.power_cut(on)
        await healed(cluster)
        cluster.power_on(on)
        await holds_everything(cluster)

    simulate(body, spread)


def test_records_lost_with_a_head_that_is_away() -> None:
    async def body(cluster: SimCluster) -> None:
        await detached(cluster)
        pull(cluster)
        on = await mending(cluster)
        await cluster.until("it is rebuilt", 30, partial(filling, cluster))
        await lose(cluster)
        cluster.world.power_cut(on)
        await recover(cluster, without=(on,))
        await healed(cluster)
        assert cluster.owner("v") == ""

    simulate(body, spread)


# --- a crash between any two steps ------------------------------------------------------------


async def _mended(cluster: SimCluster, plan: Recorder | ScriptedFaults) -> None:
    await detached(cluster, size_bytes=SMALL)
    _, media = pull(cluster)
    cluster.world.plan = plan
    await cluster.until("a leg is missed", 30, partial(is_degraded, cluster))
    await healed(cluster)
    cluster.world.plan = NoFaults()
    await cluster.until("nothing goes on", 60, lambda: not running(cluster, *JobKind))
    await cluster.until("all heads are there", 20, lambda: all_online(cluster))
    await cluster.attach(head="h2")
    await cluster.checker.read_all("h2", "v")
    await cluster.detach()
    await cluster.delete()
    assert media.serial in {disk.serial for disk in cluster.state().disks.values()}


@pytest.mark.parametrize(
    ("host", "prefixes"),
    [("h1", ("nbd.", "dm.", "md.")), ("m", ("store.",)), ("s3", ("disks.", "dm.", "exports."))],
    ids=["head", "manager", "storage"],
)
def test_a_crash_anywhere_while_it_is_mended(host: str, prefixes: tuple[str, ...]) -> None:
    recorder = Recorder()
    simulate(lambda cluster: _mended(cluster, recorder), spread)
    places = recorder.places(host, prefixes)
    assert places
    for place in places:
        plan = ScriptedFaults({place: Fault(FaultKind.CRASH)})
        try:
            simulate(_with(plan), spread)
        except Exception as error:
            raise AssertionError(f"crash at {place}: {error}") from error


def _with(plan: ScriptedFaults) -> Callable[[SimCluster], Awaitable[None]]:
    return lambda cluster: _mended(cluster, plan)
