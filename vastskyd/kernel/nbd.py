"""Kernel NBD connections: one device per leg and network. Implements ports.Nbd.

The handshake is done here, then the socket is the kernel's: this program may end and I/O goes on.
sysfs tells what is connected, but goes on telling so when the link is dead (measured on 6.12):
that is known from the driver's multicast, and of connections that an earlier life of this program
made, from reading one block.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from vastskyd.core.documents import Endpoint
from vastskyd.core.errors import DeviceError, NotFoundError, UnreachableError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Encryption
from vastskyd.core.names import PathName
from vastskyd.kernel import direct, nbd_netlink, nbd_tls, sysfs
from vastskyd.kernel.calls import Calls
from vastskyd.kernel.nbd_handshake import Negotiated, negotiate
from vastskyd.kernel.nbd_netlink import Family
from vastskyd.ports import NbdDevice

T = TypeVar("T")

# A path fails after this time without an answer, and holds nothing itself: dm-multipath holds.
IO_TIMEOUT_S = 3
DEAD_TIMEOUT_S = 1

# LINK_DEAD then comes after 1.4-1.7 s, on an idle connection too (measured).
TCP_USER_TIMEOUT_MS = 1500
_KEEPALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

STEP_TIMEOUT_S = 5.0  # of each wait within the handshake
CALL_TIMEOUT_S = 20.0
PROBE_TIMEOUT_S = IO_TIMEOUT_S + DEAD_TIMEOUT_S + 2.0
_GONE_TRIES = 40
_GONE_RETRY_S = 0.05

_SECTOR_MIN_BYTES = 512
_SECTOR_MAX_BYTES = 4096


class LinuxNbd:
    def __init__(self, calls: Calls, tls_dir: Path) -> None:
        self._calls = calls
        self._tls_dir = tls_dir
        self._family: Family | None = None
        self._multicast: socket.socket | None = None
        # What is known of a device's link, by index; a backend identifier tells one connection
        # from the next on the same device.
        self._dead: set[int] = set()
        self._alive: dict[int, str] = {}

    async def devices(self) -> tuple[NbdDevice, ...]:
        self.hear()
        found = _connected()
        # A new connection may get the index of one that is gone, and is there before `connect`
        # hears of it.
        self._dead &= {index for index, _ in found}
        unknown = [
            index
            for index, name in found
            if index not in self._dead and self._alive.get(index) != name
        ]
        await asyncio.gather(*(self._probe(index) for index in unknown))
        self.hear()
        devices = []
        for index, name in found:
            path = PathName.parse(name)
            if path is not None:
                devices.append(NbdDevice(f"/dev/nbd{index}", path, index not in self._dead))
        return tuple(devices)

    async def connect(
        self,
        path: PathName,
        endpoint: Endpoint,
        export_name: str,
        encryption: Encryption,
        server: NodeId,
        source_address: str,
    ) -> str:
        for device in await self.devices():
            if device.path == path and device.alive:
                return device.device
        to = _To(endpoint, export_name, encryption, server, source_address, self._tls_dir)
        act = partial(_connect, self._ready(), path, to)
        what = f"connect {path.backend_identifier()} to {endpoint.address}:{endpoint.port}"
        index = await self._calls.call(partial(_speaking, what, act), CALL_TIMEOUT_S, what)
        self._dead.discard(index)
        self._alive[index] = path.backend_identifier()
        return f"/dev/nbd{index}"

    async def disconnect(self, device: str) -> None:
        index = int(os.path.basename(device).removeprefix("nbd"))
        if _backend(index) is None:
            return
        what = f"disconnect {device}"
        act = partial(_speaking, what, partial(_disconnect, self._ready(), index))
        await self._calls.call(act, CALL_TIMEOUT_S, what, lane=f"nbd{index}")
        # While somebody has the device open (a leg above) the kernel goes on showing it.
        self._dead.add(index)
        for _ in range(_GONE_TRIES):
            if _backend(index) is None or _held(index):
                return
            await asyncio.sleep(_GONE_RETRY_S)

    def multicast_fd(self) -> int | None:
        """To poll; readable means that `hear` has something to take in. None: the kernel has no
        NBD driver."""
        if self._multicast is None:
            try:
                self._family = nbd_netlink.family()
            except OSError:
                return None
            if self._family is None:
                return None
            self._multicast = nbd_netlink.listen(self._family)
            # What died before is not multicast again: look at every connection once.
            self._alive.clear()
        return self._multicast.fileno()

    def hear(self) -> None:
        """Takes in what the driver told of dead links. Never waits."""
        if self.multicast_fd() is None or self._multicast is None:
            return
        while True:
            try:
                datagram = self._multicast.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise DeviceError(f"the NBD driver's multicast failed: {error}") from error
                self._alive.clear()  # something was lost: look at every connection again
                continue
            for index in nbd_netlink.dead_links(datagram):
                self._dead.add(index)
                self._alive.pop(index, None)

    def _ready(self) -> Family:
        if self.multicast_fd() is None or self._family is None:
            # The kernel loads the module by itself when it is asked for the family.
            raise DeviceError(
                "the kernel has no NBD driver",
                hint="`modprobe nbd` says why; it comes with the distribution's kernel",
            )
        return self._family

    async def _probe(self, index: int) -> None:
        """Reads one block. A dead link answers EIO within the dead-connection timeout."""
        name = _backend(index)
        what = f"read from nbd{index}"
        try:
            act = partial(direct.read, f"/dev/nbd{index}", 0, direct.BLOCK_BYTES)
            await self._calls.call(act, PROBE_TIMEOUT_S, what, lane=what)
        except NotFoundError:
            return
        except DeviceError:
            self._dead.add(index)
        else:
            if name is not None and _backend(index) == name:
                self._alive[index] = name


@dataclass(frozen=True)
class _To:
    """Where a connection goes, and how."""

    endpoint: Endpoint
    export_name: str
    encryption: Encryption
    server: NodeId
    source_address: str
    tls_dir: Path


def _connect(family: Family, path: PathName, to: _To) -> int:
    """The index of its device."""
    connection, negotiated = _handshake(to)
    with connection:
        return _hand_over(family, connection, negotiated, path)


def _disconnect(family: Family, index: int) -> None:
    try:
        nbd_netlink.disconnect(family, index)
    except OSError as error:
        if error.errno != errno.EINVAL:  # nothing is connected there any more
            raise


def _handshake(to: _To) -> tuple[socket.socket, Negotiated]:
    start_tls: Callable[[socket.socket], ssl.SSLSocket] | None = None
    if to.encryption is Encryption.TLS:
        context = nbd_tls.client_context(to.tls_dir)
        start_tls = lambda plain: nbd_tls.start(context, plain, to.server)  # noqa: E731
    connection = _dial(to.endpoint, to.source_address)
    try:
        connection, negotiated = negotiate(connection, to.export_name, start_tls)
        if isinstance(connection, ssl.SSLSocket):
            nbd_tls.require_kernel_tls(connection)
    except BaseException:
        connection.close()
        raise
    return connection, negotiated


def _dial(endpoint: Endpoint, source_address: str) -> socket.socket:
    where = (endpoint.address, endpoint.port)
    source = (source_address, 0) if source_address else None
    try:
        connection = socket.create_connection(where, STEP_TIMEOUT_S, source)
    except OSError as error:  # TimeoutError is one
        raise UnreachableError(
            f"no connection from {source_address or 'here'} to {where[0]}:{where[1]}: {error}"
        ) from error
    for level, option, value in _KEEPALIVE:
        connection.setsockopt(level, option, value)
    return connection


def _hand_over(
    family: Family, connection: socket.socket, negotiated: Negotiated, path: PathName
) -> int:
    connection.settimeout(None)
    block = min(max(negotiated.minimum_block_bytes, _SECTOR_MIN_BYTES), _SECTOR_MAX_BYTES)
    return nbd_netlink.connect(
        family,
        nbd_netlink.Connection(
            socket_fd=connection.fileno(),
            size_bytes=negotiated.size_bytes,
            block_bytes=block,
            server_flags=negotiated.flags,
            timeout_s=IO_TIMEOUT_S,
            dead_timeout_s=DEAD_TIMEOUT_S,
            backend_identifier=path.backend_identifier(),
        ),
    )


def _connected() -> tuple[tuple[int, str], ...]:
    """(index, backend identifier) of connected devices that are ours."""
    found = []
    for name in sysfs.names(sysfs.BLOCK):
        if name.startswith("nbd") and name[3:].isdigit():
            backend = _backend(int(name[3:]))
            if backend is not None and PathName.parse(backend) is not None:
                found.append((int(name[3:]), backend))
    return tuple(found)


def _backend(index: int) -> str | None:
    return sysfs.attribute(sysfs.BLOCK / f"nbd{index}" / "backend") or None


def _held(index: int) -> bool:
    return bool(sysfs.names(sysfs.BLOCK / f"nbd{index}" / "holders"))


def _speaking(what: str, act: Callable[[], T]) -> T:
    try:
        return act()
    except OSError as error:
        raise DeviceError(f"NBD: {what}: {error.strerror or error}") from error
