"""A storm in which the manager's records are lost, and made anew as soon as that can be done."""

import asyncio
import contextlib

from tests.sim import loop
from tests.sim.storm import CALM_S, LIMIT_S, NAMES, STORM_S, Storm
from vastskyd.core import api
from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import NodeId


class LossyStorm(Storm):
    """Nothing is ever gone on without: what is missing is waited for."""

    def _more(self) -> list[asyncio.Task[None]]:
        return [self.cluster.spawn(self._lose())]

    async def _lose(self) -> None:
        rng = self.world.rng("loss")
        await asyncio.sleep(rng.uniform(5, STORM_S - 10))
        self.lost = True
        store = self.world.stores[self.cluster.manager]
        self.world.log("the records are lost")
        self.world.kill_daemon(self.cluster.manager)
        store.lose()
        while self.lost:
            await asyncio.sleep(rng.uniform(1, 10))
            await self._try()

    async def _try(self) -> bool:
        try:
            async with asyncio.timeout(30):
                await self.cluster.ask(api.FinishRecovery())
        except VastskyError as error:
            self.world.log(f"recovery: {error.message}")
            self.lost = self.world.stores[self.cluster.manager].missing
        except TimeoutError:
            self.lost = self.world.stores[self.cluster.manager].missing
        else:
            self.lost = False
        return not self.lost

    async def _mend(self) -> None:
        """Hosts that nobody spoke of, and that were away, are taken in."""
        cluster = self.cluster
        await cluster.until("there are records", CALM_S, lambda: not self.lost)
        # No disk tells, so the administrator does.
        await cluster.ask(api.SetCopiesApart(copies_apart=self.copies_apart))
        nodes = cluster.state().nodes
        if not all(
            NodeId(name) in nodes and not nodes[NodeId(name)].unseen for name in self.world.hosts
        ):
            with contextlib.suppress(VastskyError):
                await cluster.ask(api.BeginRecovery())
            await cluster.until("all is taken in", CALM_S, self._try)
        await self._delete_again()

    async def _delete_again(self) -> None:
        """A volume whose disks were all away when it was deleted is back, if the records were lost
        before they heard of it. Another may have got its name meanwhile."""
        for volume in list(self.cluster.state().volumes.values()):
            if volume.name not in NAMES:
                await self.cluster.delete(volume.name)


def run(seed: int, trace: list[str] | None = None) -> None:
    """Raises what went wrong. `trace` is filled with what happened."""

    async def main() -> None:
        storm = LossyStorm(seed)
        try:
            await storm.run()
        finally:
            if trace is not None:
                trace.extend(storm.world.trace)

    loop.run(main(), LIMIT_S)
