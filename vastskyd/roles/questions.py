"""People's questions to the manager: as many at once as leave room for what hosts tell it."""

import asyncio

from vastskyd.core.errors import UnreachableError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record
from vastskyd.ports import Peers
from vastskyd.wire.limits import WireLimits

# The rest of a session's places is for reports: were they to wait for people, the manager would not
# know how this host is.
QUESTIONS_MOST = WireLimits().requests_in_flight * 3 // 4

_ASK_TIMEOUT_S = 45.0
_PLACE_TIMEOUT_S = 30.0


class Questions:
    def __init__(self, peers: Peers, manager: NodeId, most: int = QUESTIONS_MOST) -> None:
        self._peers = peers
        self._manager = manager
        self._places = asyncio.Semaphore(most)

    async def ask(self, request: Record) -> Record:
        """Any of api.ADMIN_REQUESTS, answered by the manager wherever it is."""
        try:
            async with asyncio.timeout(_PLACE_TIMEOUT_S):
                await self._places.acquire()
        except TimeoutError:
            raise UnreachableError(
                "so many questions of this host wait for the manager that this one was not asked",
                hint="try again; if it stays so: `vastskyctl status --local`, and `journalctl -u"
                " vastskyd` on the manager",
            ) from None
        try:
            return await self._peers.call(self._manager, request, _ASK_TIMEOUT_S)
        finally:
            self._places.release()
