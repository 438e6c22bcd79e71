"""A host that belongs to a cluster: its roles put together over the ports."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from vastskyd.core import answers, api
from vastskyd.core.errors import UnreachableError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record, Role
from vastskyd.core.turn import Policy
from vastskyd.core.witness import Introduction
from vastskyd.ports import Clock, Disks, Exports, Handler, Kernel, Peers, Smart, Vault
from vastskyd.roles.head import HeadRole
from vastskyd.roles.joining import Issuer
from vastskyd.roles.keeper import Keeper
from vastskyd.roles.node import NodeAgent
from vastskyd.roles.progress import Progress
from vastskyd.roles.questions import Questions
from vastskyd.roles.storage import StorageRole
from vastskyd.store.identity import Identity


@dataclass(frozen=True)
class Ports:
    """A host's doors. `vault` and `issuer` are the manager's; None elsewhere."""

    kernel: Kernel
    exports: Exports
    disks: Disks
    smart: Smart
    peers: Peers
    clock: Clock
    vault: Vault | None = None
    issuer: Issuer | None = None


@dataclass(frozen=True)
class Tuning:
    """What a host's own roles may be told anew while they run."""

    leg_timeout_s: float
    smart_interval_s: float
    auto_enroll: tuple[str, ...] = ()


class _WithSelf:
    """Peers to which this node is one too: a call to itself goes to its own handler."""

    def __init__(self, peers: Peers, me: NodeId, answer: Handler) -> None:
        self._peers = peers
        self._me = me
        self._answer = answer

    async def call(self, node: NodeId, request: Record, timeout_s: float) -> Record:
        if node != self._me:
            return await self._peers.call(node, request, timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(node, request)
        except TimeoutError as error:
            raise UnreachableError(f"{node} did not answer itself in time") from error

    async def probe(self, node: NodeId, addresses: tuple[str, ...], port: int) -> bool:
        return node == self._me or await self._peers.probe(node, addresses, port)

    def connected(self) -> frozenset[NodeId]:
        return self._peers.connected() | {self._me}

    def listen(self, handler: Handler, changed: Callable[[NodeId, bool], None]) -> None:
        self._peers.listen(handler, changed)


class Member:
    """Made with a host's identity and ports; `run` is its life."""

    def __init__(self, identity: Identity, ports: Ports, policy: Policy, tuning: Tuning) -> None:
        self.identity = identity
        self.progress = Progress(ports.clock)
        self._told: Callable[[], None] | None = None
        self._peers = _WithSelf(ports.peers, identity.node, self._answer)
        self._questions = Questions(self._peers, identity.manager)
        self.manager = self._make_manager(ports, policy)
        self._agent = NodeAgent(
            _introduction(identity),
            identity.manager,
            ports.kernel,
            self._peers,
            ports.clock,
            self.progress,
        )
        storage = head = None
        if Role.STORAGE in identity.roles:
            storage = StorageRole(
                identity.cluster,
                identity.cluster_name,
                ports.kernel,
                ports.exports,
                ports.disks,
                ports.smart,
                ports.clock,
                tuning.smart_interval_s,
                self._agent.wake_storage,
                tuning.auto_enroll,
            )
        if Role.HEAD in identity.roles:
            head = HeadRole(
                identity.node,
                identity.addresses,
                ports.kernel,
                ports.clock,
                tuning.leg_timeout_s,
                self._agent.wake_head,
            )
        self._head = head
        self._storage = storage
        self._agent.with_roles(storage, head)

    def _make_manager(self, ports: Ports, policy: Policy) -> Keeper | None:
        if Role.MANAGER not in self.identity.roles:
            return None
        if ports.vault is None or ports.issuer is None:
            raise TypeError("a manager needs a vault and an issuer")
        return Keeper(
            self.identity,
            ports.vault,
            self._peers,
            ports.clock,
            policy,
            ports.issuer,
            self.progress,
        )

    def tell(self, changed: Callable[[], None]) -> None:
        """It is called whenever this host sees something of itself anew."""
        self._told = changed
        self._agent.told = changed

    async def run(self) -> None:
        """Until cancelled."""
        self._peers.listen(self._answer, self._session_changed)
        self._session_changed(self.identity.node, True)
        async with asyncio.TaskGroup() as group:
            if self.manager is not None:
                group.create_task(self.manager.run(), name="manager")
            group.create_task(self._agent.run(), name="agent")

    def retune(self, policy: Policy, tuning: Tuning) -> None:
        """Settings that changed; nothing that runs is interrupted."""
        if self.manager is not None:
            self.manager.set_policy(policy)
        if self._head is not None:
            self._head.set_leg_timeout(tuning.leg_timeout_s)
        if self._storage is not None:
            self._storage.set_smart_interval(tuning.smart_interval_s)
            self._storage.set_auto_enroll(tuning.auto_enroll)

    async def ask(self, request: Record) -> Record:
        """Any of api.ADMIN_REQUESTS, answered by the manager wherever it is."""
        return await self._questions.ask(request)

    @property
    def connected(self) -> bool:
        """There is a session with the manager, or this is it."""
        return self.identity.manager in self._peers.connected()

    def local_volumes(self) -> tuple[answers.LocalVolume, ...]:
        """This head's volumes by its own knowledge: the manager may be away."""
        return self._agent.local_volumes(connected=self.connected)

    def local_disks(self) -> tuple[answers.DiskView, ...]:
        return self._agent.local_disks()

    async def _answer(self, peer: NodeId, request: Record) -> Record:
        if type(request) in api.NODE_REQUESTS:
            return await self._agent.answer(peer, request)
        if self.manager is None:
            raise UnreachableError(
                f"{self.identity.node} is not the manager; {self.identity.manager} is"
            )
        return await self.manager.answer(peer, request)

    def _session_changed(self, node: NodeId, up: bool) -> None:
        if self.manager is not None:
            self.manager.session_changed(node, up)
        if node == self.identity.manager and self._told is not None:
            self._told()
        if up and node == self.identity.manager:
            self._agent.session_up()


def _introduction(identity: Identity) -> Introduction:
    return Introduction(
        node=identity.node,
        roles=identity.roles,
        addresses=identity.addresses,
        port=identity.port,
        rack=identity.rack,
        revision=0,
    )
