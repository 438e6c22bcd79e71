"""People's questions to the manager leave room in the session for what the host has to tell."""

import asyncio

import pytest

from tests.wire.lab import BOUND_S, M1, Lab, quick, soon, until
from vastskyd.core.api import Done, ListVolumes, Ping
from vastskyd.core.errors import UnreachableError
from vastskyd.core.model import Record
from vastskyd.dbus.jobs import WAITS_MOST
from vastskyd.roles import questions
from vastskyd.roles.questions import QUESTIONS_MOST, Questions
from vastskyd.wire.limits import WireLimits


async def test_what_the_host_tells_gets_through(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask and wait; those past the bound are asked in turn, or told that they were
    not."""
    manager, storage = await lab.pair(limits=quick(requests_in_flight=8))
    release = asyncio.Event()
    asked = 0

    async def answer(request: Record) -> Record:
        nonlocal asked
        if isinstance(request, ListVolumes):
            asked += 1
            await release.wait()
            return volumes
        return Done()

    manager.answer = None
    volumes = await storage.hub.call(M1, ListVolumes(), BOUND_S)
    manager.answer = answer
    people = Questions(storage.hub, M1, most=6)
    waiting = [asyncio.ensure_future(people.ask(ListVolumes())) for _ in range(20)]
    await until(lambda: asked == 6)
    for _ in range(3):
        assert await soon(storage.hub.call(M1, Ping(), BOUND_S)) == Done()
    monkeypatch.setattr(questions, "_PLACE_TIMEOUT_S", 0.05)
    with pytest.raises(UnreachableError, match="was not asked"):
        await people.ask(ListVolumes())
    assert asked == 6
    release.set()
    assert await soon(asyncio.gather(*waiting)) == [volumes] * 20


def test_the_bound_leaves_room() -> None:
    assert WireLimits().requests_in_flight > QUESTIONS_MOST > 2 * WAITS_MOST
