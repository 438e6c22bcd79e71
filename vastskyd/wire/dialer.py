"""Reaching a node that has several addresses, and trying again when it cannot be reached."""

import asyncio
from collections.abc import Awaitable, Callable

from vastskyd.core.errors import UnreachableError, VastskyError
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.stream import FrameStream

# Doubling further changes nothing, and 2.0**1024 is an error.
_DOUBLINGS_MAX = 16


async def first_stream(
    addresses: tuple[str, ...],
    open_one: Callable[[str], Awaitable[FrameStream]],
    stagger_s: float,
) -> FrameStream:
    """The first of the addresses that answers. The next one is tried when the last failed or
    has not answered for `stagger_s`, and the others go on meanwhile."""
    if not addresses:
        raise UnreachableError("no address is known")
    attempts: list[asyncio.Task[FrameStream]] = []
    failures: list[str] = []
    winner: asyncio.Task[FrameStream] | None = None
    try:
        for number, address in enumerate(addresses, start=1):
            attempts.append(asyncio.create_task(_open(open_one, address), name=f"dial {address}"))
            last = number == len(addresses)
            winner = await _first_done(attempts, failures, None if last else stagger_s)
            if winner is not None:
                return winner.result()
        raise UnreachableError("; ".join(failures))
    finally:
        await _drop([attempt for attempt in attempts if attempt is not winner])


async def _open(open_one: Callable[[str], Awaitable[FrameStream]], address: str) -> FrameStream:
    return await open_one(address)


async def _first_done(
    attempts: list[asyncio.Task[FrameStream]], failures: list[str], stagger_s: float | None
) -> asyncio.Task[FrameStream] | None:
    """An attempt that succeeded. None: with a stagger, time for the next address; without, all
    have failed."""
    newest = attempts[-1]
    running = {attempt for attempt in attempts if not attempt.done()}
    while running:
        done, running = await asyncio.wait(
            running, timeout=stagger_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            return None
        for attempt in done:
            error = attempt.exception()
            if error is None:
                return attempt
            if not isinstance(error, VastskyError):
                raise error
            failures.append(error.message)
        if stagger_s is not None and newest.done():
            return None
    return None


async def _drop(attempts: list[asyncio.Task[FrameStream]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for stream in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(stream, FrameStream):
            stream.abort()


def backoff_s(attempt: int, limits: WireLimits, draw: Callable[[], float]) -> float:
    """Exponential with full jitter: after a manager's restart its nodes do not come at once.
    `draw` gives a number from 0 to 1."""
    doublings = min(attempt, _DOUBLINGS_MAX)
    return draw() * min(limits.reconnect_max_s, limits.reconnect_first_s * 2.0**doublings)
