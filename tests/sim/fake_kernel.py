"""One machine: media that persist, a kernel and export servers that a power cut ends.

Implements ports.Kernel, and gives tests the volume as a program on the host uses it.
"""

import asyncio
import random

from tests.sim.blocks import Bio, Block, KernelState, Op, PowerLostError
from tests.sim.contents import Contents
from tests.sim.fake_disks import DiskBlock, FakeDisks, FakeMedia
from tests.sim.fake_dm import DmBlock, FakeDm
from tests.sim.fake_exports import FakeExports, ServerProcess
from tests.sim.fake_md import FakeMd
from tests.sim.fake_nbd import FakeNbd
from tests.sim.fake_network import FakeNetwork
from tests.sim.fake_smart import FakeSmart
from tests.sim.faults import Door
from vastskyd.core.errors import NotFoundError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Role
from vastskyd.core.names import volume_dm_name

UDEV_S = 0.7


class FakeHost:
    """`kernel` is the running one; a powered-off host keeps its dead one."""

    def __init__(
        self,
        name: str,
        roles: tuple[Role, ...],
        addresses: tuple[str, ...],
        media: tuple[FakeMedia, ...],
        network: FakeNetwork,
        rng: random.Random,
        contents: Contents,
    ) -> None:
        self.name = name
        self.node = NodeId(name)
        self.roles = roles
        self.addresses = addresses
        self.media = list(media)
        self.network = network
        self.powered = True
        self.skew_s = 0.0
        self.servers: dict[NodeId, ServerProcess] = {}
        self.servers_ended: dict[NodeId, None] = {}
        self._rng = rng
        self._contents = contents
        self._pids = 1000
        self.kernel = self._boot()
        network.hosts[name] = self

    def _boot(self) -> KernelState:
        boot_id = f"{self._rng.getrandbits(128):032x}"
        kernel = KernelState(self.name, boot_id, self._rng, self._contents)
        for media in self.media:
            block = _plug(kernel, media)
            kernel.links[block.stable_path] = block.name
        return kernel

    # --- power, disks, processes -----------------------------------------------------------

    def power_cut(self) -> None:
        """Memory is gone: dm, md, NBD, export servers, I/O in flight. Media stay."""
        if not self.powered:
            return
        self.powered = False
        kernel = self.kernel
        blocks = tuple(kernel.blocks.values())
        for server in self.servers.values():
            server.die()
        self.servers.clear()
        self.servers_ended.clear()
        kernel.die()
        for block in blocks:
            if isinstance(block, DiskBlock):
                block.power_cut(self._rng)
        self.network.changed.fire()

    def power_on(self) -> None:
        if not self.powered:
            self.kernel = self._boot()
            self.powered = True
            self.network.changed.fire()

    def pull(self, serial: str) -> FakeMedia:
        """The disk leaves the host, in use or not."""
        media = next(m for m in self.media if m.serial == serial)
        self.media.remove(media)
        for block in tuple(self.kernel.blocks.values()):
            if isinstance(block, DiskBlock) and block.media is media:
                block.pulled = True
                block.media.power_cut(self._rng)
                self.kernel.pulled.append(block)
                self.kernel.blocks.pop(block.name)
                self.kernel.links.pop(block.stable_path, None)
        self.kernel.notify()
        return media

    def insert(self, media: FakeMedia, *, told: bool = True) -> None:
        """Not `told`: the kernel's events are lost."""
        self.media.append(media)
        if not self.powered:
            return
        block = _plug(self.kernel, media)
        if told:
            self.kernel.notify()
            self.kernel.spawn(_name(self.kernel, block))
        else:
            self.kernel.links[block.stable_path] = block.name

    def kill_export_server(self, head: NodeId, *, asked: bool = False) -> None:
        """Its process ends; its clients hear of it, and its daemon, unless that asked for it.
        Nobody starts it again but ensure_server."""
        server = self.servers.pop(head, None)
        if server is not None:
            server.die()
            if not asked:
                self.servers_ended[head] = None
            self.network.changed.fire()

    # --- what programs on the host do -------------------------------------------------------

    def _volume(self, name: str) -> DmBlock:
        found = self._find_volume(name)
        if found is None:
            raise NotFoundError(f"{self.name}: there is no volume {name}")
        return found

    def _find_volume(self, name: str) -> DmBlock | None:
        dm_name = volume_dm_name(name)
        for block in self.kernel.blocks.values():
            if isinstance(block, DmBlock) and block.dm_name == dm_name:
                return block
        return None

    def has_volume(self, name: str) -> bool:
        return self.powered and self._find_volume(name) is not None

    async def write(self, volume: str, grain: int, tag: int) -> None:
        """Acknowledged when it returns. IoError: the device failed it; PowerLostError: the host
        went dark. In both cases any subset of the legs may have it."""
        await self.user_io(self._volume(volume), Bio(Op.WRITE, grain, tag))

    async def flush(self, volume: str) -> None:
        """What was acknowledged before is durable when it returns."""
        await self.user_io(self._volume(volume), Bio(Op.FLUSH, 0))

    async def read(self, volume: str, grain: int) -> int:
        value = await self.user_io(self._volume(volume), Bio(Op.READ, grain))
        if not isinstance(value, int):
            raise TypeError(f"grain {grain} reads as {value!r}")
        return value

    async def user_io(self, block: Block, bio: Bio) -> object:
        """One read or write of a program, on whatever device."""
        label = "opened by checker (pid 4711)"
        kernel = self.kernel
        block.open(label)
        task = kernel.spawn(block.submit(bio))
        # The I/O goes on in the kernel if the caller is cancelled, and holds the device open.
        # Nobody is told of it: the kernel has no event for a program's open and close.
        task.add_done_callback(lambda _: block.users.remove(label))
        self._pids += 1
        program, killed = f"checker (pid {self._pids})", asyncio.Event()
        if isinstance(block, DmBlock) and bio.op is not Op.READ:
            block.programs[program] = killed.set
        await asyncio.wait((task,))
        if isinstance(block, DmBlock):
            block.programs.pop(program, None)
        if task.cancelled() or killed.is_set():
            raise PowerLostError(self.name)
        return task.result()

    def mount(self, volume: str, where: str = "/srv") -> None:
        """The volume stays in use until unmounted."""
        self._volume(volume).open(f"mounted on {where}")

    def unmount(self, volume: str, where: str = "/srv") -> None:
        self._volume(volume).close(f"mounted on {where}")


async def _name(kernel: KernelState, block: DiskBlock) -> None:
    """As with Linux and udev: the device first, its lasting name a moment later."""
    await asyncio.sleep(UDEV_S)
    if kernel.blocks.get(block.name) is block:
        kernel.links[block.stable_path] = block.name
        kernel.notify()


def _plug(kernel: KernelState, media: FakeMedia) -> DiskBlock:
    # As in Linux, a name is not given again while something stands on the disk that had it.
    kernel.pulled = [block for block in kernel.pulled if block.users]
    taken = {*kernel.blocks, *(block.name for block in kernel.pulled)}
    letter = next(c for c in "abcdefghijklmnopqrstuvwxyz" if f"sd{c}" not in taken)
    block = DiskBlock(kernel, f"sd{letter}", media)
    kernel.blocks[block.name] = block
    return block


class FakeKernel:
    """ports.Kernel, as one daemon sees it."""

    def __init__(self, host: FakeHost, door: Door) -> None:
        self._state = host.kernel
        self._door = door
        self._seen = self._state.changes
        self.disks = FakeDisks(host.kernel, door)
        self.smart = FakeSmart(host.kernel, door)
        self.exports = FakeExports(host, door)
        self._dm = FakeDm(host.kernel, door)
        self._md = FakeMd(host.kernel, door)
        self._nbd = FakeNbd(host, door)

    @property
    def dm(self) -> FakeDm:
        return self._dm

    @property
    def md(self) -> FakeMd:
        return self._md

    @property
    def nbd(self) -> FakeNbd:
        return self._nbd

    def boot_id(self) -> str:
        self._door.check()
        return self._state.boot_id

    async def wait_change(self, timeout_s: float) -> bool:
        await self._door.point("kernel.wait_change")
        if self._seen == self._state.changes:
            await self._state.changed.wait_for(timeout_s)
            self._door.check()
        told = self._seen != self._state.changes
        self._seen = self._state.changes
        return told
