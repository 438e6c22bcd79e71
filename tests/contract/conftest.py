"""The worlds that the kernel's contract suites run in.

On a host: the simulation's. In a guest of the lab, where VASTSKY_CONTRACT_WORLD=lab: the real one.
"""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.contract.world import World

_IN_GUEST = os.environ.get("VASTSKY_CONTRACT_WORLD") == "lab"

# By name: a guest has no tests.sim.
_WORLD = "tests.contract.lab_world" if _IN_GUEST else "tests.sim.contract_world"
_SUITES = (
    "test_dm.py",
    "test_md.py",
    "test_md_resize.py",
    "test_nbd.py",
    "test_disks.py",
    "test_flushes.py",
    "test_smart.py",
)
_SIMULATED = () if _IN_GUEST else _SUITES

# What has no world here is not collected; test_on_real_kernel.py runs all of it in a guest.
collect_ignore = [] if _IN_GUEST else ["test_udev.py"]

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, LoopFactory]:
    """Where the kernel is simulated, so is time: what must not happen is waited for in no time."""
    if item.path.name in _SIMULATED:
        simulated: LoopFactory = importlib.import_module("tests.sim.loop").SimLoop
        return {"simulated": simulated}
    return {"real": asyncio.new_event_loop}


@pytest_asyncio.fixture(params=["lab" if _IN_GUEST else "fake"])
async def world() -> AsyncIterator[World]:
    async with importlib.import_module(_WORLD).make_world() as made:
        yield made
