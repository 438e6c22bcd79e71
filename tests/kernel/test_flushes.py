"""What is called durable was flushed: a disk's write cache forgets the rest with the power."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from tests.kernel.loops import flushes, loop_device
from vastskyd.core.errors import ConflictError
from vastskyd.core.ondisk_layout import SLOT_MAGIC
from vastskyd.core.units import MIB
from vastskyd.kernel import direct, disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_device(tmp_path, 96 * MIB) as device:
        yield device


def test_a_description_is_flushed(disk: str) -> None:
    before = flushes(disk)
    direct.write(disk, MIB, SLOT_MAGIC)
    assert flushes(disk) > before
    assert direct.read(disk, MIB, 4096).startswith(SLOT_MAGIC)


def test_zeros_are_flushed(disk: str) -> None:
    direct.write(disk, 2 * MIB, b"x" * 4096)
    before = flushes(disk)
    direct.zero(disk, 2 * MIB, MIB)
    assert flushes(disk) > before
    assert direct.read(disk, 2 * MIB, 4096) == bytes(4096)


def test_erased_signatures_are_flushed(disk: str) -> None:
    direct.write(disk, MIB, SLOT_MAGIC)
    before = flushes(disk)
    disks._zero_ends(disk)
    assert flushes(disk) > before
    assert direct.read(disk, MIB, 4096) == bytes(4096)


async def test_what_stands_on_a_disk_is_found_and_erased_when_told(disk: str) -> None:
    direct.write(disk, 0, swap_space())
    assert await found_on(disk) == "swap space"
    await disks.LinuxDisks(CallsHere()).erase_signatures(disk)
    assert await found_on(disk) == ""


async def found_on(disk: str) -> str:
    listed = await disks.LinuxDisks(CallsHere()).list()
    (device,) = [each for each in listed if disk in (each.path, *each.aliases)]
    return device.found


def swap_space() -> bytes:
    """The header of mkswap: version 1, 100 pages."""
    header = bytearray(4096)
    header[1024:1032] = (1).to_bytes(4, "little") + (100).to_bytes(4, "little")
    header[-10:] = b"SWAPSPACE2"
    return bytes(header)


async def test_a_disk_that_somebody_has_for_himself_is_not_erased(disk: str) -> None:
    direct.write(disk, 0, swap_space())
    fd = os.open(disk, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(ConflictError, match="in use"):
            await disks.LinuxDisks(CallsHere()).erase_signatures(disk)
        assert direct.read(disk, 0, 4096) == swap_space()
    finally:
        os.close(fd)
