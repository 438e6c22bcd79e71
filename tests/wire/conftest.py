"""Real sockets, real TLS, short bounds; and no test may leave a task behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.lab import CLUSTER, NOW_S, Lab
from vastskyd.wire.ca import CertificateAuthority

_SETTLE_S = 2.0


@pytest.fixture(autouse=True)
async def nothing_leaks() -> AsyncIterator[None]:
    """Fails a test that leaves a task running, or an error that nobody looked at."""
    loop = asyncio.get_running_loop()
    unseen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unseen.append(context))
    before = asyncio.all_tasks()
    yield
    mine = asyncio.current_task()
    leaked = {task for task in asyncio.all_tasks() - before if task is not mine}
    if leaked:
        _, leaked = await asyncio.wait(leaked, timeout=_SETTLE_S)
    assert not leaked, f"tasks leaked: {leaked}"
    assert not unseen, f"errors nobody looked at: {unseen}"


@pytest.fixture(scope="session")
def ca() -> CertificateAuthority:
    return CertificateAuthority.create(CLUSTER, NOW_S)


@pytest.fixture
async def lab(ca: CertificateAuthority, tmp_path: Path) -> AsyncIterator[Lab]:
    built = Lab(ca, tmp_path)
    yield built
    await built.close()
