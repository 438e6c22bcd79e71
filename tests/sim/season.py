"""Hours of a cluster's life, of which a seed is all there is to know: mostly quiet, and accidents.

In a season of *liveness* they are bounded and then mended, and within a bound everything must be
well and said to be. In one of *safety* anything may happen at any time, and stay so: whatever was
acknowledged must be there as long as the set has kept a recovery quorum of its legs.
"""

import asyncio
import contextlib
import random
from collections import Counter
from enum import StrEnum

from tests.sim import loop, survey
from tests.sim.accidents import BOUNDED, DISK_BYTES, HOUR_S, KINDS, Accidents
from tests.sim.cluster import APART, RACKED, RACKS, TOGETHER, SimCluster, kept_apart
from tests.sim.fake_disks import FakeMedia
from tests.sim.storm import GRAINS, next_request
from vastskyd.core import api
from vastskyd.core.errors import BusyError, ConflictError, NotFoundError, VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Disk, DiskState, Layout, Volume
from vastskyd.core.turn import Policy
from vastskyd.core.units import MIB

NAMES = ("u", "v", "w")
CALM_S = 300.0
QUIET_MEAN_S = 1800.0
STIRRED_S = 40.0
POLICY = Policy(rebuild_delay_s=600.0, segment_max_bytes=16 * MIB)


class Mode(StrEnum):
    SAFETY = "safety"
    LIVENESS = "liveness"


class Season:
    """One run."""

    def __init__(self, seed: int, mode: Mode, hours: float, *, tracing: bool = False) -> None:
        self.seed = seed
        self.mode = mode
        self.length_s = hours * HOUR_S
        rng = random.Random(f"{seed}:season")
        shape, copies_apart = kept_apart(seed, rng.choice((APART, TOGETHER, RACKED)))
        self.cluster = SimCluster(
            seed,
            shape,
            policy=POLICY,
            disk_bytes=DISK_BYTES,
            racks=RACKS if shape is RACKED else None,
            copies_apart=copies_apart,
        )
        self.world = self.cluster.world
        self.world.tracing = tracing
        self.accidents = Accidents(self.cluster, self.world.rng("accidents"))
        self.copies = {name: rng.choice((2, 2, 3, 3, 1)) for name in NAMES}
        self.losses = survey.Losses(self.cluster)
        self.watch = survey.Watch(self.cluster)
        self._stirred = loop.Signal()
        self._stirred_until_s = 0.0
        self._used: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        await self.cluster.enrol_all()
        self._used = [
            self.cluster.spawn(self._program(name, number)) for name in NAMES for number in range(2)
        ]
        if self.mode is Mode.LIVENESS:
            self._used.append(self.cluster.spawn(self.watch.run()))
            while self.world.now_s() < self.length_s:
                await self._round()
        else:
            await self._anything()
        for task in self._used:
            task.cancel()
        self.world.check()

    # --- those who use it -------------------------------------------------------------------------

    def stir(self) -> None:
        """Programs have much to do for a while."""
        self._stirred_until_s = self.world.now_s() + STIRRED_S
        self._stirred.fire()

    async def _program(self, name: str, number: int) -> None:
        rng = self.world.rng(f"program:{name}:{number}")
        while True:
            if self.world.now_s() < self._stirred_until_s:
                await asyncio.sleep(rng.uniform(0.1, 2.0))
            else:
                await self._stirred.wait_for(rng.expovariate(1 / 600))
            heads = [h for h in self.cluster.heads if self.world.hosts[h].has_volume(name)]
            head = self.cluster.attached_on(name)
            try:
                if heads:  # one of which may have been fenced
                    grain = rng.randrange(number, GRAINS, 2)
                    await self.cluster.checker.write(rng.choice(heads), name, grain)
                if head:
                    await self._read(head, name, rng.randrange(GRAINS))
            except AssertionError as error:
                self.world.failures.append(str(error))
                return

    async def _read(self, head: str, name: str, grain: int) -> None:
        volume = self._volume(name)
        try:
            await self.cluster.checker.read(head, name, grain)
        except AssertionError:
            if volume is not None and not self.losses.excuse(volume, grain):
                raise

    def _volume(self, name: str) -> Volume | None:
        found = [v for v in self.cluster.state().volumes.values() if v.name == name]
        return found[0] if found else None

    async def _administrate(self) -> None:
        rng = self.world.rng(f"administrator:{self.world.now_s()}")
        for _ in range(rng.randint(0, 4)):
            name = rng.choice(NAMES)
            request = next_request(self.cluster, rng, name, self.copies[name])
            self.world.log(f"asks for {request}")
            with contextlib.suppress(TimeoutError, VastskyError):
                async with asyncio.timeout(rng.uniform(1, 120)):
                    await self.cluster.job(await self.cluster.start_job(request))
            await asyncio.sleep(rng.uniform(0, 60))

    # --- bounded accidents, and all is well again -------------------------------------------------

    async def _round(self) -> None:
        rng = self.accidents.rng
        await asyncio.sleep(rng.expovariate(1 / QUIET_MEAN_S))
        put_away = await self._put_away()
        tasks = [] if put_away else [asyncio.create_task(self._administrate())]
        if rng.random() < (0.5 if put_away else 0.1):
            # Alone: with another leg behind it would be more than redundancy is for.
            tasks.append(asyncio.create_task(self._accident(("disk dies", "description refused"))))
        else:
            for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
                tasks.append(asyncio.create_task(self._accident(BOUNDED)))
        await asyncio.gather(*tasks)
        self.accidents.heal()
        self.stir()
        for media in self._lost_media():
            await self._replace(media)
        await self._all_is_well()

    async def _put_away(self) -> bool:
        """Now and then nobody needs the volumes for a while, and what happens to them then is
        mended by nobody's attaching them."""
        rng = self.world.rng(f"put away:{self.world.now_s()}")
        if rng.random() < 0.6:
            return False
        for name in NAMES:
            if self.cluster.owner(name) and rng.random() < 0.8:
                with contextlib.suppress(TimeoutError, VastskyError):
                    async with asyncio.timeout(30):
                        request = api.DetachVolume(volume=name)
                        await self.cluster.job(await self.cluster.start_job(request))
        return True

    async def _accident(self, kinds: tuple[str, ...]) -> None:
        await asyncio.sleep(self.accidents.rng.choice((0.0, 0.0, 1.0, 10.0, 100.0)))
        self.stir()
        await self.accidents.happen(kinds)
        self.losses.note(self.accidents.dead)
        self.stir()

    def _lost_media(self) -> list[FakeMedia]:
        failed = {
            disk.serial
            for disk in self.cluster.state().disks.values()
            if disk.state is DiskState.FAILED
        }
        return [
            media
            for host in self.world.hosts.values()
            for media in host.media
            if media.serial in failed or media.serial in self.accidents.dead
        ]

    async def _replace(self, media: FakeMedia) -> None:
        """An administrator puts a new disk where the dead one was."""
        host = self.accidents.host_of(media)
        disk = self._disk(media)
        if host is None:
            return
        host.pull(media.serial)
        new = self.accidents.new_disk(host)
        self.world.log(f"{host.name}: {media.serial} is replaced by {new.serial}")
        await self._enrol(host.node, new)
        if disk is None:
            return
        for volume in list(self.cluster.state().volumes.values()):
            if self._was_last(volume, disk):
                await self._give_up(volume)
        await self.cluster.until(f"{media.serial} is retired", CALM_S, lambda: self._retired(disk))

    def _disk(self, media: FakeMedia) -> Disk | None:
        disks = self.cluster.state().disks.values()
        return next((disk for disk in disks if disk.serial == media.serial), None)

    async def _enrol(self, node: NodeId, media: FakeMedia) -> None:
        path = f"/dev/disk/by-id/{media.serial}"

        async def enrolled() -> bool:
            with contextlib.suppress(VastskyError):
                await self.cluster.do(api.EnrolDisk(node=node, path=path))
                return True
            return False

        await self.cluster.until(f"{media.serial} is enrolled", CALM_S, enrolled)

    def _uses(self, volume: Volume, disk: Disk) -> bool:
        state = self.cluster.state()
        legs = [leg.extent for segment in volume.segments for leg in segment.legs]
        return any(e in state.extents and state.extents[e].disk == disk.id for e in legs)

    def _was_last(self, volume: Volume, disk: Disk) -> bool:
        """Whether something of the volume was nowhere else: it has one copy, or was detached while
        a leg was behind, which nobody fills until it is attached."""
        if volume.layout is Layout.LINEAR:
            return self._uses(volume, disk)
        extents = self.cluster.state().extents
        return any(
            all(e in extents and extents[e].disk == disk.id for e in segment.in_sync())
            for segment in volume.segments
            if segment.in_sync()
        )

    async def _give_up(self, volume: Volume) -> None:
        """Without another copy there is nothing else to do."""

        async def gone() -> bool:
            with contextlib.suppress(BusyError, ConflictError):
                if self.cluster.owner(volume.name):
                    await self._free(volume)
                await self.cluster.ask(api.DeleteVolume(volume=volume.name))
                return True
            return False

        with contextlib.suppress(NotFoundError):
            await self.cluster.until(f"{volume.name} is given up", 2 * CALM_S, gone)
        self.cluster.checker.forget(volume.name)

    async def _free(self, volume: Volume) -> None:
        """What its programs wait for does not come back: where it moves away they are told. With
        no other head they end with this one's power."""
        ended = await self.cluster.job(
            await self.cluster.start_job(api.DetachVolume(volume=volume.name))
        )
        owner = self.cluster.owner(volume.name)
        if ended.error_code == BusyError.code and owner:
            others = [NodeId(head) for head in self.cluster.heads if head != owner]
            if others:
                await self.cluster.ask(api.FailoverVolume(volume=volume.name, head=others[0]))
            else:
                self.world.power_cut(owner)
                await self.cluster.ask(api.DetachVolume(volume=volume.name))
                self.cluster.power_on(owner)

    async def _retired(self, disk: Disk) -> bool:
        """What it held is rebuilt elsewhere, be it attached or not."""
        with contextlib.suppress(VastskyError):
            await self.cluster.ask(api.RetireDisk(disk=disk.id))
            return True
        return disk.id not in self.cluster.state().disks

    async def _all_is_well(self) -> None:
        # A host may have been without power for less than anybody notices: let it be noticed.
        await asyncio.sleep(survey.NOTICED_S)
        trouble: list[str] = []

        async def well() -> bool:
            trouble[:] = [said] if (said := await self.watch.trouble()) else []
            return not trouble

        try:
            await self.cluster.until("all is well", CALM_S, well)
        except AssertionError as error:
            raise AssertionError(f"{''.join(trouble)}\n{error}") from error
        self.accidents.check_foreign()
        self.world.check()
        for name in NAMES:
            head = self.cluster.attached_on(name)
            if head:
                await self.cluster.checker.read_all(head, name)

    # --- anything, at any time --------------------------------------------------------------------

    async def _anything(self) -> None:
        weather = [asyncio.create_task(self._weather(number)) for number in range(3)]
        weather.append(asyncio.create_task(self._busy_administrator()))
        await asyncio.sleep(self.length_s)
        for task in weather:
            task.cancel()
        await asyncio.wait(weather)
        for task in weather:
            if not task.cancelled():
                task.result()
        self.accidents.come_home()
        self.accidents.heal()
        self.accidents.end_absences()
        self.stir()
        await asyncio.sleep(CALM_S)
        self.losses.note(self.accidents.dead)
        for name in NAMES:
            await self._check_volume(name)
        self.accidents.check_foreign()

    async def _weather(self, number: int) -> None:
        rng = self.world.rng(f"weather:{number}")
        while True:
            await asyncio.sleep(rng.expovariate(1 / QUIET_MEAN_S))
            await self._accident(tuple(KINDS))
            if rng.random() < 0.3:
                for media in self._lost_media():
                    with contextlib.suppress(AssertionError, VastskyError, TimeoutError):
                        await self._replace(media)

    async def _busy_administrator(self) -> None:
        while True:
            await asyncio.sleep(300)
            if not await self._put_away():
                await self._administrate()

    async def _check_volume(self, name: str) -> None:
        """What it holds, on another head than before."""
        volume = self._volume(name)
        if volume is None or volume.state != "available":
            return
        try:
            if self.cluster.owner(name):
                await self.cluster.until(f"{name} is free", CALM_S, lambda: self._freed(name))
            await self.cluster.attach(name, self.accidents.rng.choice(self.cluster.heads))
        except (AssertionError, VastskyError, TimeoutError) as error:
            if self.losses.is_whole(volume):
                raise AssertionError(f"{name} has all it needs, and is not up: {error}") from error
            return
        head = self.cluster.attached_on(name)
        for grain in sorted(self.cluster.checker.grains.get(name, {})):
            try:
                async with asyncio.timeout(60):
                    if not await self.cluster.checker.read(head, name, grain):
                        raise AssertionError(f"{head}: {name}[{grain}] cannot be read")
            except (AssertionError, TimeoutError):
                if not self.losses.excuse(volume, grain):
                    raise

    async def _freed(self, name: str) -> bool:
        if not self.cluster.owner(name):
            return True
        with contextlib.suppress(VastskyError):
            await self.cluster.job(await self.cluster.start_job(api.DetachVolume(volume=name)))
        return not self.cluster.owner(name)


def run(
    seed: int,
    mode: Mode,
    hours: float,
    accidents: Counter[str] | None = None,
    trace: list[str] | None = None,
) -> None:
    """Raises what went wrong. `accidents` and `trace` are filled with what happened."""

    async def main() -> None:
        season = Season(seed, mode, hours, tracing=trace is not None)
        try:
            await season.run()
        finally:
            if accidents is not None:
                accidents.update(season.accidents.done)
            if trace is not None:
                trace.extend(season.world.trace)

    loop.run(main(), (hours + 100) * HOUR_S)
