"""The head role over the fake kernel: what it claims to know, and how a volume that moved away
comes down."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.sim import loop
from tests.sim.blocks import PowerLostError
from tests.sim.by_hand import HEAD, Stack
from tests.sim.fake_dm import DmBlock
from tests.sim.fake_kernel import FakeHost
from tests.sim.world import World
from vastskyd.core.documents import HeadDocument
from vastskyd.core.errors import NotFoundError
from vastskyd.core.names import is_wreck
from vastskyd.roles.head import HeadRole

NOBODYS = HeadDocument()
LEG_TIMEOUT_S = 3.0


class Head:
    """A volume "data" on the head, which no document names."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.host: FakeHost = stack.world.hosts["head"]
        ports = stack.head
        self.role = HeadRole(
            HEAD, ports.addresses, ports.kernel, ports.clock, LEG_TIMEOUT_S, lambda: None
        )

    async def fenced(self, within_s: float = 20.0) -> None:
        """Told again and again that it has no volumes."""
        for _ in range(int(within_s)):
            await self.role.converge(NOBODYS, 1)
            await asyncio.sleep(1)

    def names(self) -> list[str]:
        blocks = self.host.kernel.blocks.values()
        return [block.dm_name for block in blocks if isinstance(block, DmBlock)]


def sim(body: Callable[[Head], Awaitable[None]]) -> None:
    async def main() -> None:
        stack = Stack(World(1), 2)
        await stack.create()
        head = Head(stack)
        await body(head)
        await head.role.stop()

    loop.run(main())


def test_steps_under_way_are_by_the_document_that_decided_them() -> None:
    """A manager that took the newer number for known would count on what is not so yet."""

    async def body(head: Head) -> None:
        head.host.mount("data")  # the volume takes some time to come down
        assert (await head.role.converge(NOBODYS, 5))[1] == 5
        await asyncio.sleep(0.1)
        assert head.role.busy
        assert (await head.role.converge(NOBODYS, 6))[1] == 5
        await head.fenced()
        assert (await head.role.converge(NOBODYS, 7))[1] == 7

    sim(body)


def test_a_fenced_head_takes_its_stack_down() -> None:
    async def body(head: Head) -> None:
        await head.fenced()
        assert head.names() == []
        assert await head.stack.head.kernel.md.arrays() == ()
        assert await head.stack.head.kernel.nbd.devices() == ()

    sim(body)


def test_who_writes_to_a_fenced_volume_hears_no_more_of_it() -> None:
    """The write is on one leg and held at the other: md calls it done when that one fails."""

    async def body(head: Head) -> None:
        await head.stack.write(3, 3)  # md's own records say already that it is written to
        head.stack.world.power_cut("store2")
        write = asyncio.create_task(head.stack.write(3, 33))
        await asyncio.sleep(5)
        assert not write.done()
        assert head.stack.on_medium(1, 3) == 33
        await head.fenced()
        with pytest.raises(PowerLostError):
            await write

    sim(body)


def test_a_fenced_volume_in_use_is_broken_off_and_its_name_is_free() -> None:
    async def body(head: Head) -> None:
        volume = head.host._volume("data")
        volume.open("opened by tail (pid 9)")
        await head.fenced()
        assert [is_wreck(name) for name in head.names()] == [True]
        with pytest.raises(NotFoundError):
            await head.stack.read(1)
        volume.close("opened by tail (pid 9)")
        await head.fenced(3)
        assert head.names() == []

    sim(body)
