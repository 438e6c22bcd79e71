"""Sessions, daemons, faults, virtual time; and that a seed is a run."""

import asyncio
import os
import subprocess
import sys

import pytest

from tests.sim import loop
from tests.sim.by_hand import Stack
from tests.sim.faults import (
    DaemonCrash,
    Fault,
    FaultKind,
    RandomFaults,
    ScriptedFaults,
)
from tests.sim.test_fakes import drop
from tests.sim.world import DaemonPorts, World
from vastskyd.core.api import Done, Ping, ShowJob
from vastskyd.core.errors import (
    DeviceError,
    NotFoundError,
    UnreachableError,
)
from vastskyd.core.ids import JobId, NodeId
from vastskyd.core.model import Record, Role


class Chatter:
    """Pings the manager; answers pings."""

    def __init__(self, ports: DaemonPorts) -> None:
        self.ports = ports
        self.answered = 0
        self.changes: list[tuple[str, bool]] = []

    async def handle(self, node: NodeId, request: Record) -> Record:
        await self.ports.clock.sleep(0.01)
        if not isinstance(request, Ping):
            raise NotFoundError(f"no {type(request).__name__} for {node}", hint="ask another")
        return Done()

    async def run(self) -> None:
        self.ports.peers.listen(self.handle, lambda n, up: self.changes.append((n, up)))
        while True:
            await self.ports.kernel.wait_change(0.5)
            for node in sorted(self.ports.peers.connected()):
                try:
                    await self.ports.peers.call(node, Ping(), 2.0)
                    self.answered += 1
                except (UnreachableError, DeviceError):
                    continue


def chatting(world: World) -> dict[str, Chatter]:
    programs: dict[str, Chatter] = {}

    def factory(ports: DaemonPorts) -> Chatter:
        programs[ports.node] = Chatter(ports)
        return programs[ports.node]

    world.add_host("m", Role.MANAGER)
    for name in ("a", "b"):
        world.add_host(name, Role.STORAGE, disks=1)
    for name in world.hosts:
        world.start_daemon(name, factory)
    return programs


def test_sessions_come_up_break_and_come_back() -> None:
    async def main() -> None:
        world = World(3)
        programs = chatting(world)
        await asyncio.sleep(5)
        assert programs["m"].ports.peers.connected() == {"a", "b"}
        assert programs["a"].ports.peers.connected() == {"m"}
        with pytest.raises(NotFoundError) as caught:
            await programs["a"].ports.peers.call(NodeId("m"), ShowJob(job=JobId("j")), 1.0)
        assert caught.value.hint == "ask another"
        world.partition("a")
        with pytest.raises(UnreachableError):
            await programs["m"].ports.peers.call(NodeId("a"), Ping(), 1.0)
        await asyncio.sleep(5)
        assert programs["m"].ports.peers.connected() == {"b"}
        world.heal()
        await asyncio.sleep(2)
        assert programs["m"].changes[-2:] == [("a", False), ("a", True)]
        old = programs["b"]
        world.kill_daemon("b")
        answered = old.answered
        await asyncio.sleep(2)
        assert programs["m"].ports.peers.connected() == {"a"}
        assert old.answered == answered
        with pytest.raises(DaemonCrash):
            await old.ports.disks.list()
        world.check()

    loop.run(main())


def test_the_plan_crashes_cuts_and_fails() -> None:
    async def main() -> None:
        plan = ScriptedFaults(
            {
                ("a", "kernel.wait_change", 3): Fault(FaultKind.CRASH),
                ("b", "kernel.wait_change", 3): Fault(FaultKind.POWER_CUT),
                ("m", "peers.call:ping", 2): Fault(FaultKind.FAIL),
                ("m", "peers.call:ping", 3): Fault(FaultKind.DELAY, 1.0),
            }
        )
        world = World(4, plan, restart_s=1.0, reboot_s=20.0)
        chatting(world)
        before = world.hosts["b"].kernel.boot_id
        await asyncio.sleep(10)
        assert "a" in world.daemons
        assert "b" not in world.daemons
        await asyncio.sleep(20)
        assert world.daemons["b"].ports.kernel.boot_id() != before
        world.check()

    loop.run(main())


def test_a_daemon_that_ends_by_itself_is_a_bug() -> None:
    class Broken:
        async def run(self) -> None:
            raise ValueError("oops")

    async def main() -> None:
        world = World(5)
        world.add_host("a")
        world.start_daemon("a", lambda _: Broken())
        await asyncio.sleep(1)
        with pytest.raises(AssertionError, match="oops"):
            world.check()

    loop.run(main())


def test_waiting_for_nothing_and_standing_still_are_told() -> None:
    async def for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    async def spinning() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(loop.DeadlockError, match="for_ever"):
        loop.run(for_ever())
    with pytest.raises(loop.LivelockError, match="spinning"):
        loop.run(spinning())


# --- determinism -----------------------------------------------------------------------------


def trace(seed: int) -> str:
    """Everything that happened in a run with faults and a stack."""

    async def main() -> str:
        world = World(seed, restart_s=0.5, reboot_s=10.0)
        chatting(world)
        stack = Stack(world, 3)
        await stack.create()
        plan = {FaultKind.CRASH: 0.02, FaultKind.POWER_CUT: 0.01, FaultKind.DELAY: 0.1}
        spared = ("head", "store1", "store2", "store3")
        world.plan = RandomFaults(world.rng("plan"), plan, 60.0, spared_hosts=spared)
        for tag in range(1, 20):
            await stack.write(tag % 16, tag)
            world.log(f"wrote {tag}")
        await drop(stack, 2)
        await asyncio.sleep(60)
        world.check()
        media = [world.hosts[f"store{n}"].media[0].data for n in (1, 2, 3)]
        return "\n".join([*world.trace, repr(media)])

    return loop.run(main())


def test_a_seed_is_a_run() -> None:
    assert trace(11) == trace(11)
    assert trace(11) != trace(12)


def test_a_run_does_not_depend_on_hash_order() -> None:
    def digest(hash_seed: str) -> str:
        code = (
            "import hashlib; from tests.sim.test_world import trace; "
            "print(hashlib.sha256(trace(11).encode()).hexdigest())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert digest("1") == digest("2")
