"""All that the views need of the program behind them, as a Protocol."""

from typing import Protocol

from vastskyd.core import answers, api
from vastskyd.core.model import Record, Role


class Cluster(Protocol):
    """Errors are those of core.errors."""

    async def ask(self, request: Record) -> Record:
        """Any of api.ADMIN_REQUESTS. Bounded in time (UnreachableError: the manager did not
        answer); ConflictError while this host belongs to no cluster."""

    async def init(self, request: api.InitCluster) -> answers.Initialised: ...

    async def join(
        self, token: str, addresses: tuple[str, ...], rack: str, node: str, roles: tuple[Role, ...]
    ) -> answers.Initialised:
        """api.JoinCluster."""

    def local(self) -> answers.LocalView:
        """What this host is, at once and without asking anybody."""

    async def changed(self) -> None:
        """Returns when `local` may answer something new since this was last called."""
