"""Loop devices: real block devices with a write cache, which count what is flushed."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FLUSHES = 15  # Documentation/block/stat.rst


@contextmanager
def loop_device(directory: Path, size_bytes: int) -> Iterator[str]:
    if os.geteuid() != 0 or not os.access("/dev/loop-control", os.W_OK):
        pytest.skip("needs root and loop devices")
    image = directory / "disk"
    image.touch()
    os.truncate(image, size_bytes)
    made = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    device = made.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def flushes(device: str) -> int:
    """How many flushes the device has completed; 0 for ever if it has no write cache."""
    counters = Path("/sys/block", Path(device).name, "stat").read_text().split()
    return int(counters[_FLUSHES])
