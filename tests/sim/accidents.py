"""What may happen to a cluster, each as its kernels and networks would show it.

An accident begins, lasts, and ends: when its coroutine returns, the host runs, the network is
whole, the disk is where it was. Only what is dead for good stays so, in `dead`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.sim.cluster import SimCluster
from tests.sim.fake_disks import FAILING, WELL, FakeMedia
from tests.sim.fake_kernel import FakeHost
from tests.sim.faults import Fault, FaultKind
from vastskyd.core.units import MIB

HOUR_S = 3600.0
# Shorter than any patience, as a reboot takes, past the delay of rebuilds, and for long.
LASTS_S = (1.0, 5.0, 20.0, 60.0, 60.0, 300.0, 900.0, 5000.0)
FOREIGN = ("ext4 filesystem", "partition table", "")
DISK_BYTES = 256 * MIB

_POINTS = (
    "dm.",
    "md.",
    "nbd.",
    "exports.",
    "disks.",
    "store.commit",
    "peers.",
    "kernel.",
)


class Plots:
    """faults.FaultPlan: the next passing of a point that begins so, on that host, goes wrong."""

    def __init__(self) -> None:
        self._plots: list[tuple[str, str, Fault]] = []

    def next(self, host: str, point: str, fault: Fault) -> None:
        self._plots.append((host, point, fault))

    def clear(self) -> None:
        self._plots.clear()

    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        if not self._plots:
            return None
        for plot in self._plots:
            if plot[0] == host and point.startswith(plot[1]):
                self._plots.remove(plot)
                return plot[2]
        return None


class Accidents:
    """`happen` is one of them at random. `done` counts them by kind."""

    def __init__(self, cluster: SimCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.rng = rng
        self.plots = Plots()
        self.world.plan = self.plots
        self.done: Counter[str] = Counter()
        self.dead: dict[str, FakeMedia] = {}
        self.foreign: list[tuple[FakeMedia, str]] = []
        # Where disks belong that are elsewhere now, by serial.
        self.homes: dict[str, tuple[FakeHost, FakeMedia]] = {}
        self._made = 0
        # Disks out of their hosts, or in others than their own, are one accident's at a time.
        self._hands = asyncio.Lock()

    async def happen(self, kinds: tuple[str, ...]) -> None:
        kind = self.rng.choice(kinds)
        self.done[kind] += 1
        self.world.log(f"accident: {kind}")
        await KINDS[kind](self)

    def heal(self) -> None:
        """All that is not dead is well."""
        self.plots.clear()
        self.world.full_stores.clear()
        for name, host in self.world.hosts.items():
            self.world.thaw(name)
            host.skew_s = 0.0
            self.cluster.power_on(name)
            for media in host.media:
                media.bad.clear()
                media.unreadable.clear()
                media.unwritable.clear()
                media.slow_s = 0.0
                media.smart = WELL
        self.world.heal()

    def end_absences(self) -> None:
        """Daemons that were away when all ended start now, however long they were to be."""
        for name in self.world.hosts:
            self.world.start_again(name)

    def come_home(self) -> None:
        """Disks that were out of their hosts, or in others, when all ended."""
        for home, media in self.homes.values():
            host = self.host_of(media)
            if host is not home:
                if host is not None:
                    host.pull(media.serial)
                home.insert(media)
        self.homes.clear()

    # --- who and for how long -----------------------------------------------------------------

    async def _lasts(self, most_s: float = 2 * HOUR_S) -> None:
        chosen_s = self.rng.choice([s for s in LASTS_S if s <= most_s])
        await asyncio.sleep(chosen_s * self.rng.uniform(0.5, 1.5))

    def _host(self) -> str:
        return self.rng.choice(list(self.world.hosts))

    def _hosts(self, count: int) -> list[str]:
        return self.rng.sample(list(self.world.hosts), count)

    def _keepers(self) -> list[FakeHost]:
        return [host for host in self.world.hosts.values() if host.media]

    def _disk(self) -> FakeMedia | None:
        """One that works, of a host that has power or not."""
        media = [
            media
            for host in self._keepers()
            for media in host.media
            if not media.failed and media.serial not in self.dead
        ]
        return self.rng.choice(media) if media else None

    def host_of(self, media: FakeMedia) -> FakeHost | None:
        return next((h for h in self.world.hosts.values() if media in h.media), None)

    # --- hosts ----------------------------------------------------------------------------------

    async def power_cut(self) -> None:
        await self._without_power([self._host()])

    async def several_power_cuts(self) -> None:
        await self._without_power(self._hosts(self.rng.randint(2, len(self.world.hosts))))

    async def rack_lost(self) -> None:
        racks = sorted(set(self.cluster.racks.values()))
        if racks:
            rack = self.rng.choice(racks)
            await self._without_power([h for h, r in self.cluster.racks.items() if r == rack])

    async def _without_power(self, hosts: list[str]) -> None:
        for host in hosts:
            self.world.power_cut(host)
            await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.5)))
        await self._lasts()
        for host in hosts:
            self.cluster.power_on(host)
            await asyncio.sleep(self.rng.choice((0.0, 0.0, 20.0)))

    async def hang(self) -> None:
        host = self._host()
        self.world.freeze(host)
        await self._lasts()
        self.world.thaw(host)

    async def daemon_killed(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self.world.kill_daemon(self._host())
            await asyncio.sleep(self.rng.uniform(0, 3))

    async def daemon_away(self) -> None:
        host, away_s = self._host(), self.rng.choice((10.0, 60.0, 900.0))
        self.world.kill_daemon(host, away_s)
        await asyncio.sleep(away_s + 5)

    async def daemon_crashes_at_a_step(self) -> None:
        fault = Fault(self.rng.choice((FaultKind.CRASH, FaultKind.CRASH, FaultKind.POWER_CUT)))
        await self._at_a_step(fault)

    async def step_fails(self) -> None:
        await self._at_a_step(Fault(FaultKind.FAIL))

    async def step_takes_long(self) -> None:
        await self._at_a_step(Fault(FaultKind.DELAY, self.rng.uniform(0.5, 20)))

    async def _at_a_step(self, fault: Fault) -> None:
        for _ in range(self.rng.randint(1, 3)):
            point = self.rng.choice(_POINTS)
            spared = ("store.", "kernel.", "disks.write_slot", "disks.")
            if fault.kind is FaultKind.FAIL and point.startswith(spared):
                continue
            self.plots.next(self._host(), point, fault)
        await asyncio.sleep(self.rng.uniform(5, 60))
        self.plots.clear()
        await asyncio.sleep(30)
        for host in self.world.hosts:
            self.cluster.power_on(host)

    async def manager_crashes_at_a_commit(self) -> None:
        done = self.rng.choice(("store.commit", "store.commit.done"))
        self.plots.next(self.cluster.manager, done, Fault(FaultKind.CRASH))
        await asyncio.sleep(30)
        self.plots.clear()

    async def store_full(self) -> None:
        self.world.full_stores[self.cluster.manager] = None
        await self._lasts(900)
        self.world.full_stores.clear()

    async def clock_jumps(self) -> None:
        host = self.world.hosts[self.rng.choice((self._host(), self.cluster.manager))]
        host.skew_s += self.rng.choice((-HOUR_S, HOUR_S, -5.0, 5.0))
        await self._lasts()
        host.skew_s = 0.0

    async def export_server_killed(self) -> None:
        for host in self._keepers():
            for head in list(host.servers):
                if self.rng.random() < 0.5:
                    host.kill_export_server(head)
        await asyncio.sleep(1)

    # --- networks -------------------------------------------------------------------------------

    async def partition(self) -> None:
        group = self._hosts(self.rng.randint(1, len(self.world.hosts) // 2))
        self.world.partition(*group)
        await self._lasts()
        self.world.heal()

    async def one_network_dies(self) -> None:
        net, number = self.world.network, self.rng.randrange(2)
        names = list(self.world.hosts)
        for at, one in enumerate(names):
            for two in names[at + 1 :]:
                net.cut_data(one, two, number)
        await self._lasts()
        self.world.heal()

    async def manager_cannot_see(self) -> None:
        """A host that all others reach."""
        other = self._host()
        if other != self.cluster.manager:
            self.world.network.cut_control(self.cluster.manager, other)
        await self._lasts()
        self.world.heal()

    async def head_cannot_see(self) -> None:
        """A storage host that the manager reaches."""
        one, two = self._hosts(2)
        for number in (0, 1):
            self.world.network.cut_data(one, two, number)
        await self._lasts()
        self.world.heal()

    async def flapping(self) -> None:
        for _ in range(self.rng.randint(3, 12)):
            one, two = self._hosts(2)
            self.world.network.cut_data(one, two, self.rng.randrange(2))
            if self.rng.random() < 0.5:
                self.world.network.cut_control(one, two)
            await asyncio.sleep(self.rng.uniform(0.1, 4))
            self.world.heal()
            await asyncio.sleep(self.rng.uniform(0.1, 4))

    # --- disks ----------------------------------------------------------------------------------

    async def disk_pulled(self) -> None:
        async with self._hands:
            await self._pulled(lambda host: host)

    async def disk_moved(self) -> None:
        async with self._hands:
            await self._pulled(lambda _: self.rng.choice(self._keepers()))

    async def _pulled(self, to: Callable[[FakeHost], FakeHost]) -> None:
        media = self._disk()
        home = None if media is None else self.host_of(media)
        if media is None or home is None:
            return
        self.homes[media.serial] = home, media
        home.pull(media.serial)
        await self._lasts(900)
        other = to(home)
        self.world.move_disk(media, other.name)
        if other is not home:
            await self._lasts()
            if media in other.media:  # else it died there, and an administrator has replaced it
                other.pull(media.serial)
                await asyncio.sleep(self.rng.uniform(0.1, 5))
                home.insert(media)
        del self.homes[media.serial]

    async def foreign_disk(self) -> None:
        """Somebody's disk stands where ours was, for a time."""
        async with self._hands:
            media = self._disk()
            home = None if media is None else self.host_of(media)
            if media is None or home is None:
                return
            self.homes[media.serial] = home, media
            home.pull(media.serial)
            other = self._new_media("foreign", self.rng.choice(FOREIGN))
            other.data = dict.fromkeys(range(other.size_bytes // MIB), -1)
            self.foreign.append((other, _content(other)))
            await asyncio.sleep(self.rng.uniform(0, 20))
            home.insert(other)
            await self._lasts(900)
            if other in home.media:  # else it died there, and an administrator has taken it away
                home.pull(other.serial)
            home.insert(media)
            del self.homes[media.serial]

    async def bad_grains(self) -> None:
        media = self._disk()
        if media is None:
            return
        where = self.rng.choice((media.bad, media.unreadable, media.unwritable))
        first = self.rng.randrange(media.size_bytes // MIB)
        where |= dict.fromkeys(range(first, first + self.rng.choice((1, 4, 64))))
        await self._lasts()
        where.clear()

    async def slow_disk(self) -> None:
        media = self._disk()
        if media is not None:
            media.slow_s = self.rng.choice((0.2, 1.0, 4.0, 15.0))
            await self._lasts(900)
            media.slow_s = 0.0

    async def disk_says_it_is_failing(self) -> None:
        """For a time: then it takes its word back."""
        media = self._disk()
        if media is not None:
            media.smart = FAILING
            await self._lasts()
            media.smart = WELL

    async def disk_dies(self) -> None:
        media = self._disk()
        if media is not None:
            self.dead[media.serial] = media
            media.failed = True
        await asyncio.sleep(1)

    async def description_refused(self) -> None:
        """Twice and more is for good."""
        host = self.rng.choice(self._keepers()).name
        for _ in range(self.rng.randint(1, 4)):
            self.plots.next(host, "disks.write_slot", Fault(FaultKind.FAIL))
        await asyncio.sleep(60)
        self.plots.clear()

    def new_disk(self, host: FakeHost) -> FakeMedia:
        media = self._new_media(host.name, "")
        host.insert(media)
        return media

    def _new_media(self, whose: str, found: str) -> FakeMedia:
        self._made += 1
        return FakeMedia(f"{whose}-new{self._made}", DISK_BYTES, found)

    def check_foreign(self) -> None:
        for media, before in self.foreign:
            if _content(media) != before:
                raise AssertionError(f"{media.serial} was nobody's, and was written to")


def _content(media: FakeMedia) -> str:
    """What is on it: it may have died since."""
    return repr((media.data, media.meta, media.slots, media.found))


KINDS: dict[str, Callable[[Accidents], Awaitable[None]]] = {
    "power cut": Accidents.power_cut,
    "several power cuts": Accidents.several_power_cuts,
    "rack lost": Accidents.rack_lost,
    "hang": Accidents.hang,
    "daemon killed": Accidents.daemon_killed,
    "daemon away": Accidents.daemon_away,
    "daemon crashes at a step": Accidents.daemon_crashes_at_a_step,
    "a step fails": Accidents.step_fails,
    "a step takes long": Accidents.step_takes_long,
    "manager crashes at a commit": Accidents.manager_crashes_at_a_commit,
    "manager's disk is full": Accidents.store_full,
    "clock jumps": Accidents.clock_jumps,
    "export server killed": Accidents.export_server_killed,
    "partition": Accidents.partition,
    "one network dies": Accidents.one_network_dies,
    "manager cannot see a host": Accidents.manager_cannot_see,
    "head cannot see a host": Accidents.head_cannot_see,
    "links flap": Accidents.flapping,
    "disk pulled": Accidents.disk_pulled,
    "disk moved": Accidents.disk_moved,
    "foreign disk": Accidents.foreign_disk,
    "bad grains": Accidents.bad_grains,
    "slow disk": Accidents.slow_disk,
    "disk says that it is failing": Accidents.disk_says_it_is_failing,
    "disk dies": Accidents.disk_dies,
    "description refused": Accidents.description_refused,
}
# After these everything can be made well again without an administrator.
BOUNDED = tuple(kind for kind in KINDS if kind not in ("disk dies", "description refused"))
