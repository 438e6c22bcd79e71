"""The manager's place over a real database file: what is found there, and what is never made."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.sim import loop
from tests.sim.cluster import CLUSTER, OpenIssuer
from tests.sim.loop import SimClock
from vastskyd.config.settings import Config
from vastskyd.core import answers, api
from vastskyd.core.description import DiskDescription
from vastskyd.core.errors import ConflictError, DamagedError, FailedError
from vastskyd.core.ids import ClusterId, DiskId, NodeId
from vastskyd.core.model import Cluster, Node, Record, Role
from vastskyd.core.state import ClusterState, Draft
from vastskyd.core.turn import Policy
from vastskyd.core.units import MIB
from vastskyd.core.witness import DiskSighting, Introduction
from vastskyd.ports import Handler
from vastskyd.roles import founding
from vastskyd.roles.keeper import Keeper
from vastskyd.store.identity import Identity
from vastskyd.store.sqlite import SqliteStore
from vastskyd.store.vault import SqliteVault

ME = NodeId("m")
DISK = DiskId("d" * 16)
ROLES = (Role.MANAGER, Role.STORAGE)
IDENTITY = Identity(
    cluster=CLUSTER, cluster_name="sim", node=ME, roles=ROLES, addresses=("10.0.0.1",), port=1,
    rack="", manager=ME, manager_addresses=("10.0.0.1",), manager_port=1,
)  # fmt: skip


class Alone:
    """ports.Peers of a manager that hears itself only, with one disk."""

    async def call(self, node: NodeId, request: Record, timeout_s: float) -> Record:
        match request:
            case api.Introduce():
                return Introduction(
                    node=node, roles=ROLES, addresses=("10.0.0.1",), port=1, rack="", revision=0,
                    disks=(DiskSighting(id=DISK, path="p", serial="s", size_bytes=64 * MIB,
                                        generation=1),),
                )  # fmt: skip
            case api.DescribeDisk():
                description = DiskDescription(
                    cluster=CLUSTER, disk=DISK, area_start_bytes=4 * MIB, area_end_bytes=63 * MIB
                )
                return api.DiskDescribed(description=description)
        raise FailedError(f"{request} was not expected")

    def connected(self) -> frozenset[NodeId]:
        return frozenset({ME})

    async def probe(self, node: NodeId, addresses: tuple[str, ...], port: int) -> bool:
        return False

    def listen(self, handler: Handler, changed: Callable[[NodeId, bool], None]) -> None:
        raise FailedError("nobody listens here")


class Slow(Alone):
    """`asked`: how often it was asked what it has, which takes it a second."""

    def __init__(self) -> None:
        self.asked = 0

    async def call(self, node: NodeId, request: Record, timeout_s: float) -> Record:
        if isinstance(request, api.Introduce):
            self.asked += 1
            await asyncio.sleep(1.0)
        return await super().call(node, request, timeout_s)


def keeper(vault: SqliteVault, peers: Alone | None = None) -> Keeper:
    clock = SimClock(random.Random(1))
    return Keeper(IDENTITY, vault, peers or Alone(), clock, Policy(), OpenIssuer())


def make(path: Path, cluster: ClusterId = CLUSTER) -> None:
    draft = Draft(ClusterState())
    draft.put(Cluster(id=cluster, name="c", manager=ME, created_s=0.0))
    draft.put(Node(id=ME, roles=ROLES, addresses=("10.0.0.1",), port=1, export_port=2))
    store = SqliteStore(path)
    store.commit(draft.puts(), ())
    store.close()


async def status(at: Keeper) -> answers.ClusterStatus:
    answer = await at.ask(api.ShowStatus())
    assert isinstance(answer, answers.ClusterStatus)
    return answer


def with_keeper(path: Path, body: Callable[[Keeper], Awaitable[None]]) -> None:
    vault = SqliteVault(path)

    async def main() -> None:
        await body(keeper(vault))

    try:
        loop.run(main(), 60.0)
    finally:
        vault.close()


def nothing(path: Path) -> None:
    """No file."""


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (nothing, "is missing"),
    "garbage": (lambda path: path.write_bytes(b"x" * 9000), "damaged"),
    "emptied": (lambda path: path.write_bytes(b""), "holds no cluster"),
    "another's": (lambda path: make(path, ClusterId("e" * 16)), "that of cluster eeee"),
    "unreadable": (
        lambda path: _commit(path, (("nodes", "m", b"\xc1"),)), "record nodes/m cannot be read"
    ),
    "newer": (lambda path: _commit(path, (("wonders", "m", b"1"),)), "unknown kind, wonders"),
}  # fmt: skip


def _commit(path: Path, puts: tuple[tuple[str, str, bytes], ...]) -> None:
    make(path)
    store = SqliteStore(path)
    store.commit(puts, ())
    store.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_used_is_told_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "manager.db"
    spoil, word = DAMAGES[damage]
    spoil(path)
    before = path.read_bytes() if path.exists() else None

    async def body(at: Keeper) -> None:
        (problem,) = (await status(at)).problems
        assert word in problem
        assert "vastskyctl cluster recover" in problem
        assert at.is_member(NodeId("anybody"))
        with pytest.raises(ConflictError, match="no records"):
            await at.ask(api.CreateVolume(name="v", size_bytes=MIB))

    with_keeper(path, body)
    if before is None:
        assert not path.exists()
    elif damage in ("missing", "garbage"):
        assert path.read_bytes() == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_new_records_are_made_in_their_place(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "manager.db"
    DAMAGES[damage][0](path)

    async def body(at: Keeper) -> None:
        with pytest.raises(ConflictError, match="about to connect"):
            await at.ask(api.FinishRecovery())
        view = await at.ask(api.FinishRecovery(without_missing=True))
        assert isinstance(view, answers.RecoveryView)
        assert (view.disks, view.nodes) == (1, ("m",))
        assert bool(view.kept_as) == (damage != "missing")
        assert not any("recover" in problem for problem in (await status(at)).problems)
        assert not at.is_member(NodeId("anybody"))

    with_keeper(path, body)
    store = SqliteStore(path)
    assert DISK in store.load()["disks"]
    store.close()
    names = [each.name for each in tmp_path.glob("manager.db.2*")]
    assert len([name for name in names if not name.endswith(("-wal", "-shm"))]) == (
        damage != "missing"
    )


def test_records_that_are_whole_are_used(tmp_path: Path) -> None:
    path = tmp_path / "manager.db"
    make(path)

    async def body(at: Keeper) -> None:
        assert (await status(at)).nodes == 1
        assert at.is_member(ME)
        with pytest.raises(ConflictError, match="has its records"):
            await at.ask(api.FinishRecovery(without_missing=True))
        view = await at.ask(api.ShowRecovery())
        assert view == answers.RecoveryView(recovering=False, why="")

    with_keeper(path, body)


def test_many_who_look_at_once_do_not_keep_the_hosts_busy(tmp_path: Path) -> None:
    """Nor whoever makes the records anew: everybody may look."""
    vault = SqliteVault(tmp_path / "manager.db")
    peers = Slow()

    async def main() -> None:
        at = keeper(vault, peers)
        looking = [asyncio.create_task(at.ask(api.ShowRecovery())) for _ in range(50)]
        await asyncio.sleep(0.5)
        await at.ask(api.FinishRecovery(without_missing=True))
        assert peers.asked == 2, "what had begun, and one after it"
        views = await asyncio.gather(*looking)
        assert all(isinstance(each, answers.RecoveryView) and each.disks == 1 for each in views)

    try:
        loop.run(main(), 60.0)
    finally:
        vault.close()


def test_a_manager_without_its_ca_says_so_only_to_who_wants_in(tmp_path: Path) -> None:
    config = Config(state_dir=str(tmp_path))
    issuer = founding.issuer(config, SimClock(random.Random(1)))
    with pytest.raises(DamagedError, match="CA cannot be used") as caught:
        issuer.issue("csr", ME, ())
    assert "backup" in caught.value.hint
    with pytest.raises(DamagedError):
        issuer.ca_pem()
