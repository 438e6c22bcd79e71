"""Direct I/O on block devices: past the page cache, which may show what is no longer there.

These calls may sleep in the kernel: make them by way of `calls.py`.
"""

import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from vastskyd.core.errors import DeviceError, NotFoundError

BLOCK_BYTES = 4096
_BLKZEROOUT = 0x127F
_RANGE = struct.Struct("=QQ")
# struct flock of fcntl(2): type, whence, start, length, and 0 for a process.
_FLOCK = struct.Struct("@hhqqi4x")
# Where locks of bytes stand for those bytes, and no other program's do: QEMU locks bytes 100 to 263
# of whatever it serves.
_LOCKS_FROM = 1 << 62


@contextmanager
def opened(device: str, flags: int) -> Iterator[int]:
    """NotFoundError: no such device. DeviceError: it cannot be opened, or I/O on it fails."""
    try:
        fd = os.open(device, flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise NotFoundError(f"there is no device {device}") from error
        raise DeviceError(f"{device} cannot be opened: {error.strerror}") from error
    try:
        yield fd
    except OSError as error:
        raise DeviceError(f"I/O on {device} failed: {error.strerror}") from error
    finally:
        os.close(fd)


def read(device: str, offset_bytes: int, length_bytes: int, *, settled: bool = False) -> bytes:
    """Exactly `length_bytes`; both numbers are multiples of BLOCK_BYTES. What lies past the end
    of the device reads as absent: the answer is shorter. `settled`: no call of `write` or `zero`
    that was begun before is still to change it."""
    with opened(device, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, length_bytes) as buffer:
        if settled:
            _lock(fd, fcntl.F_RDLCK, offset_bytes, length_bytes)
        done = 0
        while done < length_bytes:
            with memoryview(buffer) as whole, whole[done:] as rest:
                count = os.preadv(fd, [rest], offset_bytes + done)
            if count == 0:
                break
            done += count
        return buffer[:done]


def write(device: str, offset_bytes: int, content: bytes) -> None:
    """Durable when it returns; content is padded with zeros to whole blocks. It comes after every
    earlier call of `write` and `zero` for any of these bytes, whoever made it: see `alone_with`."""
    length = -(-len(content) // BLOCK_BYTES) * BLOCK_BYTES
    flags = os.O_WRONLY | os.O_DIRECT | os.O_DSYNC
    with opened(device, flags) as fd, mmap.mmap(-1, length) as buffer:
        alone_with(fd, offset_bytes, length)
        buffer[: len(content)] = content
        done = 0
        while done < length:
            with memoryview(buffer) as whole, whole[done:] as rest:
                done += os.pwritev(fd, [rest], offset_bytes + done)
        os.fsync(fd)


def zero(device: str, offset_bytes: int, length_bytes: int) -> None:
    """The range reads as zeros, durably: written, or by a command of the device that promises
    it. (BLKDISCARD promises nothing.) Ordered as `write` is."""
    with opened(device, os.O_RDWR) as fd:
        alone_with(fd, offset_bytes, length_bytes)
        zero_open(fd, offset_bytes, length_bytes)
        os.fsync(fd)


def alone_with(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """Until it is closed nobody else writes these bytes by way of this module. Waits for as long as
    somebody does: a write that was begun is not undone when its program is killed, and may reach
    the disk later than one that was begun after it. A killed program's descriptors, and so its
    locks, go when all its calls have returned (do_exit in kernel/exit.c; fcntl_locking(2))."""
    _lock(fd, fcntl.F_WRLCK, offset_bytes, length_bytes)


def _lock(fd: int, kind: int, offset_bytes: int, length_bytes: int) -> None:
    lock = _FLOCK.pack(kind, os.SEEK_SET, _LOCKS_FROM + offset_bytes, length_bytes, 0)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, lock)


def zero_open(fd: int, offset_bytes: int, length_bytes: int) -> None:
    fcntl.ioctl(fd, _BLKZEROOUT, _RANGE.pack(offset_bytes, length_bytes))
