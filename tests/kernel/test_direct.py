"""Direct writes: of two for the same bytes the one that was begun later is there in the end, though
the program that began the earlier one was killed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from vastskyd.core.ondisk_layout import SLOT_BYTES, SLOT_OFFSETS_BYTES
from vastskyd.kernel import direct
from vastskyd.kernel.direct import BLOCK_BYTES
from vastskyd.kernel.disks import LinuxDisks

LIMIT_S = 10.0
# Its claim is held by a descriptor of a child's, as by a thread that sleeps in the kernel.
WRITER = """
import os, sys
from vastskyd.kernel import direct
with direct.opened(sys.argv[1], os.O_RDWR) as fd:
    direct.alone_with(fd, int(sys.argv[2]), int(sys.argv[3]))
    if (child := os.fork()) == 0:
        sys.stdin.readline()
        os.pwrite(fd, b"an earlier write", int(sys.argv[2]))
        os.fsync(fd)
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
"""


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 16 * BLOCK_BYTES)
    return str(path)


def waiting_locks(path: str) -> int:
    """How many wait for a lock of this file's."""
    inode = f":{os.stat(path).st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and inode in line for line in lines)


def zero_file(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """BLKZEROOUT is for block devices."""
    os.pwrite(fd, bytes(length_bytes), offset_bytes)


AT = 4 * BLOCK_BYTES
ACTS: dict[str, tuple[Callable[[str], object], bytes]] = {
    "write": (lambda path: direct.write(path, AT, b"a later write"), b"a later write"),
    "zero": (lambda path: direct.zero(path, AT, BLOCK_BYTES), b""),
    "read": (lambda path: direct.read(path, AT, BLOCK_BYTES, settled=True), b"an earlier write"),
}


@pytest.mark.parametrize("kind", ACTS)
def test_an_earlier_write_is_waited_for(
    device: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(direct, "zero_open", zero_file)
    act, wanted = ACTS[kind]
    answers: list[object] = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, device, str(AT), str(BLOCK_BYTES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline()
        writer.kill()
        later = threading.Thread(target=lambda: answers.append(act(device)))
        later.start()
        end = time.monotonic() + LIMIT_S
        while not waiting_locks(device):
            assert later.is_alive(), "it did not wait"
            assert time.monotonic() < end
            time.sleep(0.01)
        writer.stdin.write("now\n")
        writer.stdin.flush()
        later.join(LIMIT_S)
        assert not later.is_alive()
    there = direct.read(device, AT, BLOCK_BYTES)
    if kind == "read":
        assert answers == [there]
    assert there.rstrip(b"x\0") == wanted
    assert kind == "read" or len(there.rstrip(b"\0")) == len(wanted), "the rest is zeros"


def test_writes_of_other_bytes_are_not(device: str) -> None:
    with direct.opened(device, os.O_RDWR) as fd:
        direct.alone_with(fd, 4 * BLOCK_BYTES, BLOCK_BYTES)
        for block in (3, 5):
            direct.write(device, block * BLOCK_BYTES, b"other")
            assert direct.read(device, block * BLOCK_BYTES, BLOCK_BYTES)[:5] == b"other"


async def test_slots_are_read_when_they_are_settled(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def read(path: str, offset: int, length: int, *, settled: bool = False) -> bytes:
        assert (path, length) == (device, SLOT_BYTES)
        asked.append(settled)
        return b""

    monkeypatch.setattr(direct, "read", read)
    await LinuxDisks(CallsHere()).read_slots(device)
    assert asked == [True] * len(SLOT_OFFSETS_BYTES)
