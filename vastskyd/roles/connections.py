"""A head's connections to its legs: each made in the background, and tried again."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from vastskyd.core.errors import VastskyError
from vastskyd.core.ids import ExtentId
from vastskyd.core.names import PathName
from vastskyd.core.steps import Connect
from vastskyd.ports import Clock, Nbd

log = logging.getLogger(__name__)

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 3.0
_DOUBLED_MOST = 8
_ROUND_S = 0.5


def retry_pause_s(failures: int) -> float:
    """After so many in a row: twice as long each time, within bounds."""
    return min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0 ** min(failures - 1, _DOUBLED_MOST))


@dataclass
class _Attempt:
    """A connection being made, or one that failed: then the task ends when it is time for the
    next try."""

    task: asyncio.Task[None]
    failures: int = 0
    message: str = ""


# Extent, epoch, network.
_PathKey = tuple[ExtentId, int, int]


class Connections:
    """`addresses`: this host's, by network. `changed` is called when one was made or failed."""

    def __init__(
        self, addresses: tuple[str, ...], nbd: Nbd, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._addresses = addresses
        self._nbd = nbd
        self._clock = clock
        self._changed = changed
        self._attempts: dict[_PathKey, _Attempt] = {}

    @property
    def busy(self) -> bool:
        """One is being made, or is to be tried again."""
        return bool(self._attempts)

    async def stop(self) -> None:
        tasks = [attempt.task for attempt in self._attempts.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def keep(self, extents: Collection[tuple[ExtentId, int]]) -> None:
        """Those to others, by their epochs, are not tried any more."""
        for key in [key for key in self._attempts if key[:2] not in extents]:
            self._attempts.pop(key).task.cancel()

    def begin(self, step: Connect) -> None:
        key = (step.extent, step.epoch, step.endpoint.network)
        before = self._attempts.get(key)
        if before is not None:
            if not before.task.done():
                return
            before.task.result()  # what it did not expect is a fault of ours, and ends vastskyd
        attempt = self._attempts[key] = _Attempt(
            asyncio.create_task(self._connect(key, step), name=f"connect {step.extent}")
        )
        if before is not None:
            attempt.failures, attempt.message = before.failures, before.message

    def _until_retry_s(self, failures: int) -> float:
        """Those of a host that is away are tried at the same time: one look serves them all."""
        now_s, pause_s = self._clock.monotonic_s(), retry_pause_s(failures)
        if pause_s < _ROUND_S:
            return pause_s
        return math.ceil((now_s + pause_s) / _ROUND_S) * _ROUND_S - now_s

    async def _connect(self, key: _PathKey, step: Connect) -> None:
        network = step.endpoint.network
        source = self._addresses[network] if network < len(self._addresses) else ""
        try:
            await self._nbd.connect(
                PathName(step.extent, step.epoch, network),
                step.endpoint,
                step.export_name,
                step.encryption,
                step.server,
                source,
            )
        except VastskyError as error:
            attempt = self._attempts.get(key)
            if attempt is not None:
                attempt.failures += 1
                if attempt.message != error.message:
                    log.warning("leg %s by network %d: %s", step.extent, network, error.message)
                attempt.message = error.message
                await self._clock.sleep(self._until_retry_s(attempt.failures))
        else:
            attempt = self._attempts.pop(key, None)
            if attempt is not None and attempt.failures:
                log.info(
                    "leg %s by network %d: connected after %d tries",
                    step.extent,
                    network,
                    attempt.failures + 1,
                )
        finally:
            self._changed()
