"""An enrolled disk of which somebody has made something else: nothing of his is overwritten."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from tests.kernel.loops import loop_device
from tests.kernel.test_new_disks import opened
from vastskyd.core.errors import ConflictError
from vastskyd.core.ondisk_layout import AREA_START_BYTES, SLOT_MAGIC
from vastskyd.core.units import MIB
from vastskyd.kernel import users
from vastskyd.kernel.disks import LinuxDisks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_device(tmp_path, 96 * MIB) as device:
        yield device


@contextlib.contextmanager
def swap_on(disk: str) -> Iterator[None]:
    subprocess.run(["mkswap", disk], check=True, capture_output=True)
    if subprocess.run(["swapon", disk], check=False, capture_output=True).returncode:
        pytest.skip("needs to be allowed to swap")
    try:
        yield
    finally:
        subprocess.run(["swapoff", disk], check=True)


async def test_what_is_swapped_to_is_left_alone(disk: str) -> None:
    disks = LinuxDisks(CallsHere())
    await disks.write_slot(disk, 0, SLOT_MAGIC)
    with swap_on(disk):
        with pytest.raises(ConflictError, match="used as swap"):
            await disks.write_slot(disk, 0, SLOT_MAGIC)
        with pytest.raises(ConflictError, match="used as swap"):
            await disks.wipe(disk, AREA_START_BYTES, MIB)
    await disks.wipe(disk, AREA_START_BYTES, MIB)


@pytest.mark.parametrize("use", ["mounted on /mnt", "used as swap", "held by md0"])
async def test_what_is_used_is_left_alone(
    disk: str, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = LinuxDisks(CallsHere())
    monkeypatch.setattr(users, "of_whole", lambda _: (use,))
    for act in (disks.write_slot(disk, 0, SLOT_MAGIC), disks.wipe(disk, AREA_START_BYTES, MIB)):
        with pytest.raises(ConflictError, match=use):
            await act


async def test_what_only_the_kernel_knows_of_is_left_alone(disk: str) -> None:
    disks = LinuxDisks(CallsHere())
    with opened(disk, "os.O_RDWR | os.O_EXCL"), pytest.raises(ConflictError, match="in use"):
        await disks.write_slot(disk, 0, SLOT_MAGIC)
    await disks.write_slot(disk, 0, SLOT_MAGIC)


async def test_beside_extents_of_ours_it_is_written(
    disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have it for themselves."""
    disks = LinuxDisks(CallsHere())
    ours = ("held by dm-3 (vastsky-extent-0000000000000001)",)
    monkeypatch.setattr(users, "of_itself", lambda _: ours)
    with opened(disk, "os.O_RDWR | os.O_EXCL"):
        await disks.write_slot(disk, 0, SLOT_MAGIC)
        await disks.wipe(disk, AREA_START_BYTES, MIB)
