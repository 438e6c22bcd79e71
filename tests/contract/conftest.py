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
_IN_GUEST = os.environ.get("VASTSKY_CONTRACT_WORLD") == "lab"
_HAS_FAKE = not _IN_GUEST and importlib.util.find_spec(_FAKE) is not None

# What has no world here is not collected; test_on_real_kernel.py runs all of it in a guest.
collect_ignore = [] if _IN_GUEST else ["test_udev.py"]
if not _IN_GUEST and not _HAS_FAKE:
    collect_ignore += ["test_dm.py", "test_md.py", "test_nbd.py", "test_disks.py"]


@pytest_asyncio.fixture(params=["lab" if _IN_GUEST else "fake"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    module = "tests.contract.lab_world" if request.param == "lab" else _FAKE
    async with importlib.import_module(module).make_world() as made:
        yield made
