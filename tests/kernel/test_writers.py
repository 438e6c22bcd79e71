"""Programs that write to a device are found in /proc and ended; those that only read are not."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.loops import loop_device
from vastskyd.core.units import MIB
from vastskyd.kernel import writers

_WRITE = "fd = os.open(path, os.O_WRONLY)"
_READ = "fd = os.open(path, os.O_RDONLY)"
# Mapped, and every descriptor of it closed again.
_MAP = "kept = mmap.mmap(os.open(path, os.O_RDWR), 4096); os.closerange(3, 256)"


@contextmanager
def program(path: Path, does: str) -> Iterator["subprocess.Popen[str]"]:
    code = f"import mmap, os; path = {str(path)!r}; {does}; print(1, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def device_under(path: Path) -> frozenset[str]:
    """As the kernel numbers it: of the mount, and of the file's own file system."""
    fd = os.open(path, os.O_RDONLY)
    try:
        mount_id = _field(Path(f"/proc/self/fdinfo/{fd}").read_text(), "mnt_id:")
    finally:
        os.close(fd)
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    (number,) = [fields[2] for fields in mounts if fields[0] == mount_id]
    device = path.stat().st_dev
    return frozenset({number, f"{os.major(device)}:{os.minor(device)}"})


def _field(text: str, name: str) -> str:
    return next(line.split()[1] for line in text.splitlines() if line.startswith(name))


def is_found(pid: int, numbers: frozenset[str]) -> bool:
    return writers.writes(pid, writers.Mounts(numbers), numbers)


@pytest.mark.parametrize(("does", "writes"), [(_WRITE, True), (_MAP, True), (_READ, False)])
def test_a_file_on_the_device(tmp_path: Path, does: str, writes: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with program(path, does) as child:
        assert is_found(child.pid, device_under(path)) == writes
        assert not is_found(child.pid, frozenset({"4095:1"}))


def _until(so: Callable[[], bool]) -> None:
    for _ in range(100):
        if so():
            return
        time.sleep(0.05)


@pytest.mark.parametrize(("does", "ended"), [(_WRITE, True), (_MAP, True), (_READ, False)])
def test_who_has_the_device_itself(tmp_path: Path, does: str, ended: bool) -> None:
    with loop_device(tmp_path, MIB) as device, program(Path(device), does) as child:
        said = writers.end_writers(Path(device).name)
        assert [f"(pid {child.pid})" in each for each in said] == ([True] if ended else [])
        if ended:
            _until(lambda: child.poll() is not None)
            assert child.poll() == -signal.SIGKILL
        else:
            assert child.poll() is None
