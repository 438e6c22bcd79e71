"""The storage role over the fake ports, by documents of a manager that may be out of date."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from tests.sim import loop
from tests.sim.fake_kernel import FakeHost
from tests.sim.world import World
from vastskyd.core.description import ExtentRecord
from vastskyd.core.documents import (
    DiskCondition,
    DiskSpec,
    ExportServerSpec,
    ExtentCondition,
    ExtentFact,
    ExtentSpec,
    ExtentWish,
    StorageDocument,
    StorageReport,
    VolumeHints,
)
from vastskyd.core.errors import UnreachableError
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, NodeId, VolumeId
from vastskyd.core.model import Encryption, Layout, Role
from vastskyd.core.names import LegName, export_name, extent_dm_name
from vastskyd.core.units import MIB
from vastskyd.ondisk.slots import Current, choose
from vastskyd.ports import Export, ExportServer
from vastskyd.roles.storage import StorageRole

CLUSTER = ClusterId("c" * 16)
DISK = DiskId("d" * 16)
EXTENT = ExtentId("e" * 16)
VOLUME = VolumeId("a" * 24)
HEAD, OTHER = NodeId("head"), NodeId("other")
PATH = "/dev/disk/by-id/store-0"
START_GRAIN, LENGTH = 8, 8 * MIB
HINTS = VolumeHints(
    volume_name="v", volume_size_bytes=4 * MIB, copies=2, layout=Layout.RAID1,
    segment_length_bytes=4 * MIB, initialised=True, leg_state=None,
)  # fmt: skip


def spec(epoch: int = 1, head: NodeId | None = HEAD, key: str = "k") -> ExtentSpec:
    return ExtentSpec(
        id=EXTENT, disk=DISK, offset_bytes=START_GRAIN * MIB, length_bytes=LENGTH, volume=VOLUME,
        segment=0, wish=ExtentWish.KEEP, wipe_first=True, hints=HINTS, epoch=epoch, head=head,
        export_key=key,
    )  # fmt: skip


class Store:
    """A storage host with one disk, and its role."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.host: FakeHost = world.add_host("store", Role.STORAGE, disks=1)
        self.media = self.host.media[0]
        self.begin()

    def begin(self) -> None:
        """A daemon that knows nothing of the one before."""
        self.ports = self.world.ports("store")
        self.role = StorageRole(
            CLUSTER, "sim", self.ports.kernel, self.ports.exports, self.ports.disks,
            self.ports.smart, self.ports.clock, 0.0, lambda: None,
        )  # fmt: skip

    async def told(
        self, *extents: ExtentSpec, enrol: bool = False, wipe: bool = False
    ) -> StorageReport:
        heads = sorted({each.head for each in extents if each.head is not None})
        servers = tuple(
            ExportServerSpec(
                head=head, port=10900 + number, addresses=("10.0.0.9",), encryption=Encryption.NONE
            )
            for number, head in enumerate(heads)
        )
        disk = DiskSpec(id=DISK, path=PATH, serial="store-0", enrol=enrol, wipe=wipe)
        return await self.role.converge(
            StorageDocument(disks=(disk,), extents=extents, servers=servers)
        )

    async def converged(self, *extents: ExtentSpec) -> ExtentFact:
        """What is said of the extent once nothing more happens."""
        for _ in range(3):
            report = await self.told(*extents)
            await asyncio.sleep(0.5)
        (fact,) = report.extents
        return fact

    async def exports(self) -> tuple[Export, ...]:
        return await self.ports.exports.exports()

    def on_disk(self) -> ExtentRecord | None:
        """What stands on the medium, for whoever reads it next."""
        found = choose(tuple(self.media.slots))
        assert isinstance(found, Current), found
        records = {record.id: record for record in found.description.extents}
        return records.get(EXTENT)


def sim(body: Callable[[Store], Awaitable[None]], *, enrolled: bool = True) -> None:
    async def main() -> None:
        store = Store(World(1))
        if enrolled:
            report = await store.told(enrol=True)
            assert [disk.condition for disk in report.disks] == [DiskCondition.PRESENT]
        await body(store)
        await store.role.stop()

    loop.run(main())


# --- epochs -----------------------------------------------------------------------------------


def test_the_epoch_is_on_the_disk_before_it_is_reported() -> None:
    async def body(store: Store) -> None:
        await store.converged(spec(epoch=3))
        fact = await store.converged(spec(epoch=4, key="l"))
        record = store.on_disk()
        assert record is not None
        assert (fact.epoch, record.epoch) == (4, 4)
        assert [export.epoch for export in await store.exports()] == [4]

    sim(body)


def test_an_epoch_that_is_over_is_served_no_more() -> None:
    """The document is of a manager that lost its last records, or was overtaken."""

    async def body(store: Store) -> None:
        await store.converged(spec(epoch=4))
        store.host.kill_export_server(HEAD)
        store.begin()
        fact = await store.converged(spec(epoch=3))
        assert await store.exports() == ()
        record = store.on_disk()
        assert record is not None
        assert (fact.epoch, record.epoch, fact.exported_to) == (4, 4, None)

    sim(body)


@pytest.mark.parametrize(
    "after",
    [spec(epoch=4), spec(epoch=3, key="l"), spec(epoch=3, head=OTHER), spec(epoch=3, head=None)],
    ids=["epoch", "key", "head", "nobody"],
)
def test_what_was_served_is_removed_when_it_is_over(after: ExtentSpec) -> None:
    async def body(store: Store) -> None:
        await store.converged(spec(epoch=3))
        (old,) = await store.exports()
        report = await store.told(after)
        assert old not in await store.exports()
        (fact,) = report.extents
        assert fact.epoch == max(3, after.epoch)

    sim(body)


def test_an_extent_that_this_host_uses_itself_is_served_to_nobody() -> None:
    """Its own head was told to take that stack down, and has not yet: until then it may write,
    and the epoch is not fenced."""

    async def body(store: Store) -> None:
        await store.converged(spec(epoch=3, head=None))
        leg = LegName(VOLUME, 0, EXTENT, 3)
        dm = store.ports.kernel.dm
        extent = next(d for d in await dm.devices() if d.name == extent_dm_name(EXTENT))
        await dm.ensure_leg(leg, (extent.device,), LENGTH)
        fact = await store.converged(spec(epoch=4))
        assert await store.exports() == ()
        assert fact.epoch == 3
        await dm.remove(leg.dm_name())
        fact = await store.converged(spec(epoch=4))
        assert (fact.epoch, fact.exported_to) == (4, HEAD)

    sim(body)


# --- wipes ------------------------------------------------------------------------------------


def grains_of_extent() -> range:
    return range(START_GRAIN, START_GRAIN + LENGTH // MIB)


def test_an_extent_is_ready_and_served_once_it_is_wiped() -> None:
    async def body(store: Store) -> None:
        store.media.data |= dict.fromkeys(grains_of_extent(), 99)
        for _ in range(100):
            (fact,) = (await store.told(spec())).extents
            left = [grain for grain in grains_of_extent() if store.media.data.get(grain)]
            record = store.on_disk()
            assert record is not None
            if left:
                assert fact.condition is ExtentCondition.PREPARING
                assert record.state == "preparing"
                assert await store.exports() == ()
            elif fact.condition is ExtentCondition.READY:
                break
            await asyncio.sleep(0.002)
        assert not left
        assert fact.condition is ExtentCondition.READY
        assert [export.name for export in await store.exports()] == [export_name(EXTENT, "k")]

    sim(body)


def test_a_released_extent_is_wiped_before_it_is_gone() -> None:
    async def body(store: Store) -> None:
        await store.converged(spec())
        store.media.data |= dict.fromkeys(grains_of_extent(), 99)
        freed = msgspec.structs.replace(spec(head=None, epoch=0), wish=ExtentWish.RELEASE)
        for _ in range(100):
            (fact,) = (await store.told(freed)).extents
            left = [grain for grain in grains_of_extent() if store.media.data.get(grain)]
            if left:
                assert fact.condition is ExtentCondition.WIPING
                assert store.on_disk() is not None
            elif fact.condition is ExtentCondition.GONE:
                break
            await asyncio.sleep(0.002)
        assert not left
        assert fact.condition is ExtentCondition.GONE
        assert store.on_disk() is None

    sim(body)


def test_a_daemon_that_dies_while_it_wipes_wipes_anew() -> None:
    async def body(store: Store) -> None:
        store.media.data |= dict.fromkeys(grains_of_extent(), 99)
        await store.told(spec())
        await asyncio.sleep(0.004)
        await store.role.stop()
        store.host.power_cut()
        store.host.power_on()
        assert any(store.media.data.get(grain) for grain in grains_of_extent())
        store.begin()
        fact = await store.converged(spec())
        assert fact.condition is ExtentCondition.READY
        assert not any(store.media.data.get(grain) for grain in grains_of_extent())

    sim(body)


# --- foreign disks ----------------------------------------------------------------------------


def test_a_disk_with_something_on_it_is_refused_unless_told_to_wipe() -> None:
    """Whatever the manager thought: it may have looked before somebody made a file system."""

    async def body(store: Store) -> None:
        store.media.found = "ext4 filesystem"
        store.media.data[2] = 77
        report = await store.told(enrol=True)
        assert [disk.condition for disk in report.disks] == [DiskCondition.REFUSED]
        assert "ext4 filesystem" in report.disks[0].message
        assert (store.media.found, store.media.data) == ("ext4 filesystem", {2: 77})
        assert not store.media.is_member()
        report = await store.told(enrol=True, wipe=True)
        assert [disk.condition for disk in report.disks] == [DiskCondition.PRESENT]

    sim(body, enrolled=False)


def test_a_disk_of_another_cluster_is_refused() -> None:
    async def body(store: Store) -> None:
        before = list(store.media.slots)
        store.role = StorageRole(
            ClusterId("f" * 16), "other", store.ports.kernel, store.ports.exports,
            store.ports.disks, store.ports.smart, store.ports.clock, 0.0, lambda: None,
        )  # fmt: skip
        report = await store.told(enrol=True)
        assert [disk.condition for disk in report.disks] == [DiskCondition.REFUSED]
        assert store.media.slots == before

    sim(body)


@pytest.mark.parametrize("answers", [True, False], ids=["says it runs", "says nothing"])
def test_a_server_that_is_stuck_takes_no_other_with_it(answers: bool) -> None:
    """To end one may take 45 s: the others' heads would lose their legs meanwhile."""

    async def body(store: Store) -> None:
        await store.told(spec(), spec_of_other())
        exports = store.ports.exports
        seen, running, stop = exports.exports, exports.running, exports.stop_server
        stopped: list[NodeId] = []

        async def stuck() -> tuple[Export, ...]:
            if HEAD in stopped:
                return await seen()
            raise UnreachableError("it does not answer")

        async def which() -> tuple[ExportServer, ...]:
            return tuple(e for e in await running() if answers or e.head != HEAD)

        async def noted(head: NodeId) -> None:
            stopped.append(head)
            await stop(head)

        exports.exports, exports.running = stuck, which  # type: ignore[method-assign]
        exports.stop_server = noted  # type: ignore[method-assign]
        await store.told(spec(), spec_of_other())
        assert sorted(stopped) == ([HEAD, OTHER] if answers else [HEAD])

    sim(body)


def spec_of_other() -> ExtentSpec:
    other = spec(head=OTHER, key="o")
    there = (START_GRAIN + LENGTH // MIB) * MIB
    return msgspec.structs.replace(other, id=ExtentId("f" * 16), offset_bytes=there)
