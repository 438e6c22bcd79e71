"""Truth and promise compared: what is so, seen from above, and what the cluster says."""

import asyncio
from collections import Counter

from tests.sim.cluster import SimCluster, data_grain, extents_on
from tests.sim.fake_disks import FakeMedia
from vastskyd.core import answers, api
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import (
    AttachmentState,
    DiskState,
    ExtentState,
    JobState,
    Layout,
    LegState,
    Segment,
    Volume,
)
from vastskyd.core.names import VolumeDeviceName
from vastskyd.core.quorum import recovery_quorum
from vastskyd.core.units import GRAIN_BYTES

LOOK_EVERY_S = 5.0
# Within that time status must have followed what happened.
NOTICED_S = 15.0
LOOKS_TO_BE_SURE = 3


class Losses:
    """Which segments may have lost what was acknowledged: those of whose set fewer than a recovery
    quorum was left when a disk died."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._doubtful: dict[tuple[str, int], None] = {}

    def note(self, dead: dict[str, FakeMedia]) -> None:
        for volume in self._cluster.state().volumes.values():
            for segment in volume.segments:
                whole = [e for e in segment.in_sync() if self._works(e, dead)]
                if len(whole) < recovery_quorum(len(segment.in_sync())):
                    self._doubtful[volume.id, segment.index] = None

    def _works(self, extent: ExtentId, dead: dict[str, FakeMedia]) -> bool:
        disk = self._cluster.state().disk_of(extent)
        return disk is not None and disk.serial not in dead and disk.state is not DiskState.FAILED

    def excuse(self, volume: Volume, grain: int) -> bool:
        """Whether the volume's grain may be lost."""
        start = 0
        for segment in volume.segments:
            end = start + segment.length_bytes // GRAIN_BYTES
            if start <= grain < end:
                return (volume.id, segment.index) in self._doubtful
            start = end
        return False

    def is_whole(self, volume: Volume) -> bool:
        return not any(owner == volume.id for owner, _ in self._doubtful)


class Watch:
    """Looks every few seconds whether what the manager shows is so."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._world = cluster.world
        self._since_s: dict[str, tuple[bool, float]] = {}

    async def run(self) -> None:
        doubts: Counter[str] = Counter()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now_s = self._world.now_s()
            for name in self._world.hosts:
                reached = self._reached(name)
                if self._since_s.get(name, (None, 0.0))[0] is not reached:
                    self._since_s[name] = (reached, now_s)
            found = (
                await self._look() if self._known(self._cluster.manager, reached=True) else set()
            )
            # Between two looks there may be a restart that nobody saw, and this be right.
            doubts = Counter({said: doubts[said] + 1 for said in found})
            for said, times in doubts.items():
                if times == LOOKS_TO_BE_SURE:
                    self._world.failures.append(f"at {now_s:.1f} s {said}")

    def _reached(self, host: str) -> bool:
        """By the manager, and answering."""
        manager = self._cluster.manager
        through = host == manager or self._world.network.control_ok(manager, host)
        return through and host not in self._world.network.frozen and host in self._world.daemons

    def _known(self, host: str, *, reached: bool) -> bool:
        """It has been so for so long that it must be known."""
        now, since_s = self._since_s[host]
        return now is reached and self._world.now_s() - since_s >= NOTICED_S

    async def _look(self) -> set[str]:
        """Straight from the manager: a question of the cluster's would wait until it is well."""
        member = self._cluster.members[self._cluster.manager]
        if member.manager is None:
            return set()
        nodes = await member.manager.ask(api.ListNodes())
        if not isinstance(nodes, answers.NodeList):
            raise TypeError("the manager answers something else")
        found = {
            f"node {node.id} is said to be {node.state}"
            for node in nodes.nodes
            if self._known(node.id, reached=node.state != "online")
        }
        found |= self._exposed()
        dark = {
            name
            for name, host in self._world.hosts.items()
            if not host.powered and self._known(name, reached=False)
        }
        if not dark:
            return found
        volumes = await member.manager.ask(api.ListVolumes())
        if not isinstance(volumes, answers.VolumeList):
            raise TypeError("the manager answers something else")
        for volume in volumes.volumes:
            if volume.health == "redundant" and volume.attachment is not None:
                for leg in (leg for segment in volume.segments for leg in segment.legs):
                    # One that is filled is beside as many as there are to be, or it is not so.
                    if leg.node in dark and leg.state is LegState.IN_SYNC:
                        found.add(f"{volume.name} is said to be redundant: {leg.node} has no power")
        return found

    def _exposed(self) -> set[str]:
        """Where a volume that is only mended has a device."""
        return {
            f"{volume.name} is mended, and has a device on {host.name}"
            for volume in self._cluster.state().volumes.values()
            if volume.attachment is not None and volume.attachment.mending
            for host in self._world.hosts.values()
            for block in host.kernel.blocks.values()
            if getattr(block, "uuid", "")
            == VolumeDeviceName(volume.id, volume.attachment.epoch).dm_uuid()
        }

    # --- when all has been mended -----------------------------------------------------------------

    async def trouble(self) -> str:
        """What is not as it should be; empty if all is well, and said to be."""
        state = self._cluster.state()
        running = [job for job in state.jobs.values() if job.state is JobState.RUNNING]
        if running:
            return f"jobs run: {running}"
        for volume in state.volumes.values():
            attachment = volume.attachment
            if attachment is not None and attachment.mending:
                return f"{volume.name} is mended on {attachment.head}"
            if attachment is not None and attachment.state is not AttachmentState.ATTACHED:
                return f"{volume.name} is {attachment.state} on {attachment.head}"
        if trouble := self._left_behind():
            return trouble
        for disk in state.disks.values():
            if disk.state is not DiskState.ONLINE:
                return f"disk {disk.serial} is {disk.state}: {disk.reason}"
        status = await self._cluster.status()
        if status.health != "ok":
            apart = [said for said in status.problems if "of its" not in said]
            if apart:
                return f"status is {status.health}: {'; '.join(apart)}"
        return self.legs_differ()

    def _left_behind(self) -> str:
        state = self._cluster.state()
        released = [e.id for e in state.extents.values() if e.state is ExtentState.RELEASED]
        if released:
            return f"released extents are left: {released}"
        for host in self._world.hosts.values():
            for media in host.media:
                for extent in extents_on(media, set(state.disks)):
                    if extent not in state.extents:
                        return f"{media.serial} describes {extent}, which is nobody's"
            attached = {
                volume.name
                for volume in state.volumes.values()
                if volume.attachment is not None and volume.attachment.head == host.name
            }
            if not attached and (stacks := self._cluster.stacks(host.name)):
                return f"{host.name} has {stacks}"
        return ""

    def legs_differ(self) -> str:
        """All legs in the set hold the same of what is not being written just now."""
        state = self._cluster.state()
        for volume in state.volumes.values():
            if volume.layout is Layout.LINEAR:
                continue
            first = 0
            for segment in volume.segments:
                count = segment.length_bytes // GRAIN_BYTES
                legs = [self._on_leg(extent, count) for extent in segment.in_sync()]
                if any(leg is not None and (leg[-1] or leg[count]) for leg in legs):
                    return f"{volume.name}, segment {segment.index}: a guard was written to"
                for grain in range(count):
                    known = self._cluster.checker.grains.get(volume.name, {}).get(first + grain)
                    quiet = known is None or not known.maybe
                    if quiet and len({leg[grain] for leg in legs if leg is not None}) > 1:
                        return self._difference(volume, segment, grain, legs)
                first += count
        return ""

    def _difference(
        self, volume: Volume, segment: Segment, grain: int, legs: list[list[int] | None]
    ) -> str:
        found = [leg[grain] for leg in legs if leg is not None]
        return f"{volume.name}, segment {segment.index}, grain {grain}: the legs hold {found}"

    def _on_leg(self, extent: ExtentId, count: int) -> list[int] | None:
        """The volume's data by grain; then the guard behind it, and last, at -1, that before."""
        record = self._cluster.state().extents.get(extent)
        disk = self._cluster.state().disk_of(extent)
        if record is None or disk is None:
            return None
        first = data_grain(record)
        for host in self._world.hosts.values():
            for media in host.media:
                if media.serial == disk.serial:
                    return [media.data.get(first + grain, 0) for grain in (*range(count + 1), -1)]
        return None
