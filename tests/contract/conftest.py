"""The worlds that the kernel's contract suites run in.

On a host: the simulation's. In a guest of the lab, where VASTSKY_CONTRACT_WORLD=lab: the real one.
"""

import importlib
import importlib.util
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.world import World

_FAKE = "tests.sim.contract_world"


def _worlds() -> list[str]:
    if os.environ.get("VASTSKY_CONTRACT_WORLD") == "lab":
        return ["lab"]
    return ["fake"] if importlib.util.find_spec(_FAKE) else []


@pytest_asyncio.fixture(params=_worlds())
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    module = "tests.contract.lab_world" if request.param == "lab" else _FAKE
    async with importlib.import_module(module).make_world() as made:
        yield made
