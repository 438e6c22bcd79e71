"""The simulated cluster: hosts, network, clock, daemons, and what goes wrong.

Make a World inside `loop.run`. Daemons are whatever a factory makes of `DaemonPorts`: a crash or a
power cut ends them with all their tasks, and a restart calls the factory again.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tests.fakes.store import MemoryStore
from tests.sim.contents import Contents
from tests.sim.fake_disks import FakeDisks, FakeMedia
from tests.sim.fake_exports import FakeExports
from tests.sim.fake_kernel import FakeHost, FakeKernel
from tests.sim.fake_network import FakeNetwork
from tests.sim.fake_peers import SimPeers, keep_session
from tests.sim.fake_smart import FakeSmart
from tests.sim.faults import DaemonCrash, Door, FaultPlan, NoFaults
from tests.sim.loop import SimClock, SimLoop, context_of
from tests.sim.write_cache import WriteCache
from vastskyd.core.errors import DamagedError, DeviceError, NoSpaceError, NotFoundError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Role
from vastskyd.ports import Store, Vault

_OWNER: contextvars.ContextVar["Daemon"] = contextvars.ContextVar("owner")


@dataclass(frozen=True)
class DaemonPorts:
    """All that a daemon gets."""

    node: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    kernel: FakeKernel
    exports: FakeExports
    disks: FakeDisks
    smart: FakeSmart
    vault: Vault
    peers: SimPeers
    clock: SimClock


class Program(Protocol):
    async def run(self) -> None:
        """Until it is killed: returning or raising is a bug."""


Factory = Callable[[DaemonPorts], Program]


class Daemon:
    """One life of a host's vastskyd."""

    def __init__(self, world: "World", host: FakeHost, factory: Factory) -> None:
        self.factory = factory
        self.tasks: dict[asyncio.Task[Any], None] = {}
        context = context_of(host.name)
        context.run(_OWNER.set, self)
        self.door = Door(world, host.name, context)
        self.ports = world.ports(host.name, self.door)

    def kill(self) -> None:
        self.door.closed = True
        for task in list(self.tasks):
            task.cancel()

    def ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if self.door.closed and not task.cancelled():
            task.exception()


class GuardedStore:
    """ports.Store of one daemon: its commit may be the last thing it does. `full` is the file
    system that it is on."""

    def __init__(self, store: MemoryStore, door: Door, full: Callable[[], bool]) -> None:
        self._store = store
        self._door = door
        self._full = full

    def load(self) -> dict[str, dict[str, bytes]]:
        self._door.point_now("store.load")
        return self._store.load()

    def commit(
        self, puts: tuple[tuple[str, str, bytes], ...], deletes: tuple[tuple[str, str], ...]
    ) -> None:
        self._door.point_now("store.commit")
        if self._full():
            raise NoSpaceError("cluster.db: database or disk is full", hint="make room")
        self._store.commit(puts, deletes)
        self._door.point_now("store.commit.done")


class FakeVault:
    """ports.Vault of one daemon over records that outlive it."""

    def __init__(self, store: MemoryStore, door: Door, is_full: Callable[[], bool]) -> None:
        self._store = store
        self._door = door
        self._is_full = is_full

    def open(self) -> Store:
        self._door.point_now("store.open")
        if self._store.unreadable:
            raise DeviceError(self._store.unreadable)
        if self._store.damage:
            raise DamagedError(f"the database is damaged: {self._store.damage}")
        if self._store.missing:
            raise NotFoundError("the database is missing")
        return GuardedStore(self._store, self._door, self._is_full)

    def set_aside(self, now_s: float) -> str:
        self._door.point_now("store.set_aside")
        return self._store.set_aside()

    def renew(self, puts: tuple[tuple[str, str, bytes], ...], now_s: float) -> str:
        self._door.point_now("store.renew")
        kept = self._store.set_aside()
        self._door.point_now("store.renew.aside")
        self._store.renew(puts)
        self._door.point_now("store.renew.done")
        return kept


class World:
    """`trace` has every point passed and every event, while `tracing`. `failures` are bugs of the
    daemons.

    `restart_s`: how long after a crash systemd starts the daemon again; None: never.
    `reboot_s`: how long after a power cut the host comes back; None: never.
    """

    def __init__(
        self,
        seed: int,
        plan: FaultPlan | None = None,
        *,
        restart_s: float | None = None,
        reboot_s: float | None = None,
    ) -> None:
        self.seed = seed
        self.plan: FaultPlan = NoFaults() if plan is None else plan
        self.restart_s = restart_s
        self.reboot_s = reboot_s
        self.network = FakeNetwork()
        self.contents = Contents()
        self.hosts = self.network.hosts
        self.daemons: dict[str, Daemon] = {}
        self.stores: dict[str, MemoryStore] = {}
        self.full_stores: dict[str, None] = {}
        self.tracing = True
        self.trace: list[str] = []
        self.failures: list[str] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._lives = 0
        self._factories: dict[str, Factory] = {}
        asyncio.get_running_loop().set_task_factory(cast(Any, _new_task))

    def rng(self, purpose: str) -> random.Random:
        """A stream of its own for each purpose: one more draw in one does not shift another."""
        return random.Random(f"{self.seed}:{purpose}")

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def log(self, text: str) -> None:
        if self.tracing:
            self.trace.append(f"{self.now_s():.6f} {text}")

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of the world's own, which no daemon's death ends."""
        task = contextvars.Context().run(asyncio.get_running_loop().create_task, coro)
        self._tasks[task] = None
        task.add_done_callback(lambda ended: self._tasks.pop(ended, None))
        return task

    # --- hosts ---------------------------------------------------------------------------------

    def add_host(
        self,
        name: str,
        *roles: Role,
        disks: int = 0,
        disk_bytes: int = 256 << 20,
        networks: int = 2,
    ) -> FakeHost:
        """Its disks have the serials NAME-0, NAME-1, and so on. Those of a storage host have a
        write cache; a head's have none, for the programs on heads flush nothing."""
        number = len(self.hosts) + 1
        addresses = tuple(f"10.0.{network}.{number}" for network in range(networks))
        media = tuple(
            FakeMedia(f"{name}-{i}", disk_bytes, cache=None if Role.HEAD in roles else WriteCache())
            for i in range(disks)
        )
        rng = self.rng(f"host:{name}")
        host = FakeHost(name, roles, addresses, media, self.network, rng, self.contents)
        self.stores[name] = MemoryStore()
        for other in self.hosts.values():
            if other is not host and Role.MANAGER in (*roles, *other.roles):
                self._connect(name, other.name)
        return host

    def move_disk(self, media: FakeMedia, to: str) -> None:
        """It comes from another host. In a head it has no write cache, as in add_host."""
        host = self.hosts[to]
        if Role.HEAD in host.roles and media.cache is not None:
            media.cache.flush()
            media.cache = None
        host.insert(media)

    def _connect(self, one: str, two: str) -> None:
        def ends() -> tuple[SimPeers | None, SimPeers | None]:
            return self._peers(one), self._peers(two)

        rng = self.rng(f"session:{one}:{two}")
        self.spawn(keep_session(self.network, rng, ends))

    def _peers(self, host: str) -> SimPeers | None:
        daemon = self.daemons.get(host)
        return None if daemon is None else daemon.ports.peers

    def _reaches(self, one: str, two: str) -> bool:
        daemon = self._peers(two)
        return daemon is not None and daemon.ready() and self.network.control_ok(one, two)

    def door(self, host: str) -> Door:
        """For tests that use a host's ports by hand."""
        return Door(self, host, contextvars.Context())

    def ports(self, name: str, door: Door | None = None) -> DaemonPorts:
        """The ports of a host's running kernel; after a power cut ask for new ones."""
        host = self.hosts[name]
        door = self.door(name) if door is None else door
        self._lives += 1
        kernel = FakeKernel(host, door)
        peers = SimPeers(host.node, door, lambda: host.powered, self.failures.append)
        peers.listening = self.network.changed.fire
        peers.reaches = lambda other: self._reaches(name, other)
        return DaemonPorts(
            node=host.node,
            roles=host.roles,
            addresses=host.addresses,
            kernel=kernel,
            exports=kernel.exports,
            disks=kernel.disks,
            smart=kernel.smart,
            vault=FakeVault(self.stores[name], door, lambda: name in self.full_stores),
            peers=peers,
            clock=SimClock(self.rng(f"tokens:{name}:{self._lives}"), lambda: host.skew_s),
        )

    # --- daemons -------------------------------------------------------------------------------

    def start_daemon(self, name: str, factory: Factory) -> Daemon:
        if not self.hosts[name].powered or name in self.daemons:
            raise RuntimeError(f"{name} is off, or its daemon runs")
        self.log(f"{name} daemon starts")
        self._factories[name] = factory
        daemon = self.daemons[name] = Daemon(self, self.hosts[name], factory)
        daemon.door.spawn(self._live(name, daemon))
        return daemon

    async def _live(self, name: str, daemon: Daemon) -> None:
        try:
            await daemon.factory(daemon.ports).run()
            reason = "returned"
        except (asyncio.CancelledError, DaemonCrash):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever ended it is a bug to be told
            reason = repr(error)
        if not daemon.door.closed:
            self.failures.append(f"{name}: the daemon ended by itself: {reason}")
            self.kill_daemon(name)

    def kill_daemon(self, host: str, down_s: float = 0.0) -> None:
        """kill -9: the kernel and the export servers go on. Nothing, if it does not run. `down_s`:
        how much later than systemd would it starts again."""
        daemon = self.daemons.pop(host, None)
        if daemon is None:
            return
        self.log(f"{host} daemon killed")
        daemon.kill()
        self.network.changed.fire()
        if self.restart_s is not None:
            self.spawn(self._restart(host, self.restart_s + down_s))

    async def _restart(self, host: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.start_again(host)

    def start_again(self, host: str) -> None:
        """Nothing, if it runs, or was never started, or its host is off."""
        if self.hosts[host].powered and host not in self.daemons and host in self._factories:
            self.start_daemon(host, self._factories[host])

    # --- power and network ---------------------------------------------------------------

    def power_cut(self, host: str) -> None:
        if not self.hosts[host].powered:
            return
        self.log(f"{host} power cut")
        self.thaw(host)
        daemon = self.daemons.pop(host, None)
        if daemon is not None:
            daemon.kill()
        self.hosts[host].power_cut()
        if self.reboot_s is not None:
            self.spawn(self._reboot(host))

    async def _reboot(self, host: str) -> None:
        await asyncio.sleep(self.reboot_s or 0.0)
        self.power_on(host, self._factories.get(host))

    def power_on(self, host: str, factory: Factory | None = None) -> None:
        if self.hosts[host].powered:
            return
        self.log(f"{host} power on")
        self.hosts[host].power_on()
        if factory is not None:
            self.start_daemon(host, factory)

    def freeze(self, host: str) -> None:
        """The host hangs: nothing of it goes on, and nobody hears of it. It keeps its memory."""
        if host not in self.network.frozen and self.hosts[host].powered:
            self.log(f"{host} hangs")
            self.network.frozen[host] = None
            _loop().freeze(host)
            self.network.changed.fire()

    def thaw(self, host: str) -> None:
        """It goes on where it was."""
        if host in self.network.frozen:
            self.log(f"{host} goes on")
            del self.network.frozen[host]
            _loop().thaw(host)
            self.network.changed.fire()

    def partition(self, *hosts: str) -> None:
        """These hosts, together, are cut off from all others."""
        self.log(f"partition {' '.join(hosts)}")
        self.network.partition(hosts)

    def heal(self) -> None:
        self.log("heal")
        self.network.heal()

    def check(self) -> None:
        """Raises if a daemon showed a bug of its own."""
        if self.failures:
            raise AssertionError("\n".join(self.failures))


def _loop() -> SimLoop:
    return cast(SimLoop, asyncio.get_running_loop())


def _new_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """A task made by a daemon's task is that daemon's."""
    task = asyncio.Task(coro, loop=loop, **options)
    context: contextvars.Context = options.get("context") or contextvars.copy_context()
    owner = context.get(_OWNER)
    if owner is not None:
        owner.tasks[task] = None
        task.add_done_callback(owner.ended)
        if owner.door.closed:
            task.cancel()
    return task
