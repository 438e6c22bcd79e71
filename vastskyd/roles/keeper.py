"""The manager's place: the manager where there are records, and who makes them anew where there
are none that can be used."""

import asyncio
import logging

from vastskyd.core import answers, api
from vastskyd.core.errors import (
    ConflictError,
    DamagedError,
    DeniedError,
    DeviceError,
    NotFoundError,
    VastskyError,
)
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record
from vastskyd.core.state import ClusterState, load
from vastskyd.core.turn import Policy
from vastskyd.ports import Clock, Peers, Store, Vault
from vastskyd.roles.joining import Issuer
from vastskyd.roles.manager import Manager
from vastskyd.roles.progress import Progress
from vastskyd.roles.recoverer import Recoverer
from vastskyd.store.identity import Identity

log = logging.getLogger(__name__)

_TRY_AGAIN_S = 30.0
_RECOVERY = (api.ShowRecovery, api.BeginRecovery, api.FinishRecovery)


class Keeper:
    """Answers as whoever is in the place now; `run` is that one's life, and the next one's."""

    def __init__(
        self,
        identity: Identity,
        vault: Vault,
        peers: Peers,
        clock: Clock,
        policy: Policy,
        issuer: Issuer,
        progress: Progress | None = None,
    ) -> None:
        self._identity = identity
        self._vault = vault
        self._peers = peers
        self._clock = clock
        self._policy = policy
        self._issuer = issuer
        self._progress = progress or Progress(clock)
        self._replaced = asyncio.Event()
        self._ended = asyncio.Event()
        self._changing = asyncio.Lock()
        self._current = self._take_place()

    def _take_place(self) -> Manager | Recoverer:
        """A store that is not this cluster's is no store: told by it, the hosts would throw away
        what they have."""
        try:
            store = self._vault.open()
            self._check(store)
            return Manager(
                self._identity.node,
                store,
                self._peers,
                self._clock,
                self._policy,
                self._issuer,
                self._progress,
            )
        except (NotFoundError, DamagedError, DeviceError) as error:
            return self._recoverer(error)

    def _check(self, store: Store) -> None:
        clusters = load(store.load()).cluster
        if not clusters:
            raise NotFoundError("its database holds no cluster")
        if self._identity.cluster not in clusters:
            raise DamagedError(f"its database is that of cluster {', '.join(clusters)}")

    def _recoverer(self, why: VastskyError, before: ClusterState | None = None) -> Recoverer:
        return Recoverer(self._identity, self._vault, self._peers, self._clock, why, before=before)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._replaced.clear()
            self._ended.clear()
            life = asyncio.create_task(self._current.run(), name="manager's place")
            waiting = asyncio.create_task(self._replaced.wait(), name="manager replaced")
            trying = asyncio.create_task(self._try_again(), name="open the database again")
            try:
                await asyncio.wait((life, waiting), return_when=asyncio.FIRST_COMPLETED)
                if life.done():
                    life.result()
            finally:
                for task in (life, waiting, trying):
                    task.cancel()
                await asyncio.gather(life, waiting, trying, return_exceptions=True)
                self._ended.set()

    async def _try_again(self) -> None:
        """A file system that was full, or could not be read, may be well again."""
        while isinstance(self._current, Recoverer) and self._current.may_pass:
            await self._clock.sleep(_TRY_AGAIN_S)
            async with self._changing:
                self._hand_over(self._take_place())

    def _hand_over(self, place: Manager | Recoverer) -> None:
        if isinstance(place, Recoverer):
            return
        self._current = place
        for node in self._peers.connected():
            place.session_changed(node, True)
        self._replaced.set()

    def set_policy(self, policy: Policy) -> None:
        self._policy = policy
        if isinstance(self._current, Manager):
            self._current.set_policy(policy)

    def session_changed(self, node: NodeId, up: bool) -> None:
        self._current.session_changed(node, up)

    def is_member(self, node: NodeId) -> bool:
        return self._current.is_member(node)

    async def admit(self, request: api.Join) -> api.Joined:
        return await self._current.admit(request)

    async def answer(self, peer: NodeId, request: Record) -> Record:
        if not isinstance(request, _RECOVERY):
            return await self._current.answer(peer, request)
        if not self.is_member(peer):
            raise DeniedError(f"{peer} is not a node of this cluster")
        return await self.ask(request)

    async def ask(self, request: Record) -> Record:
        """Any of api.ADMIN_REQUESTS."""
        match request:
            case api.ShowRecovery():
                if isinstance(self._current, Recoverer):
                    return await self._current.show()
                return answers.RecoveryView(recovering=False, why="")
            case api.BeginRecovery():
                async with self._changing:
                    return await self._begin()
            case api.FinishRecovery():
                async with self._changing:
                    return await self._finish(request)
        return await self._current.ask(request)

    async def _begin(self) -> answers.RecoveryView:
        if isinstance(self._current, Manager):
            why = ConflictError("they were set aside to be made anew")
            self._current = self._recoverer(why, self._current.records)
            self._replaced.set()
            await self._ended.wait()
            try:
                kept_as = self._vault.set_aside(self._clock.now_s())
            except VastskyError:
                self._hand_over(self._take_place())
                raise
            log.warning("the manager's records are set aside as %s", kept_as)
        return await self._current.show()

    async def _finish(self, request: api.FinishRecovery) -> answers.RecoveryView:
        if not isinstance(self._current, Recoverer):
            raise ConflictError(
                "the manager has its records",
                hint="to take in hosts that were away when they were made: `vastskyctl cluster"
                " recover --again`",
            )
        view = await self._current.finish(request)
        place = self._take_place()
        if isinstance(place, Recoverer):
            raise ConflictError(f"the new records cannot be used either: {place.why}")
        self._hand_over(place)
        return view
