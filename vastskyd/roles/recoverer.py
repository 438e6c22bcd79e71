"""The manager without records: hears what the hosts say of themselves, and makes the records anew
when it is told to.

It tells nobody what should be, as if it were away: so nothing that stands is touched.
"""

import asyncio
import logging
from dataclasses import replace

from vastskyd.core import answers, api
from vastskyd.core.description import DiskDescription
from vastskyd.core.errors import ConflictError, DeviceError, VastskyError
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.model import Encryption, Record
from vastskyd.core.recovering import Rebuilt, rebuild
from vastskyd.core.recovering_hosts import Case
from vastskyd.core.state import ClusterState, Draft
from vastskyd.core.witness import Introduction, Witness
from vastskyd.ports import Clock, Peers, Vault
from vastskyd.store.identity import Identity

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 3.0
# Until then a host that has not spoken is late, not away.
_LISTEN_S = 20.0
_INTRODUCE_TIMEOUT_S = 10.0
_DESCRIBE_TIMEOUT_S = 20.0

NEXT = (
    "`vastskyctl cluster recover` on this host makes them anew from what the other hosts and"
    " their disks say; attached volumes go on meanwhile"
)


class Recoverer:
    """In the manager's place. `why` says what became of the records."""

    def __init__(
        self,
        identity: Identity,
        vault: Vault,
        peers: Peers,
        clock: Clock,
        why: VastskyError,
        *,
        before: ClusterState | None = None,
    ) -> None:
        """`before`: records that were whole, and were set aside by a manager whose hosts have had
        their time to connect."""
        self._identity = identity
        self._vault = vault
        self._peers = peers
        self._clock = clock
        self._why = why
        self._before = before or ClusterState()
        self._listens_s = clock.monotonic_s() - (0.0 if before is None else _LISTEN_S)
        self._witnesses: dict[NodeId, Witness] = {}
        self._silent: dict[NodeId, str] = {}
        self._looking = asyncio.Lock()
        self._looks_begun = self._looks_done = 0
        self._due = asyncio.Event()

    @property
    def why(self) -> str:
        return self._why.message

    @property
    def may_pass(self) -> bool:
        """It is not the records that are wrong, but what they stand on."""
        return isinstance(self._why, DeviceError)

    async def run(self) -> None:
        """Until cancelled."""
        log.error("%s", self._problem())
        while True:
            await self._look()
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()

    def session_changed(self, node: NodeId, up: bool) -> None:
        if not up:
            self._witnesses.pop(node, None)
        self._due.set()

    # --- looking ----------------------------------------------------------------------------

    async def _look(self) -> None:
        """Asks all that can be heard, at once. What the others said before is forgotten. Those who
        want to know at the same time share a look: everybody may ask, and how often."""
        wanted = self._looks_begun + 1  # one that has begun may have missed what is so now
        async with self._looking:
            if self._looks_done >= wanted:
                return
            self._looks_begun += 1
            nodes = sorted(self._peers.connected())
            heard = await asyncio.gather(*(self._hear(node) for node in nodes))
            self._witnesses = {w.said.node: w for w in heard if w is not None}
            self._looks_done = self._looks_begun

    async def _hear(self, node: NodeId) -> Witness | None:
        try:
            said = await self._peers.call(node, api.Introduce(), _INTRODUCE_TIMEOUT_S)
            if not isinstance(said, Introduction) or said.node != node:
                raise ConflictError(f"{node} says that it is somebody else")
            witness = await self._described(said)
        except VastskyError as error:
            if self._silent.get(node) != error.message:
                log.warning("node %s does not say what it has: %s", node, error.message)
            self._silent[node] = error.message
            return None
        self._silent.pop(node, None)
        return witness

    async def _described(self, said: Introduction) -> Witness:
        before = self._witnesses.get(said.node)
        known: dict[DiskId, DiskDescription] = {}
        for disk in said.disks:
            if before is not None and disk in before.said.disks:
                known[disk.id] = before.descriptions[disk.id]
            else:
                request = api.DescribeDisk(disk=disk.id)
                answer = await self._peers.call(said.node, request, _DESCRIBE_TIMEOUT_S)
                if isinstance(answer, api.DiskDescribed):
                    known[disk.id] = answer.description
        return Witness(said, known)

    def _rebuilt(self) -> Rebuilt:
        identity = self._identity
        rebuilt = rebuild(
            Case(
                cluster=identity.cluster,
                cluster_name=identity.cluster_name,
                manager=identity.node,
                encryption=Encryption.TLS,
                witnesses=self._witnesses,
                now_s=self._clock.now_s(),
                new_token=self._clock.new_token,
                before=self._before,
            )
        )
        return replace(rebuilt, missing=(*rebuilt.missing, *self._not_heard(rebuilt)))

    def _not_heard(self, rebuilt: Rebuilt) -> list[str]:
        """Those who would speak of others may be among the missing."""
        said = [f"node {node}: {why}" for node, why in sorted(self._silent.items())]
        if not rebuilt.records.disks:
            said.append("any disk")
        if (left_s := self._left_s()) > 0:
            said.append(f"hosts that are about to connect: they have {left_s:.0f} s more")
        return said

    def _left_s(self) -> float:
        return max(0.0, self._listens_s + _LISTEN_S - self._clock.monotonic_s())

    # --- answering --------------------------------------------------------------------------

    def is_member(self, node: NodeId) -> bool:
        """A certificate of the cluster's is all that there is to go by."""
        return True

    async def admit(self, request: api.Join) -> api.Joined:
        raise ConflictError("the cluster's manager has lost its records", hint=NEXT)

    async def answer(self, peer: NodeId, request: Record) -> Record:
        """Reports are thanked for and forgotten: they speak of documents of a manager before."""
        return api.Done() if isinstance(request, api.SendReport) else await self.ask(request)

    async def ask(self, request: Record) -> Record:
        if isinstance(request, api.ShowStatus):
            return self._status()
        raise ConflictError(f"the manager has no records: {self.why}", hint=NEXT)

    def _problem(self) -> str:
        hint = f" ({self._why.hint})" if self._why.hint else ""
        return f"the manager has no records: {self.why}{hint}; {NEXT}"

    def _status(self) -> answers.ClusterStatus:
        rebuilt = self._rebuilt().records
        disks = rebuilt.disks.values()
        return answers.ClusterStatus(
            cluster=self._identity.cluster,
            name=self._identity.cluster_name,
            manager=self._identity.node,
            encryption=rebuilt.the_cluster().encryption,
            health="critical",
            problems=(self._problem(),),
            nodes=len(rebuilt.nodes),
            nodes_online=len(self._witnesses),
            disks=len(disks),
            disks_online=sum(disk.size_bytes > 0 for disk in disks),
            volumes=len(rebuilt.volumes),
            volumes_redundant=0,
            capacity_bytes=sum(disk.area_end_bytes - disk.area_start_bytes for disk in disks),
            free_bytes=0,
            jobs_running=0,
        )

    # --- recovery ---------------------------------------------------------------------------

    async def show(self) -> answers.RecoveryView:
        await self._look()
        return self._view(self._rebuilt())

    def _view(self, rebuilt: Rebuilt) -> answers.RecoveryView:
        return answers.RecoveryView(
            recovering=True,
            why=self.why,
            nodes=tuple(sorted(self._witnesses)),
            disks=sum(disk.size_bytes > 0 for disk in rebuilt.records.disks.values()),
            volumes=_volumes(rebuilt.records),
            missing=rebuilt.missing,
            blocked=rebuilt.blocked,
            listens_s=self._left_s(),
            notes=rebuilt.notes,
        )

    async def finish(self, request: api.FinishRecovery) -> answers.RecoveryView:
        """The records are made anew, durably; who is asked next is a manager that has them."""
        await self._look()
        rebuilt = self._rebuilt()
        if rebuilt.blocked:
            raise ConflictError(
                f"the records cannot be made anew: {'; '.join(rebuilt.blocked)}",
                hint="start the hosts that have these disks, then try again",
            )
        if rebuilt.missing and not request.without_missing:
            raise ConflictError(
                f"not all was seen that others speak of: {'; '.join(rebuilt.missing)}",
                hint="start these hosts and try again, or go on without them: `vastskyctl"
                " cluster recover --without-missing`",
            )
        view = self._view(rebuilt)
        kept_as = self._vault.renew(rebuilt.records.puts(), self._clock.now_s())
        log.warning("the manager's records were made anew; those before are kept as %s", kept_as)
        return answers.RecoveryView(
            recovering=False,
            why="",
            nodes=view.nodes,
            disks=view.disks,
            volumes=view.volumes,
            missing=view.missing,
            notes=view.notes,
            kept_as=kept_as,
        )


def _volumes(records: Draft) -> tuple[answers.RecoveredVolume, ...]:
    views = []
    for volume in sorted(records.volumes.values(), key=lambda volume: volume.name):
        legs = [leg.extent for segment in volume.segments for leg in segment.legs]
        disks = [records.disk_of(extent) for extent in legs]
        seen = sum(disk is not None and disk.size_bytes > 0 for disk in disks)
        views.append(
            answers.RecoveredVolume(
                name=volume.name,
                size_bytes=volume.size_bytes,
                copies=volume.copies,
                head=on.head if (on := volume.given()) is not None else "",
                legs=len(legs),
                legs_seen=seen,
            )
        )
    return tuple(views)
