"""A run of random operations in random weather, of which a seed is all there is to know.

Daemons crash, hosts lose power and networks part, between any two steps. When the weather has
cleared, everything asked for must come to an end, and everything acknowledged must be there.
"""

import asyncio
import random
from functools import partial

from tests.sim import loop
from tests.sim.cluster import APART, TOGETHER, SimCluster, kept_apart
from tests.sim.faults import Fault, FaultKind, RandomFaults
from vastskyd.core import api
from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record, VolumeState
from vastskyd.core.units import MIB

STORM_S = 60.0
CALM_S = 300.0
LIMIT_S = 4000.0
NAMES = ("v", "w")
GRAINS = 24
# Of every volume a leg, and one more of each that is worth nothing any more.
DISK_BYTES = 160 * MIB
PROBABILITIES = {
    FaultKind.CRASH: 0.0015,
    FaultKind.POWER_CUT: 0.0004,
    FaultKind.FAIL: 0.002,
    FaultKind.DELAY: 0.004,
}


class Weather(RandomFaults):
    """A store that fails and a host that cannot hear of changes end the daemon, and a disk that
    refuses its description twice has failed for good: no such calls fail here."""

    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        fault = super().at(host, point, now_s)
        spared = fault is not None and fault.kind is FaultKind.FAIL
        if spared and point.startswith(("store.", "kernel.wait_change", "disks.write_slot")):
            return None
        return fault


class Storm:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        rng = random.Random(f"{seed}:shape")
        shape, self.copies_apart = kept_apart(seed, rng.choice((APART, TOGETHER)))
        self.cluster = SimCluster(
            seed,
            shape,
            restart_s=1.0,
            reboot_s=rng.choice((8.0, 60.0)),
            disk_bytes=DISK_BYTES,
            copies_apart=self.copies_apart,
        )
        self.world = self.cluster.world
        self.copies = {name: rng.choice((2, 2, 2, 3, 1)) for name in NAMES}
        force = rng.choice((0.3, 1.0, 3.0))
        self.probabilities = {kind: force * chance for kind, chance in PROBABILITIES.items()}
        self.ends_s = 0.0
        self.lost = False

    def _more(self) -> list[asyncio.Task[None]]:
        """What else goes on."""
        return []

    async def _mend(self) -> None:
        """What somebody does when the weather has cleared."""

    async def run(self) -> None:
        cluster = self.cluster
        await cluster.enrol_all()
        self.ends_s = self.world.now_s() + STORM_S
        self.world.plan = Weather(
            self.world.rng("plan"), self.probabilities, until_s=self.ends_s, delay_max_s=4.0
        )
        users = [cluster.spawn(self._use(name)) for name in NAMES]
        programs = [
            cluster.spawn(self._program(name, number)) for name in NAMES for number in range(3)
        ]
        weather = [cluster.spawn(self._network()), cluster.spawn(self._hands()), *self._more()]
        await asyncio.wait((*users, *weather))
        self.world.heal()
        for name in self.world.hosts:
            cluster.power_on(name)
        await asyncio.sleep(10)
        await self._mend()
        for program in programs:
            program.cancel()
        for task in (*users, *weather):
            task.result()
        self.world.check()
        await self._calm()
        self.world.check()

    # --- the storm ------------------------------------------------------------------------------

    async def _network(self) -> None:
        rng = self.world.rng("network")
        hosts = list(self.world.hosts)
        while self.world.now_s() < self.ends_s:
            await asyncio.sleep(rng.uniform(5, 40))
            if rng.random() < 0.5:
                self.world.partition(*rng.sample(hosts, rng.randint(1, len(hosts) // 2)))
            else:
                one, two = rng.sample(hosts, 2)
                self.world.log(f"{one} and {two} part")
                self.world.network.cut_data(one, two, rng.randrange(2))
                if rng.random() < 0.5:
                    self.world.network.cut_control(one, two)
            await asyncio.sleep(rng.uniform(1, 20))
            self.world.heal()

    async def _hands(self) -> None:
        """Somebody in the machine room: pulls disks and plugs them in, here or there, and ends
        export servers."""
        rng = self.world.rng("hands")
        hosts = self.world.hosts
        if rng.random() < 0.5:
            return
        keeping = [name for name, host in hosts.items() if host.media]
        home = {media.serial: host for host in hosts.values() for media in host.media}
        while self.world.now_s() < self.ends_s:
            await asyncio.sleep(rng.uniform(5, 30))
            host = hosts[rng.choice(keeping)]
            if rng.random() < 0.3:
                for head in list(host.servers):
                    self.world.log(f"{host.name}: the export server for {head} is killed")
                    host.kill_export_server(head)
            elif host.media:
                media = host.pull(rng.choice(host.media).serial)
                self.world.log(f"{host.name}: {media.serial} is pulled")
                await asyncio.sleep(rng.uniform(0.1, 20))
                other = host if rng.random() < 0.6 else hosts[rng.choice(keeping)]
                self.world.log(f"{other.name}: {media.serial} is plugged in")
                self.world.move_disk(media, other.name)
        for host in hosts.values():
            for media in [media for media in host.media if home[media.serial] is not host]:
                self.world.log(f"{media.serial} goes home")
                home[media.serial].insert(host.pull(media.serial))

    async def _use(self, name: str) -> None:
        """An administrator who changes his mind."""
        rng = self.world.rng(f"user:{name}")
        while self.world.now_s() < self.ends_s:
            if self.lost:  # there is nobody to ask, and no telling what there is
                await asyncio.sleep(1)
                continue
            request = next_request(self.cluster, rng, name, self.copies[name])
            self.world.log(f"asks for {request}")
            try:
                async with asyncio.timeout(rng.uniform(1, 30)):
                    job = await self.cluster.start_job(request)
                    job = await self.cluster.job(job)
                    self.world.log(f"{job.kind} {name}: {job.state} {job.message}")
            except TimeoutError:
                self.world.log("asks no longer")
            except VastskyError as error:
                self.world.log(f"is answered: {error.message}")
            await asyncio.sleep(rng.uniform(0, 15))

    async def _program(self, name: str, number: int) -> None:
        """Writes and reads where the volume is."""
        rng = self.world.rng(f"program:{name}:{number}")
        checker = self.cluster.checker
        while True:
            await asyncio.sleep(rng.uniform(0.05, 0.6))
            head = self.cluster.attached_on(name)
            if not head:
                continue
            grain = rng.randrange(number, GRAINS, 3)
            try:
                await checker.write(head, name, grain)
                await checker.read(head, name, rng.randrange(number, GRAINS, 3))
            except AssertionError as error:
                self.world.failures.append(str(error))
                return

    # --- after it -------------------------------------------------------------------------------

    async def _calm(self) -> None:
        cluster = self.cluster
        await cluster.until("all jobs end", CALM_S, self._idle)
        for name in NAMES:
            if cluster.owner(name):
                head = cluster.owner(name)
                await cluster.until(f"{name} is settled", CALM_S, partial(self._settled, name))
                if cluster.attached_on(name):
                    head = cluster.attached_on(name)
                    await cluster.until(
                        f"{name} is redundant", CALM_S, partial(cluster.redundant, name)
                    )
                    await cluster.checker.read_all(head, name)
                    await self._scrub(name)
                    await cluster.detach(name)
            if await cluster.find(name) is None:
                continue
            await cluster.until(f"{name} is made", CALM_S, partial(self._made, name))
            for head in cluster.heads:
                await cluster.attach(name, head)
                await cluster.checker.read_all(head, name)
                await cluster.until(
                    f"{name} is redundant", CALM_S, partial(cluster.redundant, name)
                )
                await cluster.checker.read_all(head, name)
                await cluster.detach(name)
            await cluster.delete(name)
        await cluster.nothing_left(CALM_S)
        if found := {"scrub-repaired", "scrub-undecided"} & set(await cluster.events()):
            raise AssertionError(f"nobody flipped a bit: {found}")

    async def _scrub(self, name: str) -> None:
        """No bit was flipped: whatever happened, the copies are the same."""
        if self.copies[name] < 2:
            return
        job = await self.cluster.do(api.ScrubVolume(volume=name), CALM_S)
        if job.message != "no difference in 24.0 MiB":
            raise AssertionError(f"{name}: {job.message}")

    def _idle(self) -> bool:
        jobs = self.cluster.state().jobs.values()
        return not any(job.state == "running" for job in jobs)

    def _made(self, name: str) -> bool:
        """Where its records were lost meanwhile no job says so."""
        return self.cluster.state_of(name).state is VolumeState.AVAILABLE

    def _settled(self, name: str) -> bool:
        attached = self.cluster.attached_on(name) != ""
        return attached or not self.cluster.owner(name)


def next_request(cluster: SimCluster, rng: random.Random, name: str, copies: int) -> Record:
    """What an administrator might want of the volume now."""
    heads = cluster.heads
    exists = any(v.name == name for v in cluster.state().volumes.values())
    owner = cluster.owner(name)
    drawn = rng.random()
    if not exists:
        cluster.checker.forget(name)
        standby = tuple(NodeId(head) for head in heads) if rng.random() < 0.5 else ()
        return api.CreateVolume(name=name, size_bytes=24 * MIB, copies=copies, standby=standby)
    if not owner:
        if drawn < 0.1:
            return api.DeleteVolume(volume=name)
        return api.AttachVolume(volume=name, head=NodeId(rng.choice(heads)))
    if drawn < 0.3:
        return api.AttachVolume(volume=name, head=NodeId(rng.choice(heads)))
    if drawn < 0.5:
        return api.FailoverVolume(volume=name, head=rng.choice(heads))
    if drawn < 0.75:
        return api.ScrubVolume(volume=name)
    return api.DetachVolume(volume=name)


def run(seed: int, trace: list[str] | None = None) -> None:
    """Raises what went wrong. `trace` is filled with what happened."""

    async def main() -> None:
        storm = Storm(seed)
        try:
            await storm.run()
        finally:
            if trace is not None:
                trace.extend(storm.world.trace)

    loop.run(main(), LIMIT_S)
