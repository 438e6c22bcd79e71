"""The real daemons in a simulated cluster: what happens, and what goes wrong, one at a time."""

from collections.abc import Awaitable, Callable

import pytest

from tests.sim import loop
from tests.sim.cluster import APART, TOGETHER, Shape, SimCluster

LIMIT_S = 3600.0


def simulate(
    body: Callable[[SimCluster], Awaitable[None]], cluster: Callable[[], SimCluster]
) -> None:
    async def main() -> None:
        made = cluster()
        await made.enrol_all()
        await body(made)
        made.world.check()

    loop.run(main(), LIMIT_S)


@pytest.mark.parametrize("shape", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_from_disks_to_a_volume_and_back(shape: Shape, copies: int) -> None:
    async def body(cluster: SimCluster) -> None:
        first, second = cluster.heads[:2]
        await cluster.create(copies=copies)
        await cluster.attach(head=first)
        for number in range(40):
            assert await cluster.checker.write(first, "v", number)
        await cluster.checker.read_all(first, "v")
        assert await cluster.redundant()
        await cluster.detach()
        await cluster.attach(head=second)
        await cluster.checker.read_all(second, "v")
        await cluster.detach()
        await cluster.delete()
        await cluster.nothing_left()
        assert (await cluster.status()).health == "ok"

    simulate(body, lambda: SimCluster(1, shape))
