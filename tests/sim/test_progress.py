"""What systemd's watchdog goes by: a role that does not get on is known, one that waits is not one.
In virtual time."""

import asyncio
import logging
from itertools import pairwise
from typing import cast

import pytest

from tests.sim import loop
from tests.sim.cluster import APART, SimCluster
from tests.sim.test_cluster import LIMIT_S, attached, simulate
from tests.sim.test_storage_role import Store
from tests.sim.test_storage_role import sim as storage_sim
from vastskyd import __main__ as program
from vastskyd.core.answers import LocalView
from vastskyd.core.documents import ExportServerSpec, StorageDocument
from vastskyd.core.errors import DeviceError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Encryption
from vastskyd.kernel.clock import SystemClock
from vastskyd.ports import ExportServer
from vastskyd.roles.daemon import Host
from vastskyd.roles.progress import STEP_MOST_S, Progress

AWAY_S = 1200.0


class LoopClock(SystemClock):
    """Of the virtual loop that runs."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


async def watched(cluster: SimCluster, for_s: float) -> set[str]:
    """Whatever was held for stuck meanwhile, as host/loop."""
    found: set[str] = set()
    for _ in range(int(for_s)):
        for name, member in cluster.members.items():
            found |= {f"{name}/{each}" for each in member.progress.stuck()}
        await asyncio.sleep(1)
    return found


def test_who_waits_for_the_network_or_another_host_is_not_stuck() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        everybody = [*cluster.world.hosts]
        cluster.world.partition(cluster.manager)
        assert await watched(cluster, AWAY_S) == set()
        cluster.world.heal()
        cluster.world.power_cut("s1")
        assert await watched(cluster, AWAY_S) == set()
        assert set(cluster.members) == set(everybody)

    simulate(body, lambda: SimCluster(1, APART))


def test_a_role_whose_turn_does_not_end_is_stuck_and_no_other() -> None:
    async def body(cluster: SimCluster) -> None:
        await attached(cluster)
        storage = cluster.members["s1"]._storage
        assert storage is not None

        async def never() -> None:
            await asyncio.Event().wait()

        storage._disks.activity = never  # type: ignore[assignment,method-assign]
        await asyncio.sleep(10)
        assert await watched(cluster, STEP_MOST_S - 20) == set()
        assert await watched(cluster, 60) == {"s1/storage"}
        assert cluster.members["s1"].progress.stuck()["storage"] > STEP_MOST_S

    simulate(body, lambda: SimCluster(1, APART))


def test_a_manager_whose_turn_does_not_end_is_stuck() -> None:
    async def body(cluster: SimCluster) -> None:
        keeper = cluster.members[cluster.manager].manager
        assert keeper is not None
        manager = keeper._current
        await manager._turned.acquire()  # type: ignore[union-attr]
        assert await watched(cluster, STEP_MOST_S + 30) == {f"{cluster.manager}/manager"}

    simulate(body, lambda: SimCluster(1, APART))


def test_slow_steps_are_steps_however_many() -> None:
    """Every export server has to be stopped the hard way, and there are more than fit the bound."""

    async def body(store: Store) -> None:
        async def slow(_: ExportServer) -> None:
            await asyncio.sleep(45)
            raise DeviceError("it does not stop")

        store.ports.exports.ensure_server = slow  # type: ignore[method-assign,assignment]
        servers = tuple(
            ExportServerSpec(
                head=NodeId(f"head{number}"), port=10900 + number, addresses=("10.0.0.9",),
                encryption=Encryption.NONE,
            )
            for number in range(20)
        )  # fmt: skip
        progress, began_s = Progress(LoopClock()), asyncio.get_running_loop().time()
        with progress.loop("storage") as step:
            turn = asyncio.create_task(store.role.converge(StorageDocument(servers=servers), step))
            while not turn.done():
                assert progress.stuck() == {}
                await asyncio.sleep(1)
        await turn
        assert asyncio.get_running_loop().time() - began_s > 2 * STEP_MOST_S

    storage_sim(body)


def test_a_loop_that_ended_owes_nothing() -> None:
    async def main() -> None:
        progress = Progress(LoopClock())
        with progress.loop("one") as step:
            await asyncio.sleep(STEP_MOST_S + 1)
            assert progress.stuck() == {"one": STEP_MOST_S + 1}
            step()
            assert progress.stuck() == {}
        await asyncio.sleep(STEP_MOST_S + 1)
        assert progress.stuck() == {}

    loop.run(main(), LIMIT_S)


class OneLoop:
    """A host of which one loop works, as long as `works`."""

    def __init__(self) -> None:
        self.progress = Progress(LoopClock())
        self.works = True

    async def run(self) -> None:
        with self.progress.loop("storage") as step:
            while True:
                if self.works:
                    step()
                await asyncio.sleep(1)

    def stuck(self) -> dict[str, float]:
        return self.progress.stuck()

    def local(self) -> LocalView:
        return LocalView(version="1", node="", cluster_name="", roles=(), connected=False)


def test_systemd_hears_nothing_more_of_a_host_that_is_stuck(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    told: list[tuple[float, str]] = []

    async def main() -> None:
        now_s = asyncio.get_running_loop().time
        monkeypatch.setattr(program, "notify", lambda state: told.append((now_s(), state)))
        host = OneLoop()
        tasks = [
            asyncio.create_task(host.run()),
            asyncio.create_task(program._keep_watchdog(cast(Host, host))),
        ]
        await asyncio.sleep(100)
        host.works = False
        await asyncio.sleep(STEP_MOST_S + 100)
        host.works = True
        await asyncio.sleep(100)
        for task in tasks:
            task.cancel()

    loop.run(main(), LIMIT_S)
    alive_s = [at_s for at_s, state in told if "WATCHDOG=1" in state]
    gaps = {a: b - a for a, b in pairwise(alive_s) if b - a > 11}
    assert len(gaps) == 1
    ((last_s, gap_s),) = gaps.items()
    assert 100 + STEP_MOST_S - 11 < last_s <= 100 + STEP_MOST_S
    assert gap_s > 30  # by then systemd has ended it
    assert "STATUS=stuck: storage" in {state for _, state in told}
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL]
    assert len(said) == 1
    assert said[0].startswith("storage: no step for 30")
