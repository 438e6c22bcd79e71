"""What ports.Exports promises, of every world in exports_world.WORLDS."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.contract.exports_world import WORLDS, ExportsWorld
from vastskyd.core.errors import ConflictError, DeviceError
from vastskyd.core.ids import ExtentId, NodeId
from vastskyd.ports import Export

HEAD1, HEAD2 = NodeId("head1"), NodeId("head-2")
EXTENT1, EXTENT2 = ExtentId("1" * 16), ExtentId("2" * 16)


@pytest.fixture(params=sorted(WORLDS))
async def world(request: pytest.FixtureRequest) -> AsyncIterator[ExportsWorld]:
    async with WORLDS[request.param]() as found:
        yield found


def export(
    head: NodeId = HEAD1, extent: ExtentId = EXTENT1, epoch: int = 1, key: str = "a"
) -> Export:
    return Export(head, extent, epoch, f"{extent}-{key * 32}")


async def serve(world: ExportsWorld, *exports: Export) -> None:
    for number, one in enumerate(exports):
        await world.exports.ensure_server(world.server(one.head))
        await world.exports.add(one, world.devices()[number])


async def reached(world: ExportsWorld, one: Export) -> bool:
    connection = await world.connect(world.server(one.head), one.name)
    return connection is not None and await connection.alive()


async def test_nothing_runs_at_first(world: ExportsWorld) -> None:
    assert await world.exports.servers() == ()
    assert await world.exports.exports() == ()


async def test_a_server_without_exports(world: ExportsWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    assert await world.exports.servers() == (HEAD1,)
    assert await world.exports.exports() == ()
    assert not await reached(world, export())


async def test_an_export_is_served_under_its_name_only(world: ExportsWorld) -> None:
    await serve(world, export())
    assert await world.exports.exports() == (export(),)
    assert await reached(world, export())
    assert not await reached(world, export(key="b"))


async def test_a_daemon_that_remembers_nothing_sees_how_servers_were_set_up(
    world: ExportsWorld,
) -> None:
    assert await world.exports.running() == ()
    await serve(world, export(), export(HEAD2, EXTENT2))
    running = await world.restarted().running()
    assert sorted(running, key=lambda server: server.head) == [
        world.server(HEAD2),
        world.server(HEAD1),
    ]


async def test_two_heads_are_apart(world: ExportsWorld) -> None:
    first, second = export(), export(HEAD2, EXTENT2)
    await serve(world, first, second)
    assert set(await world.exports.exports()) == {first, second}
    assert set(await world.exports.servers()) == {HEAD1, HEAD2}
    other = await world.connect(world.server(HEAD2), first.name)
    assert other is None


async def test_everything_may_be_said_twice(world: ExportsWorld) -> None:
    await serve(world, export())
    connection = await world.connect(world.server(HEAD1), export().name)
    await serve(world, export())
    assert await world.exports.exports() == (export(),)
    assert connection is not None
    assert await connection.alive()
    for _ in range(2):
        await world.exports.remove(HEAD1, EXTENT1)
    for _ in range(2):
        await world.exports.stop_server(HEAD1)
    assert await world.exports.servers() == ()


async def test_a_restarted_vastskyd_sees_all_of_it_and_touches_nothing(
    world: ExportsWorld,
) -> None:
    await serve(world, export(epoch=7))
    connection = await world.connect(world.server(HEAD1), export().name)
    exports = world.restarted()
    assert await exports.exports() == (export(epoch=7),)
    await exports.ensure_server(world.server(HEAD1))
    await exports.add(export(epoch=7), world.devices()[0])
    assert connection is not None
    assert await connection.alive()


@pytest.mark.parametrize(
    "other",
    [export(epoch=2), export(epoch=1, key="b"), export(HEAD2), export(HEAD2, epoch=2)],
)
async def test_an_extent_is_served_once(world: ExportsWorld, other: Export) -> None:
    await serve(world, export(epoch=1))
    await world.exports.ensure_server(world.server(other.head))
    with pytest.raises(ConflictError):
        await world.exports.add(other, world.devices()[0])
    assert await world.exports.exports() == (export(epoch=1),)


async def test_removal_cuts_connections_and_frees_the_extent(world: ExportsWorld) -> None:
    await serve(world, export(), export(extent=EXTENT2))
    cut = await world.connect(world.server(HEAD1), export().name)
    kept = await world.connect(world.server(HEAD1), export(extent=EXTENT2).name)
    assert cut is not None
    assert kept is not None
    await world.exports.remove(HEAD1, EXTENT1)
    assert not await cut.alive()
    assert await kept.alive()
    assert not await reached(world, export())
    assert await world.exports.exports() == (export(extent=EXTENT2),)
    await world.exports.ensure_server(world.server(HEAD2))
    await world.exports.add(export(HEAD2, epoch=2), world.devices()[0])
    assert await reached(world, export(HEAD2, epoch=2))


async def test_removing_what_was_never_there(world: ExportsWorld) -> None:
    await world.exports.remove(HEAD1, EXTENT1)
    await world.exports.ensure_server(world.server(HEAD1))
    await world.exports.remove(HEAD1, EXTENT1)


async def test_adding_without_a_server(world: ExportsWorld) -> None:
    with pytest.raises(DeviceError):
        await world.exports.add(export(), world.devices()[0])


async def test_a_device_that_is_not_there_can_be_tried_again(world: ExportsWorld) -> None:
    await world.exports.ensure_server(world.server(HEAD1))
    with pytest.raises(DeviceError):
        await world.exports.add(export(), "/dev/vastsky-nothing")
    assert await world.exports.exports() == ()
    await world.exports.add(export(), world.devices()[0])
    assert await reached(world, export())


async def test_stopping_a_server_cuts_its_heads_connections(world: ExportsWorld) -> None:
    await serve(world, export(), export(HEAD2, EXTENT2))
    cut = await world.connect(world.server(HEAD1), export().name)
    await world.exports.stop_server(HEAD1)
    assert cut is not None
    assert not await cut.alive()
    assert await world.exports.servers() == (HEAD2,)
    assert await world.exports.exports() == (export(HEAD2, EXTENT2),)


async def test_a_crashed_server_is_seen_and_can_be_started_again(world: ExportsWorld) -> None:
    await serve(world, export(), export(HEAD2, EXTENT2))
    await world.exports.stop_server(HEAD2)  # asked for: nobody needs to be told
    ended = asyncio.ensure_future(world.exports.ended())
    await asyncio.sleep(0)
    assert not ended.done()
    await world.crash(HEAD1)
    assert await asyncio.wait_for(ended, 10) == HEAD1
    assert await world.exports.servers() == ()
    assert await world.exports.exports() == ()
    await world.exports.remove(HEAD1, EXTENT1)
    await serve(world, export(epoch=2))
    assert await world.exports.exports() == (export(epoch=2),)
    assert await reached(world, export(epoch=2))
