"""Taking a head's stacks down while its host shuts down, after vastskyd has stopped.

A leg without a path holds its I/O until vastskyd ends that. Nobody would any more: the host's last
`sync`, its unmounting, and the kernel's own stopping of arrays would wait for ever. What nobody
uses is taken down in good order; a volume that is used and held as a fenced one is, so that no
program is told of a write that only some legs have. One that is used and works is left alone:
somebody unmounts it yet.
"""

import asyncio
import logging
from collections.abc import Awaitable

from vastskyd.core.errors import BusyError, NotFoundError, VastskyError
from vastskyd.core.ids import VolumeId
from vastskyd.core.sight import SeenLeg, Sight, Trouble, kernel_name
from vastskyd.core.steps import (
    BreakLeg,
    EndWriters,
    ReleaseLeg,
    Step,
    StopArray,
    UnmapLeg,
    UnmapVolume,
)
from vastskyd.core.teardown import plan_orphan_paths, plan_teardown
from vastskyd.ports import Clock, Kernel
from vastskyd.roles.sighting import LOCAL, observe

log = logging.getLogger(__name__)

# A leg whose server is gone is noticed within a few seconds; then a volume that nobody uses comes
# down by itself. What has not by then is ended by force.
GENTLY_S = 15.0
AT_MOST_S = 60.0
_PAUSE_S = 0.2
_GONE = Trouble(broken=False, message="no path when the host shut down")


class LettingGo:
    def __init__(self, kernel: Kernel, clock: Clock) -> None:
        self._kernel = kernel
        self._clock = clock
        self._busy: dict[VolumeId, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until nothing is to be done, or AT_MOST_S have passed."""
        began_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(AT_MOST_S):
                while await self._look(self._clock.monotonic_s() - began_s):
                    await self._clock.sleep(_PAUSE_S)
        except TimeoutError:
            log.error("some volumes could not be taken down; the shutdown goes on")
        finally:
            for task in self._busy.values():
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _look(self, after_s: float) -> bool:
        """Whether there is anything left to wait for. A volume whose kernel call hangs holds up no
        other."""
        try:
            sight = await observe(self._kernel)
        except VastskyError as error:
            log.error("%s", error.message)
            return True
        self._busy = {volume: task for volume, task in self._busy.items() if not task.done()}
        waiting = bool(self._busy)
        for volume in sight.volume_ids():
            steps = steps_of(volume, sight, forced=after_s > GENTLY_S)
            waiting |= bool(steps)
            if steps and volume not in self._busy:
                self._busy[volume] = asyncio.create_task(self._act(volume, steps))
        for step in plan_orphan_paths(sight, frozenset()):
            waiting = True
            await self._tried(step.device, self._kernel.nbd.disconnect(step.device))
        return waiting

    async def _act(self, volume: VolumeId, steps: tuple[Step, ...]) -> None:
        for step in steps:
            if not await self._tried(f"volume {volume}", self._effect(step)):
                return

    async def _tried(self, what: str, act: Awaitable[object]) -> bool:
        try:
            await act
        except NotFoundError:
            return True
        except VastskyError as error:
            log.warning("%s: %s", what, error.message)
            return False
        return True

    def _effect(self, step: Step) -> Awaitable[object]:
        dm = self._kernel.dm
        match step:
            case BreakLeg():
                return dm.replace_with_error(step.name.dm_name())
            case EndWriters():
                return self._end_writers(step)
            case UnmapVolume():
                return self._unmap(step)
            case ReleaseLeg():
                return dm.release_leg(step.name)
            case StopArray():
                return self._kernel.md.stop(step.array)
            case UnmapLeg():
                return dm.remove(step.name.dm_name())
        raise TypeError(f"{type(step).__name__} takes nothing down")

    async def _end_writers(self, step: EndWriters) -> None:
        killed = await self._kernel.dm.end_writers(step.dm_name)
        if killed:
            log.error("%s is out of reach: killed %s", step.dm_name, ", ".join(killed))

    async def _unmap(self, step: UnmapVolume) -> None:
        try:
            await self._kernel.dm.remove(step.dm_name)
        except BusyError:
            if not step.force:
                raise
            await self._kernel.dm.abandon(step.dm_name)


def steps_of(volume: VolumeId, sight: Sight, *, forced: bool) -> tuple[Step, ...]:
    """The next ones; none for a volume that is used and works. `forced`: it had its time."""
    legs = [leg for leg in sight.legs.values() if leg.name.volume == volume]
    gone = {leg.name.extent: _GONE for leg in legs if not _reaches(leg, sight)}
    seen = sight.volumes.get(volume)
    used = seen is not None and not seen.broken_off and seen.open_count > 0
    if used and not gone:
        return ()
    return plan_teardown(volume, sight, gone, force=bool(gone) and (used or forced))


def _reaches(leg: SeenLeg, sight: Sight) -> bool:
    """A path that device-mapper has not given up, over a connection that lives; or an error table,
    which holds nothing."""
    if not leg.holds and not leg.paths:
        return True
    alive = {
        kernel_name(path.device) for path in sight.paths if path.alive or path.network == LOCAL
    }
    return bool((set(leg.paths) - leg.failed) & alive)
