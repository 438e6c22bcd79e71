"""The head role: makes this host's stacks what the document says, by the steps of core.layout."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from vastskyd.core.documents import HeadDocument, HeadReport, VolumeCondition, VolumeSpec
from vastskyd.core.errors import BusyError, NotFoundError, VastskyError
from vastskyd.core.ids import ExtentId, NodeId, VolumeId
from vastskyd.core.layout import Plan, plan_volume
from vastskyd.core.names import LegName
from vastskyd.core.sight import Sight, Trouble
from vastskyd.core.steps import (
    AssembleArray,
    Connect,
    CreateArray,
    Disconnect,
    FindArray,
    MapVolume,
    Step,
    UnmapVolume,
)
from vastskyd.core.teardown import plan_orphan_paths, plan_teardown, plan_wrecks
from vastskyd.core.witness import Introduction, stacks_in
from vastskyd.ports import Clock, Kernel
from vastskyd.roles.connections import Connections
from vastskyd.roles.effects import effect
from vastskyd.roles.progress import Step as Stepped
from vastskyd.roles.progress import unwatched
from vastskyd.roles.refills import Refills
from vastskyd.roles.scrubs import Scrubs
from vastskyd.roles.sighting import Observer, observe
from vastskyd.roles.watching import LegWatch

log = logging.getLogger(__name__)

# While something is under way.
_TICK_S = 1.0
# Clocks are rounded: the time to wait for must not come out as none.
_REST_LEAST_S = 0.01


@dataclass(frozen=True)
class _Act:
    """A volume's steps under way, decided by the document `revision`. `exposes`: its device is
    being made, and is not to be called active before udev has named it."""

    task: asyncio.Task[None]
    revision: int
    exposes: bool


@dataclass(frozen=True)
class _Planned:
    """A volume's plan, and all that it was made of."""

    spec: VolumeSpec
    sight: Sight
    trouble: Mapping[ExtentId, Trouble]
    users: tuple[str, ...]
    waited: bool
    plan: Plan


@dataclass(frozen=True)
class _Settled:
    """What a look said that found nothing to do, nor anything that only needs time."""

    document: HeadDocument
    sight: Sight
    report: HeadReport


class HeadRole:
    """`changed` is called when something finished in the background."""

    def __init__(
        self,
        node: NodeId,
        addresses: tuple[str, ...],
        kernel: Kernel,
        clock: Clock,
        leg_timeout_s: float,
        changed: Callable[[], None],
    ) -> None:
        self._node = node
        self._kernel = kernel
        self._clock = clock
        self._changed = changed
        self._observer = Observer(kernel)
        self._watch = LegWatch(leg_timeout_s)
        self._refills = Refills(kernel.dm)
        self._scrubs = Scrubs(kernel.md, clock, changed)
        self._connections = Connections(addresses, kernel.nbd, clock, changed)
        self._acts: dict[VolumeId, _Act] = {}
        self._mending: dict[str, asyncio.Task[None]] = {}
        self._wanted_since_s: dict[tuple[VolumeId, int], float] = {}
        self._users: dict[VolumeId, tuple[str, ...]] = {}
        self._rates: dict[str, tuple[int, int]] = {}
        self._problems: dict[VolumeId, VastskyError] = {}
        self._planned: dict[VolumeId, _Planned] = {}
        self._document: HeadDocument | None = None
        self._settled: _Settled | None = None
        self._copies = False
        self._is_first_look = True

    def set_leg_timeout(self, leg_timeout_s: float) -> None:
        self._watch.leg_timeout_s = leg_timeout_s
        self._changed()

    async def stop(self) -> None:
        """Ends what runs in the background; the stacks stay."""
        tasks = [act.task for act in self._acts.values()] + list(self._mending.values())
        for task in tasks:
            task.cancel()
        ended = (self._connections.stop(), self._scrubs.stop())
        await asyncio.gather(*tasks, *ended, return_exceptions=True)

    @property
    def busy(self) -> bool:
        """Something is under way."""
        background = self._connections.busy or self._scrubs.restless
        return bool(self._acts or self._mending) or background

    def rest_s(self, most_s: float) -> float:
        """For how long there is nothing to do if nothing happens, `most_s` at the most. What is
        under way calls `changed` when it is done, unless it failed."""
        if self._acts or self._mending or self._scrubs.restless or self._copies:
            return min(most_s, _TICK_S)
        now_s, patience_s = self._clock.monotonic_s(), self._watch.leg_timeout_s
        ends = [since_s + patience_s for since_s in self._wanted_since_s.values()]
        next_s = min((end_s for end_s in ends if end_s > now_s), default=float("inf"))
        left_s = min(next_s, self._watch.next_s(now_s)) - now_s
        return min(most_s, max(_REST_LEAST_S, left_s))

    async def converge(
        self, document: HeadDocument | None, revision: int, stepped: Stepped = unwatched
    ) -> tuple[HeadReport, int]:
        """One look, and the next steps of every volume begun in the background: a volume whose
        kernel call hangs holds up neither the others nor the report. `changed` is called when a
        volume's steps are done. Without a document (none received yet) nothing is changed.

        The revision that is answered is the newest by which everything still under way was
        decided: the manager relies on it.
        """
        if document is None:
            return HeadReport(), 0
        if document is not self._document or self._acts or self._mending:
            self._forget(document)
            self._document = document
        if self._is_first_look:
            # What a vastskyd before this one was killed over. Half made ones with legs are seen.
            self._mend("arrays without legs", self._kernel.md.discard_unmade)
            self._is_first_look = False
        busy = {v: act for v, act in self._acts.items() if not act.task.done()}
        self._acts = busy.copy()
        self._mending = {what: task for what, task in self._mending.items() if not task.done()}
        sight = await self._observer.look()
        self._copies = any(array.sync_total_bytes for array in sight.arrays.values())
        if (settled := self._settled_by(document, sight)) is not None:
            stepped()
            return settled.report, revision
        self._settled = None
        seen = self._watch.look(sight, document, self._clock.monotonic_s())
        for device in seen.cut:
            self._cut(device)
        for leg in seen.revive:
            self._revive(leg)
        plans = self._plans(document, sight, seen.trouble)
        for volume, plan in plans.items():
            self._begin(volume, plan.steps, revision)
        self._clear_orphans(document, sight, seen.trouble, revision)
        stepped()
        await self._set_rates(document, sight, stepped)
        self._scrubs.look(document, sight)
        facts = {}
        for volume, plan in plans.items():
            if plan.fact is not None:
                facts[volume] = self._scrubs.told(await self._refills.told(plan.fact))
                stepped()
        decided = min([revision, *(act.revision for act in busy.values())])
        report = HeadReport(volumes=tuple(facts[volume] for volume in sorted(facts)))
        foreign = sight.wrecks or not plans.keys() >= set(sight.volume_ids())
        if self._rests and not foreign and all(_is_done(plan) for plan in plans.values()):
            self._settled = _Settled(document, sight, report)
        return report, decided

    @property
    def _rests(self) -> bool:
        """Time alone changes neither what is to be done nor what is to be reported."""
        return not self.busy and not self._refills.counting and self._watch.calm

    def _settled_by(self, document: HeadDocument, sight: Sight) -> _Settled | None:
        """If nothing is new since a look that found nothing to do."""
        settled = self._settled
        if settled is None or settled.document is not document or settled.sight is not sight:
            return None
        return settled if self._rests else None

    async def introduce(self, said: Introduction) -> Introduction:
        """The same, with what stands on this head."""
        return msgspec.structs.replace(said, stacks=stacks_in(await observe(self._kernel)))

    def _forget(self, document: HeadDocument) -> None:
        """Memory of volumes that are no longer this head's."""
        attached = {spec.id for spec in document.volumes if spec.attached}
        wanted = {(spec.id, spec.epoch) for spec in document.volumes}
        self._users = {v: users for v, users in self._users.items() if v not in attached}
        self._wanted_since_s = {k: s for k, s in self._wanted_since_s.items() if k in wanted}
        extents = {
            (leg.extent, spec.epoch)
            for spec in document.volumes
            for segment in spec.segments
            for leg in segment.legs
        }
        self._refills.forget(document)
        self._connections.keep(extents)

    def _plans(
        self, document: HeadDocument, sight: Sight, trouble: Mapping[ExtentId, Trouble]
    ) -> dict[VolumeId, Plan]:
        now_s = self._clock.monotonic_s()
        plans = {}
        planned, self._planned = self._planned, {}
        for spec in document.volumes:
            since_s = self._wanted_since_s.setdefault((spec.id, spec.epoch), now_s)
            users = self._users.get(spec.id, ())
            waited = now_s - since_s >= self._watch.leg_timeout_s
            last = planned.get(spec.id)
            if (
                last is not None
                and last.sight is sight
                and (last.spec, last.users, last.waited) == (spec, users, waited)
                and last.trouble == trouble
            ):
                plan = last.plan
            else:
                plan = plan_volume(spec, sight, trouble, users, waited=waited)
            self._planned[spec.id] = _Planned(spec, sight, trouble, users, waited, plan)
            gone = not spec.attached and spec.id not in sight.volume_ids()
            plans[spec.id] = Plan((), None) if gone else self._explained(spec, plan)
        return plans

    def _explained(self, spec: VolumeSpec, plan: Plan) -> Plan:
        act = self._acts.get(spec.id)
        if act is not None and act.exposes:
            plan = plan.assembling("its device is being made")
        problem = self._problems.get(spec.id)
        if problem is None or plan.fact is None or plan.fact.message:
            return plan
        return plan.explained(problem)

    def _begin(self, volume: VolumeId, steps: tuple[Step, ...], revision: int) -> None:
        """A volume's steps are done in order, one batch at a time."""
        for step in steps:
            if isinstance(step, Connect):
                self._connections.begin(step)
            elif isinstance(step, Disconnect):
                self._cut(step.device)
        rest = tuple(step for step in steps if not isinstance(step, Connect | Disconnect))
        if rest and volume not in self._acts:
            task = asyncio.create_task(self._act(volume, rest), name=f"volume {volume}")
            exposes = any(isinstance(step, MapVolume) for step in rest)
            self._acts[volume] = _Act(task, revision, exposes)

    async def _act(self, volume: VolumeId, steps: tuple[Step, ...]) -> None:
        acted = False
        try:
            for step in steps:
                if isinstance(step, UnmapVolume):
                    acted |= await self._unmap_volume(volume, step)
                else:
                    await effect(self._kernel, self._refills, step)
                    acted = True
                if isinstance(step, CreateArray | AssembleArray | FindArray):
                    self._rates.clear()  # it may have the name of one that was there before
        except VastskyError as error:
            before = self._problems.get(volume)
            if before is None or before.message != error.message:
                log.error("volume %s: %s", volume, error.message)
            self._problems[volume] = error.with_traceback(None)
        else:
            self._problems.pop(volume, None)
            if acted:
                self._changed()

    def _cut(self, device: str) -> None:
        """In the background: the kernel waits for the dead socket to let go."""
        self._mend(device, lambda: self._kernel.nbd.disconnect(device))

    def _revive(self, leg: LegName) -> None:
        self._mend(leg.dm_name(), lambda: self._kernel.dm.retry_leg(leg))

    def _mend(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        running = self._mending.get(what)
        if running is None or running.done():
            self._mending[what] = asyncio.create_task(self._tried(what, act), name=f"mend {what}")

    async def _tried(self, what: str, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except VastskyError as error:
            log.warning("%s: %s", what, error.message)
        else:
            self._changed()

    def _clear_orphans(
        self,
        document: HeadDocument,
        sight: Sight,
        trouble: Mapping[ExtentId, Trouble],
        revision: int,
    ) -> None:
        """Stacks and connections that no document names: fenced, or left by a crash."""
        wanted = {spec.id for spec in document.volumes}
        for volume in sight.volume_ids():
            if volume not in wanted:
                if volume not in self._acts:
                    log.warning("volume %s is not this head's: fenced, and taken down", volume)
                self._begin(volume, plan_teardown(volume, sight, trouble, force=True), revision)
        keep = frozenset(
            (leg.extent, spec.epoch)
            for spec in document.volumes
            if spec.attached or self._users.get(spec.id)
            for segment in spec.segments
            for leg in segment.legs
        )
        for step in plan_orphan_paths(sight, keep):
            self._cut(step.device)
        for volume, steps in plan_wrecks(sight).items():
            self._begin(volume, steps, revision)

    async def _set_rates(self, document: HeadDocument, sight: Sight, stepped: Stepped) -> None:
        rate = (document.sync_rate_min_kib_s, document.sync_rate_max_kib_s)
        arrays = {array.device for array in sight.arrays.values() if array.running}
        self._rates = {device: r for device, r in self._rates.items() if device in arrays}
        for device in sorted(arrays):
            if self._rates.get(device) != rate:
                await self._kernel.md.set_sync_rate(device, *rate)
                self._rates[device] = rate
                stepped()

    # --- volumes with users -------------------------------------------------------------

    async def _unmap_volume(self, volume: VolumeId, step: UnmapVolume) -> bool:
        """Whether anything is new: the device is gone, or so are its users or their number."""
        before = self._users.get(volume, ())
        try:
            if not step.force:
                self._users[volume] = await self._kernel.dm.holders(step.dm_name)
                if self._users[volume]:
                    return self._users[volume] != before
            await self._kernel.dm.remove(step.dm_name)
        except NotFoundError:
            return True
        except BusyError as error:
            if not step.force:
                self._users[volume] = (error.message,)
                return self._users[volume] != before
            await self._kernel.dm.abandon(step.dm_name)
            log.error("volume %s is in use and fenced: its users get errors", volume)
        return True


def _is_done(plan: Plan) -> bool:
    return not plan.steps and (plan.fact is None or plan.fact.condition is VolumeCondition.ACTIVE)
