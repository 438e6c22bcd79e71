"""What looks at all disks from time to time lets those sleep that nobody uses: a real block device
that counts how often it is read."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from tests.kernel.loops import loop_device
from vastskyd.core.errors import DeviceError
from vastskyd.core.ondisk_layout import SLOT_MAGIC
from vastskyd.core.units import MIB
from vastskyd.kernel import direct, sysfs, writings
from vastskyd.kernel.disks import LinuxDisks

SIZE = 96 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_device(tmp_path, SIZE) as device:
        yield device


def reads(disk: str) -> int:
    return int(Path("/sys/block", Path(disk).name, "stat").read_text().split()[0])


def make_swap(path: str) -> None:
    subprocess.run(["mkswap", path], check=True, capture_output=True)


async def found_on(disks: LinuxDisks, disk: str, *, anew: bool = False) -> str:
    (found,) = [each for each in await disks.list(anew=anew) if each.path == disk]
    return found.found


async def test_what_nobody_has_written_to_is_not_read_again(disk: str) -> None:
    disks = LinuxDisks(CallsHere())
    assert await found_on(disks, disk) == ""
    before = reads(disk)
    for _ in range(3):
        assert await found_on(disks, disk) == ""
    assert reads(disk) == before
    assert await found_on(disks, disk, anew=True) == ""
    assert reads(disk) > before


async def test_what_was_written_is_found(disk: str) -> None:
    disks = LinuxDisks(CallsHere())
    assert await found_on(disks, disk) == ""
    make_swap(disk)
    assert await found_on(disks, disk) == "swap space"
    await disks.erase_signatures(disk)
    assert await found_on(disks, disk) == ""
    await disks.write_slot(disk, 0, SLOT_MAGIC)
    assert await found_on(disks, disk) == "vastsky member"


async def test_what_was_written_to_the_file_below_is_found(disk: str, tmp_path: Path) -> None:
    disks = LinuxDisks(CallsHere())
    assert await found_on(disks, disk) == ""
    make_swap(str(tmp_path / "disk"))
    assert await found_on(disks, disk) == "swap space"


async def test_where_udev_has_heard_of_it_it_is_looked_at(
    disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writings, "_UDEV", tmp_path)
    told = tmp_path / f"b{sysfs.device_number(disk)}"
    told.touch()
    disks = LinuxDisks(CallsHere())
    assert await found_on(disks, disk) == ""
    before = reads(disk)
    os.utime(told, ns=(1, 1))
    assert await found_on(disks, disk) == ""
    assert reads(disk) > before


async def test_one_that_could_not_be_read_is_tried_again(
    disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> bytes:
        raise DeviceError("as if")

    disks = LinuxDisks(CallsHere())
    with monkeypatch.context() as patch:
        direct.read(disk, 0, direct.BLOCK_BYTES)
        patch.setattr(direct, "read", fails)
        assert await found_on(disks, disk) == "unreadable: as if"
    assert await found_on(disks, disk) == ""
