"""A node's own part: takes documents, lets its roles converge, reports what they see."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from vastskyd.core import answers, api
from vastskyd.core.documents import (
    Document,
    HeadReport,
    Report,
    StorageDocument,
    StorageReport,
)
from vastskyd.core.errors import InvalidError, NotFoundError, VastskyError
from vastskyd.core.ids import DiskId, NodeId
from vastskyd.core.local import local_disks, local_volumes
from vastskyd.core.model import Record
from vastskyd.core.witness import Introduction
from vastskyd.ports import Clock, Kernel, Peers
from vastskyd.roles.head import HeadRole
from vastskyd.roles.progress import Progress
from vastskyd.roles.storage import StorageRole

log = logging.getLogger(__name__)

# Events wake the roles; the ticks are for what no event tells.
_TICK_S = 1.0
_IDLE_TICK_S = 5.0
_EVENT_PAUSE_S = 0.2
# Clocks are rounded: the time to wait for must not come out as none.
_REST_LEAST_S = 0.01
_REPORT_TIMEOUT_S = 10.0
_REPORT_AGAIN_S = 30.0
_LIFE_DIGITS = 16


class _Wakeup:
    """Something changed: look again. Wakes collapse into one. For one who waits."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        self._end_wait()

    async def wait(self, timeout_s: float) -> None:
        if not self._is_set:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, self._end_wait)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        self._is_set = False

    def _end_wait(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class NodeAgent:
    """Runs the roles that the node has; the others report nothing."""

    def __init__(
        self,
        said: Introduction,
        manager: NodeId,
        kernel: Kernel,
        peers: Peers,
        clock: Clock,
        progress: Progress | None = None,
    ) -> None:
        """`said` is what the host's identity says of it. `told` is called after each look."""
        self.told: Callable[[], None] | None = None
        self._said = said
        self._node = said.node
        self._manager = manager
        self._kernel = kernel
        self._peers = peers
        self._clock = clock
        self._progress = progress or Progress(clock)
        self._storage: StorageRole | None = None
        self._head: HeadRole | None = None
        self._document: Document | None = None
        self._life = clock.new_token(_LIFE_DIGITS)
        self._sequence = 0
        self._wakes = {"storage": _Wakeup(), "head": _Wakeup()}
        self._report_due = _Wakeup()
        self._storage_seen: tuple[int, StorageReport] = (0, StorageReport())
        self._head_seen: tuple[int, HeadReport] = (0, HeadReport())
        self._last_sent: tuple[int, StorageReport, HeadReport] | None = None

    def with_roles(self, storage: StorageRole | None, head: HeadRole | None) -> None:
        """The roles are made after the agent: they call `wake_*` when something finished."""
        self._storage = storage
        self._head = head

    def wake_storage(self) -> None:
        self._wakes["storage"].set()

    def wake_head(self) -> None:
        self._wakes["head"].set()

    def session_up(self) -> None:
        """The manager can be told: it forgot, or was restarted, or so was this node."""
        self._last_sent = None
        self._report_due.set()

    async def answer(self, peer: NodeId, request: Record) -> Record:
        match request:
            case api.ApplyDocument() if peer == self._manager:
                return self._accept(request.document)
            case api.Introduce() if peer == self._manager:
                return await self._introduce()
            case api.DescribeDisk() if peer == self._manager:
                return self._describe(request.disk)
            case api.Probe():
                reached = await self._peers.probe(request.node, request.addresses, request.port)
                return api.ProbeResult(reached=reached)
            case api.Ping():
                return api.Done()
        raise InvalidError(f"{self._node} is not asked {api.method_of(type(request))} by {peer}")

    async def _introduce(self) -> Introduction:
        said = msgspec.structs.replace(
            self._said, revision=0 if self._document is None else self._document.revision
        )
        if self._storage is not None:
            said = await self._storage.introduce(said)
        return said if self._head is None else await self._head.introduce(said)

    def _describe(self, disk: DiskId) -> api.DiskDescribed:
        if self._storage is None:
            raise NotFoundError(f"{self._node} has no storage role")
        return api.DiskDescribed(description=self._storage.description(disk))

    def _accept(self, document: Document) -> api.Done:
        if self._document is None or document.revision > self._document.revision:
            self._document = document
            for wake in self._wakes.values():
                wake.set()
            self._report_due.set()
        return api.Done()

    def local_volumes(self, *, connected: bool) -> tuple[answers.LocalVolume, ...]:
        if self._document is None:
            return ()
        return local_volumes(self._document.head, self._head_seen[1], connected=connected)

    def local_disks(self) -> tuple[answers.DiskView, ...]:
        wanted = StorageDocument() if self._document is None else self._document.storage
        return local_disks(self._node, wanted, self._storage_seen[1])

    async def run(self) -> None:
        """Until cancelled. The stacks and exports stay as they are."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_kernel(), name="kernel events")
                group.create_task(self._storage_loop(), name="storage")
                if self._storage is not None:
                    group.create_task(self._storage.follow_servers(), name="export servers")
                group.create_task(self._head_loop(), name="head")
                group.create_task(self._report_loop(), name="reports")
        finally:
            for role in (self._storage, self._head):
                if role is not None:
                    await role.stop()

    async def _follow_kernel(self) -> None:
        with self._progress.loop("kernel events") as step:
            while True:
                step()
                if not await self._kernel.wait_change(_IDLE_TICK_S):
                    continue
                if self._storage is not None:
                    self._storage.disks_changed()
                for wake in self._wakes.values():
                    wake.set()
                # Kernel events come in flocks: one look serves them all.
                await self._clock.sleep(_EVENT_PAUSE_S)

    async def _storage_loop(self) -> None:
        with self._progress.loop("storage") as step:
            while self._storage is not None:
                step()
                document = self._document
                wanted = None if document is None else document.storage
                try:
                    seen = await self._storage.converge(wanted, step)
                except VastskyError as error:
                    log.error("storage: %s", error.message)
                else:
                    now = (document.revision if document else 0, seen)
                    if now != self._storage_seen:
                        self._storage_seen = now
                        self._look_told()
                step()
                await self._wakes["storage"].wait(self._storage.rest_s(_IDLE_TICK_S))

    async def _head_loop(self) -> None:
        with self._progress.loop("head") as step:
            while self._head is not None:
                step()
                document = self._document
                try:
                    seen, revision = await self._head.converge(
                        None if document is None else document.head,
                        0 if document is None else document.revision,
                        step,
                    )
                except VastskyError as error:
                    log.error("head: %s", error.message)
                else:
                    if (revision, seen) != self._head_seen:
                        self._head_seen = (revision, seen)
                        self._look_told()
                step()
                await self._wakes["head"].wait(self._head.rest_s(_IDLE_TICK_S))

    def _look_told(self) -> None:
        self._report_due.set()
        if self.told is not None:
            self.told()

    # --- reports ------------------------------------------------------------------------

    def _revision_seen(self) -> int:
        """The document that the report knows of; 0 before it can speak of all roles.

        The head's part counts where there is one: what it reports is promises by a document,
        what a storage host reports is facts.
        """
        if self._document is None:
            return 0
        seen = []
        if self._storage is not None:
            seen.append(self._storage_seen[0])
        if self._head is not None:
            seen.append(self._head_seen[0])
        if not all(seen):
            return 0
        return seen[-1] if seen else self._document.revision

    async def _report_loop(self) -> None:
        again_s = 0.0
        with self._progress.loop("reports") as step:
            while True:
                step()
                content = (self._revision_seen(), self._storage_seen[1], self._head_seen[1])
                due = content != self._last_sent or self._clock.monotonic_s() >= again_s
                if content[0] and due and await self._report(content):
                    again_s = self._clock.monotonic_s() + _REPORT_AGAIN_S
                left_s = max(_REST_LEAST_S, again_s - self._clock.monotonic_s())
                waits = not content[0] or self._last_sent is None
                await self._report_due.wait(_TICK_S if waits else left_s)

    async def _report(self, content: tuple[int, StorageReport, HeadReport]) -> bool:
        self._sequence += 1
        revision, storage, head = content
        report = Report(
            boot_id=self._kernel.boot_id(),
            life=self._life,
            sequence=self._sequence,
            revision=revision,
            storage=storage,
            head=head,
        )
        self._last_sent = content
        try:
            await self._peers.call(self._manager, api.SendReport(report=report), _REPORT_TIMEOUT_S)
        except VastskyError as error:
            self._last_sent = None
            log.debug("report: %s", error.message)
            return False
        return True
