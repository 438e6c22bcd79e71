"""A volume set up through the ports, one call after the other, as the roles would."""

from dataclasses import dataclass, field

from tests.sim.world import DaemonPorts, World
from vastskyd.core import names
from vastskyd.core.documents import Endpoint
from vastskyd.core.ids import ExtentId, NodeId, VolumeId
from vastskyd.core.model import Encryption, Role
from vastskyd.core.names import LegName, PathName, VolumeDeviceName
from vastskyd.core.units import MIB
from vastskyd.ports import Export, ExportServer, LinearTarget

HEAD = NodeId("head")
PORT = 10900
VOLUME = VolumeId("a" * 24)
UUID = names.array_uuid(VOLUME, 0)
SIZE = 16 * MIB
EXTENT = SIZE + 4 * MIB


def extent(number: int) -> ExtentId:
    return ExtentId(f"{number:016x}")


@dataclass
class Stack:
    """Legs 1 to n, leg i on the storage host `store{i}`."""

    world: World
    copies: int = 2
    epoch: int = 1
    storage: dict[int, DaemonPorts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world.add_host("head", Role.HEAD, Role.MANAGER)
        for number in range(1, self.copies + 1):
            self.world.add_host(f"store{number}", Role.STORAGE, disks=1, disk_bytes=64 * MIB)
            self.storage[number] = self.world.ports(f"store{number}")
        self.head = self.world.ports("head")

    def leg(self, number: int) -> LegName:
        return LegName(VOLUME, 0, extent(number), self.epoch)

    def numbers(self) -> range:
        return range(1, self.copies + 1)

    async def export(self, number: int) -> None:
        host = self.storage[number] = self.world.ports(f"store{number}")
        disk = (await host.disks.list())[0]
        device = await host.kernel.dm.ensure_linear(
            names.extent_dm_name(extent(number)),
            names.extent_dm_uuid(extent(number)),
            (LinearTarget(disk.path, 4 * MIB, EXTENT),),
            public=False,
        )
        addresses = self.world.hosts["head"].addresses
        await host.exports.ensure_server(ExportServer(HEAD, PORT, addresses, Encryption.TLS))
        name = names.export_name(extent(number), f"key{self.epoch}")
        await host.exports.add(Export(HEAD, extent(number), self.epoch, name), device)

    async def connect(self, number: int) -> str:
        """The leg's device over both networks."""
        store = self.world.hosts[f"store{number}"]
        paths = []
        for network in (0, 1):
            path = await self.head.kernel.nbd.connect(
                PathName(extent(number), self.epoch, network),
                Endpoint(network=network, address=store.addresses[network], port=PORT),
                names.export_name(extent(number), f"key{self.epoch}"),
                Encryption.TLS,
                store.node,
                self.head.addresses[network],
            )
            paths.append(path)
        return await self.head.kernel.dm.ensure_leg(self.leg(number), tuple(paths), EXTENT)

    async def legs(self, *numbers: int) -> tuple[str, ...]:
        devices = []
        for number in numbers:
            await self.export(number)
            devices.append(await self.connect(number))
        return tuple(devices)

    async def volume(self, array: str) -> None:
        await self.head.kernel.dm.ensure_linear(
            names.volume_dm_name("data"),
            VolumeDeviceName(VOLUME, self.epoch).dm_uuid(),
            (LinearTarget(array, 0, SIZE),),
            public=True,
        )

    async def create(self) -> str:
        legs = await self.legs(*self.numbers())
        array = await self.head.kernel.md.create(UUID, "v", legs, self.copies, SIZE)
        await self.head.kernel.md.make_writable(array)
        await self.volume(array)
        return array

    async def assemble(self, *numbers: int) -> str:
        """After the head's reboot."""
        self.head = self.world.ports("head")
        return await self.head.kernel.md.assemble(UUID, "v", await self.legs(*numbers))

    async def write(self, grain: int, tag: int) -> None:
        await self.world.hosts["head"].write("data", grain, tag)

    async def read(self, grain: int) -> int:
        return await self.world.hosts["head"].read("data", grain)

    def on_medium(self, number: int, grain: int) -> int:
        """What the leg's medium holds of the volume's grain."""
        return self.world.hosts[f"store{number}"].media[0].data.get(4 + 4 + grain, 0)
