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


def read(device: str, offset_bytes: int, length_bytes: int) -> bytes:
    """Exactly `length_bytes`; both numbers are multiples of BLOCK_BYTES. What lies past the end
    of the device reads as absent: the answer is shorter."""
    with opened(device, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, length_bytes) as buffer:
        done = 0
        while done < length_bytes:
            with memoryview(buffer) as whole, whole[done:] as rest:
                count = os.preadv(fd, [rest], offset_bytes + done)
            if count == 0:
                break
            done += count
        return buffer[:done]


def write(device: str, offset_bytes: int, content: bytes) -> None:
    """Durable when it returns; content is padded with zeros to whole blocks."""
    length = -(-len(content) // BLOCK_BYTES) * BLOCK_BYTES
    flags = os.O_WRONLY | os.O_DIRECT | os.O_DSYNC
    with opened(device, flags) as fd, mmap.mmap(-1, length) as buffer:
        buffer[: len(content)] = content
        done = 0
        while done < length:
            with memoryview(buffer) as whole, whole[done:] as rest:
                done += os.pwritev(fd, [rest], offset_bytes + done)
        os.fsync(fd)


def zero(device: str, offset_bytes: int, length_bytes: int) -> None:
    """The range reads as zeros, durably: written, or by a command of the device that promises
    it. (BLKDISCARD promises nothing.)"""
    with opened(device, os.O_RDWR) as fd:
        zero_open(fd, offset_bytes, length_bytes)
        os.fsync(fd)


def zero_open(fd: int, offset_bytes: int, length_bytes: int) -> None:
    fcntl.ioctl(fd, _BLKZEROOUT, _RANGE.pack(offset_bytes, length_bytes))
