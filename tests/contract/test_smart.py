"""Smart's contract. That health fails, and that a disk sleeps, cannot be brought about from inside
a guest: tests/core/test_smartctl.py has what smartctl says then."""

from tests.contract.world import World
from vastskyd.core.model import SmartHealth

MIB = 1024 * 1024


async def test_a_disk_that_is_well(world: World) -> None:
    reading = await world.smart.read(await world.make_smart_disk())
    assert reading is not None
    assert (reading.health, reading.reason) == (SmartHealth.PASSED, "")
    assert reading.model
    assert reading.temperature_c is not None
    assert reading.media_errors == 0


async def test_asking_twice_changes_nothing(world: World) -> None:
    disk = await world.make_smart_disk()
    assert await world.smart.read(disk) == await world.smart.read(disk)


async def test_no_such_disk(world: World) -> None:
    reading = await world.smart.read("/dev/disk/by-id/nothing-here")
    assert reading is not None
    assert reading.health is SmartHealth.UNKNOWN
    assert reading.reason


async def test_what_is_no_disk(world: World) -> None:
    (leg,) = await world.make_legs(1, 8 * MIB)
    reading = await world.smart.read(await world.no_disk(leg))
    assert reading is not None
    assert reading.health is SmartHealth.UNKNOWN
    assert reading.reason
