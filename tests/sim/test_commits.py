"""What the manager says is durable: nobody is told of what its store does not have."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.fakes.store import MemoryStore
from tests.sim import loop
from tests.sim.cluster import OpenIssuer, SimCluster
from tests.sim.test_cluster import simulate
from tests.sim.world import World
from vastskyd.core import answers, api
from vastskyd.core.errors import DeviceError
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import Cluster, Generation, Node, Record, Role
from vastskyd.core.state import ClusterState, Draft, load
from vastskyd.core.turn import Policy
from vastskyd.core.units import MIB
from vastskyd.roles.manager import Manager

NODE = NodeId("m")


class FullStore(MemoryStore):
    """Refuses from some moment on, as one without room does."""

    full = False

    def commit(
        self, puts: tuple[tuple[str, str, bytes], ...], deletes: tuple[tuple[str, str], ...]
    ) -> None:
        if self.full:
            raise DeviceError("the file system is full")
        super().commit(puts, deletes)


def with_manager(body: Callable[[Manager, FullStore], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World(1)
        world.add_host(NODE, Role.MANAGER, Role.HEAD)
        store = FullStore()
        draft = Draft(ClusterState())
        draft.put(Cluster(id=ClusterId("c" * 16), name="c", manager=NODE, created_s=0.0))
        roles = (Role.MANAGER, Role.HEAD)
        draft.put(Node(id=NODE, roles=roles, addresses=("10.0.0.1",), port=1, export_port=2))
        draft.put(Generation(number=0))
        store.commit(draft.puts(), draft.deletes())
        ports = world.ports(NODE)
        manager = Manager(NODE, store, ports.peers, ports.clock, Policy(), OpenIssuer())
        await body(manager, store)

    loop.run(main())


def test_a_change_that_is_not_durable_has_not_happened() -> None:
    async def body(manager: Manager, store: FullStore) -> None:
        before: answers.NodeList = await _nodes(manager)
        store.full = True
        with pytest.raises(DeviceError):
            manager._change(lambda turn: turn.draft.put(_another()))
        assert await _nodes(manager) == before

    with_manager(body)


def test_an_answer_is_given_of_what_the_store_has() -> None:
    async def body(manager: Manager, store: FullStore) -> None:
        manager._change(lambda turn: turn.draft.put(_another()))
        assert NodeId("n") in load(store.load()).nodes

    with_manager(body)


async def _nodes(manager: Manager) -> answers.NodeList:
    answer: Record = await manager.ask(api.ListNodes())
    assert isinstance(answer, answers.NodeList)
    return answer


def _another() -> Node:
    return Node(id=NodeId("n"), roles=(), addresses=(), port=1, export_port=3)


def test_a_restarted_manager_numbers_its_documents_above_all_before() -> None:
    """Else the nodes would take its first for old, and the manager what they report for current."""

    async def body(manager: Manager, store: FullStore) -> None:
        before = manager._revision
        ports = World(2)
        ports.add_host(NODE, Role.MANAGER)
        again = ports.ports(NODE)
        after = Manager(NODE, store, again.peers, again.clock, Policy(), OpenIssuer())
        assert after._revision > before + 1_000_000

    with_manager(body)


def test_a_manager_that_dies_after_its_answer_knows_of_it() -> None:
    async def body(cluster: SimCluster) -> None:
        for number in range(3):
            name = f"v{number}"
            await cluster.start_job(api.CreateVolume(name=name, size_bytes=16 * MIB))
            cluster.world.kill_daemon("h1")
            await asyncio.sleep(3)
            assert await cluster.find(name) is not None

    simulate(body, lambda: SimCluster(51))
