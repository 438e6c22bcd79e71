"""A head that shuts down: vastskyd has stopped, and nothing of its stacks may hold the host up."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.sim import loop
from tests.sim.blocks import PowerLostError
from tests.sim.by_hand import Stack
from tests.sim.fake_dm import DmBlock
from tests.sim.world import World
from vastskyd.core.names import is_wreck
from vastskyd.ports import MemberState
from vastskyd.roles.letting_go import AT_MOST_S, GENTLY_S, LettingGo

USER = "opened by tail (pid 9)"


class Host:
    """A head with the volume "data" of two legs, without vastskyd."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.world = stack.world
        self.host = stack.world.hosts["head"]
        self.kernel = stack.head.kernel

    async def let_go(self) -> float:
        began_s = self.world.now_s()
        await LettingGo(self.kernel, self.stack.head.clock).run()
        return self.world.now_s() - began_s

    def names(self) -> list[str]:
        blocks = self.host.kernel.blocks.values()
        return [block.dm_name for block in blocks if isinstance(block, DmBlock)]

    async def nothing_is_left(self) -> None:
        assert [name for name in self.names() if not is_wreck(name)] == []
        assert await self.kernel.md.arrays() == ()
        assert await self.kernel.nbd.devices() == ()

    def lose(self, *stores: str) -> None:
        for store in stores:
            self.world.power_cut(store)


def sim(body: Callable[[Host], Awaitable[None]]) -> None:
    async def main() -> None:
        stack = Stack(World(1), 2)
        await stack.create()
        await body(Host(stack))

    loop.run(main())


def test_what_nobody_uses_is_taken_down_and_is_whole_when_it_returns() -> None:
    async def body(host: Host) -> None:
        await host.stack.write(3, 3)
        assert await host.let_go() < GENTLY_S
        await host.nothing_is_left()
        await host.stack.assemble(1, 2)
        (array,) = await host.kernel.md.arrays()
        assert {member.state for member in array.members} == {MemberState.IN_SYNC}

    sim(body)


def test_a_volume_in_use_that_works_is_left_alone() -> None:
    async def body(host: Host) -> None:
        before = sorted(host.names())
        host.host._volume("data").open(USER)
        assert await host.let_go() < 1
        assert sorted(host.names()) == before
        await host.stack.write(3, 3)
        assert await host.stack.read(3) == 3
        assert len(await host.kernel.nbd.devices()) == 4

    sim(body)


@pytest.mark.parametrize("lost", [("store2",), ("store1", "store2")], ids=["one", "all"])
def test_a_shutdown_without_the_storage_ends(lost: tuple[str, ...]) -> None:
    async def body(host: Host) -> None:
        await host.stack.write(3, 3)
        host.lose(*lost)
        assert await host.let_go() < AT_MOST_S
        await host.nothing_is_left()

    sim(body)


@pytest.mark.parametrize("lost", [("store2",), ("store1", "store2")], ids=["one", "all"])
def test_a_write_that_waits_for_ever_ends_and_nobody_is_told_that_it_is_done(
    lost: tuple[str, ...],
) -> None:
    """As that of an unmounting that systemd no longer waits for."""

    async def body(host: Host) -> None:
        await host.stack.write(3, 3)
        host.host._volume("data").open(USER)
        host.lose(*lost)
        write = asyncio.create_task(host.stack.write(3, 33))
        await asyncio.sleep(30)
        assert not write.done()
        assert await host.let_go() < AT_MOST_S
        with pytest.raises((PowerLostError, OSError)):
            await write
        await host.nothing_is_left()

    sim(body)


def test_a_kernel_call_that_hangs_does_not_hold_the_host_up() -> None:
    async def body(host: Host) -> None:
        async def never(_: str) -> None:
            await asyncio.Event().wait()

        host.kernel.md.stop = never  # type: ignore[assignment,method-assign]
        assert await host.let_go() == pytest.approx(AT_MOST_S, abs=1)

    sim(body)
