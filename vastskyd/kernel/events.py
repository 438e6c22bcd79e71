"""What the kernel tells of by itself: one object to wait on.

device-mapper events (a path failed), dead NBD links, md's attributes, block devices coming and
going. None of them says what to do: the one who waits looks at everything again.
"""

import asyncio
import os
import select
from collections.abc import Callable
from functools import partial

from vastskyd.kernel import dm_ioctl, md_sysfs, sysfs
from vastskyd.kernel.nbd import LinuxNbd
from vastskyd.kernel.uevents import Uevents

# Not array_state: it turns from clean to active and back with every pause in the writes.
_MD_ATTRIBUTES = ("degraded", "sync_action")


class KernelEvents:
    """Opens what it watches at the first `wait`."""

    def __init__(self, nbd: LinuxNbd) -> None:
        self._nbd = nbd
        self._changed = asyncio.Event()
        self._epoll: select.epoll | None = None
        self._takers: dict[int, Callable[[], bool]] = {}
        self._uevents: Uevents | None = None
        self._control: int | None = None
        self._md: dict[str, int] = {}
        self._nbd_fd: int | None = None

    async def wait(self, timeout_s: float) -> bool:
        """True when something was told since the last return; False after `timeout_s`."""
        self._open()
        self._watch_nbd()
        self._watch_md()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def close(self) -> None:
        if self._epoll is None:
            return
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        for path in list(self._md):
            self._unwatch_md(path)
        if self._uevents is not None:
            self._uevents.close()
        if self._control is not None:
            os.close(self._control)
        self._epoll.close()
        self._epoll = None

    def _open(self) -> None:
        if self._epoll is not None:
            return
        # sysfs attributes are always "readable": only EPOLLPRI means a change, which asyncio's
        # selector does not ask for. So all go into an epoll of our own, and that into asyncio's.
        self._epoll = select.epoll()
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._take)
        self._uevents = Uevents()
        self._watch(self._uevents.fileno(), select.EPOLLIN, self._uevents.take)
        if os.path.exists(dm_ioctl.CONTROL):
            self._control = dm_ioctl.open_events()
            self._watch(self._control, select.EPOLLIN, self._take_dm)

    def _watch(self, fd: int, mask: int, taker: Callable[[], bool]) -> None:
        assert self._epoll is not None  # noqa: S101  # _open came first
        self._epoll.register(fd, mask)
        self._takers[fd] = taker

    def _watch_nbd(self) -> None:
        fd = self._nbd.multicast_fd()
        if fd is not None and fd != self._nbd_fd:
            self._nbd_fd = fd
            self._watch(fd, select.EPOLLIN, self._take_nbd)

    def _watch_md(self) -> None:
        wanted = {
            str(md_sysfs.directory(name) / attribute)
            for name in sysfs.names(sysfs.BLOCK)
            if name.startswith("md")
            for attribute in _MD_ATTRIBUTES
        }
        for path in self._md.keys() - wanted:
            self._unwatch_md(path)
        for path in wanted - self._md.keys():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # it was stopped just now, or has not started
            self._md[path] = fd
            _reread(fd)
            self._watch(fd, select.EPOLLPRI, partial(_reread, fd))

    def _unwatch_md(self, path: str) -> None:
        fd = self._md.pop(path)
        del self._takers[fd]
        os.close(fd)  # which also takes it out of the epoll

    def _take(self) -> None:
        assert self._epoll is not None  # noqa: S101  # _open came first
        for fd, _mask in self._epoll.poll(0):
            taker = self._takers.get(fd)
            if taker is not None and taker():
                self._changed.set()

    def _take_dm(self) -> bool:
        assert self._control is not None  # noqa: S101
        dm_ioctl.arm(self._control)
        return True

    def _take_nbd(self) -> bool:
        self._nbd.hear()
        return True


def _reread(fd: int) -> bool:
    """A sysfs attribute's change is acknowledged by reading it from the start."""
    try:
        os.pread(fd, 4096, 0)
    except OSError:
        return True  # its array was stopped
    return True
