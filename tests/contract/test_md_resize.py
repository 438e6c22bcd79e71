"""Md's contract: a place more in an array, and one less, while it is in use."""

import pytest

from tests.contract.test_md import BLOCK, MIB, Stack
from tests.contract.world import World
from vastskyd.core.errors import BusyError
from vastskyd.ports import MemberState

IN_SYNC = MemberState.IN_SYNC


@pytest.fixture
def stack(world: World) -> Stack:
    return Stack(world)


async def with_a_third_leg(stack: Stack) -> None:
    """Two legs, and one more that was filled while both stayed."""
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await stack.world.write(stack.array, MIB, BLOCK)
    await md.resize(stack.array, 3)
    array = await stack.shown()
    assert array is not None
    assert array.raid_devices == 3
    assert await stack.states() == [IN_SYNC, IN_SYNC]
    await stack.add_legs(1)
    await md.add(stack.array, stack.legs[2], fresh=True)
    await stack.whole()


async def test_a_leg_is_moved(stack: Stack) -> None:
    await with_a_third_leg(stack)
    md = stack.world.kernel.md
    await stack.world.write(stack.array, 2 * MIB, BLOCK)
    with pytest.raises(BusyError):
        await md.resize(stack.array, 2)
    await md.fail(stack.array, stack.legs[0])
    await md.remove(stack.array, stack.legs[0])
    await md.resize(stack.array, 2)
    array = await stack.whole()
    assert array.raid_devices == 2
    assert await stack.states() == [None, IN_SYNC, IN_SYNC]
    await stack.world.write(stack.array, 3 * MIB, BLOCK)
    for at in (1, 2, 3):
        assert await stack.world.read(stack.array, at * MIB, len(BLOCK)) == BLOCK
    _, one, other = await stack.data_of_legs()
    assert one == other


async def test_an_array_that_was_resized_is_assembled_again(stack: Stack) -> None:
    await with_a_third_leg(stack)
    md = stack.world.kernel.md
    await md.fail(stack.array, stack.legs[0])
    await md.remove(stack.array, stack.legs[0])
    await md.resize(stack.array, 2)
    await stack.world.write(stack.array, 2 * MIB, BLOCK)
    await md.stop(stack.array)
    await stack.assemble(1, 2)
    array = await stack.shown()
    assert array is not None
    assert array.raid_devices == 2
    assert await stack.states() == [None, IN_SYNC, IN_SYNC]
    assert await stack.world.read(stack.array, 2 * MIB, len(BLOCK)) == BLOCK


async def test_with_an_empty_place_it_is_assembled_all_the_same(stack: Stack) -> None:
    """A head may die before the new leg is added."""
    await stack.create(2, 2)
    md = stack.world.kernel.md
    await md.make_writable(stack.array)
    await md.resize(stack.array, 3)
    await stack.world.write(stack.array, MIB, BLOCK)
    await stack.end_without_stop()
    await stack.assemble(0, 1)
    assert await stack.states() == [IN_SYNC, IN_SYNC]
    assert await stack.world.read(stack.array, MIB, len(BLOCK)) == BLOCK
