"""What the kernel's contract suites need around the ports: devices to build on, servers to
connect to, faults, and I/O that the ports themselves do not have.

`tests/contract/lab_world.py` is the real one; the simulation has the other.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from vastskyd.core.documents import Endpoint
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Encryption
from vastskyd.ports import Disks, Kernel, Smart


@dataclass(frozen=True)
class Served:
    """An NBD export of this world: what Nbd.connect needs to reach it."""

    endpoint: Endpoint
    export_name: str
    encryption: Encryption
    server: NodeId
    source_address: str
    size_bytes: int


class Program(Protocol):
    def lives(self) -> bool: ...


class World(Protocol):
    kernel: Kernel
    disks: Disks
    smart: Smart

    async def make_legs(self, count: int, size_bytes: int) -> tuple[str, ...]:
        """Device files that read as zeros, apart from each other, fit to be a leg's path."""

    async def fail_path(self, device: str) -> None:
        """From now on every I/O of a device of make_legs fails."""

    async def mend_path(self, device: str) -> None:
        """It works again, with what was on it."""

    async def serve(self, device: str, encryption: Encryption = Encryption.NONE) -> Served:
        """An export server of its own for the device; serving it again after a kill, at the
        same place, is the same server come back."""

    async def kill_server(self, served: Served) -> None: ...

    async def make_disk(self, size_bytes: int) -> str:
        """A disk or partition that Disks.list has, reading as zeros."""

    async def make_smart_disk(self) -> str:
        """A disk that is well, and says so."""

    async def no_disk(self, leg: str) -> str:
        """A block device without a health of its own, made of a device of make_legs if need be."""

    async def put_filesystem(self, path: str) -> None: ...

    async def write(self, device: str, offset_bytes: int, content: bytes) -> None:
        """OSError as an application sees it. Waits as long as the kernel makes it wait."""

    async def read(self, device: str, offset_bytes: int, length_bytes: int) -> bytes: ...

    async def flush(self, device: str) -> None:
        """As a program's fsync."""

    async def flushes(self, device: str) -> int:
        """How many flushes the disk below a device of make_legs has answered."""

    async def leave_frozen(self, array: str) -> None:
        """As an mdadm leaves it that was killed while it added a leg."""

    async def leave_unmade(self) -> str:
        """An array, as an mdadm leaves it that was killed before it had given it a leg."""

    async def is_array(self, device: str) -> bool: ...

    def opened(
        self, device: str, *, to_write: bool = False
    ) -> AbstractAsyncContextManager[Program]:
        """Some program has the device open meanwhile."""

    async def mount(self, device: str) -> None:
        """A new file system on the device, mounted somewhere. Nobody unmounts it."""
