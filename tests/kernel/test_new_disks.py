"""What speaks against taking a disk without being asked, on a real block device."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from tests.kernel.loops import loop_device
from vastskyd.core.ondisk_layout import AREA_START_BYTES
from vastskyd.core.units import MIB
from vastskyd.kernel import disk_links
from vastskyd.kernel.disks import LinuxDisks
from vastskyd.ports import BlockDevice

SIZE = 96 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_device(tmp_path, SIZE) as device:
        yield device


def put(disk: str, offset_bytes: int) -> None:
    with open(disk, "r+b") as file:
        file.seek(offset_bytes)
        file.write(b"x")


@contextmanager
def opened(disk: str, flags: str) -> Iterator[None]:
    """By another program."""
    code = f"import os; os.open({disk!r}, {flags}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        yield
        program.communicate("\n", timeout=30)


async def listed(disk: str) -> BlockDevice:
    (found,) = [each for each in await LinuxDisks(CallsHere()).list() if each.path == disk]
    return found


async def test_one_that_reads_as_zeros_is_new(disk: str) -> None:
    put(disk, AREA_START_BYTES)
    put(disk, SIZE - MIB - 1)
    assert await LinuxDisks(CallsHere()).remnants(disk) == ""
    found = await listed(disk)
    assert (found.found, found.partition) == ("", False)


@pytest.mark.parametrize("at", [0, 1024, AREA_START_BYTES - 1, SIZE - MIB, SIZE - 1])
async def test_a_single_byte_at_either_end_is_enough(disk: str, at: int) -> None:
    put(disk, at)
    assert "do not read as zeros" in await LinuxDisks(CallsHere()).remnants(disk)


@pytest.mark.parametrize("flags", ["os.O_RDONLY", "os.O_RDWR | os.O_EXCL"])
async def test_one_that_somebody_has_open_is_not(disk: str, flags: str) -> None:
    with opened(disk, flags):
        assert "opened by python" in await LinuxDisks(CallsHere()).remnants(disk)
    assert await LinuxDisks(CallsHere()).remnants(disk) == ""


async def test_a_path_of_multipathd_is_in_use(disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By udev's word, which this host may not have."""
    assert (await listed(disk)).found == ""
    monkeypatch.setattr(disk_links, "known", lambda _: disk_links.Known(multipath=True))
    assert (await listed(disk)).found == "in use: a path of multipathd"
