"""Who counts as a device's user."""

from types import SimpleNamespace

import pytest

from tests.kernel.calls_here import CallsHere
from vastskyd.kernel import dm_ioctl, users
from vastskyd.kernel.dm import LinuxDeviceMapper

UDEV = ("opened by (udev-worker) (pid 7)", "opened by systemd-udevd (pid 8)")


async def test_udev_looks_for_a_moment_and_is_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does whenever a program that wrote has closed the device: a detach comes just then."""
    found: tuple[str, ...] = UDEV
    monkeypatch.setattr(dm_ioctl, "call", lambda command, name: SimpleNamespace(minor=5))
    monkeypatch.setattr(users, "of_device", lambda name: found)
    dm = LinuxDeviceMapper(CallsHere())
    assert await dm.holders("vastsky-data") == ()
    found = (UDEV[0], "opened by fio (pid 812)", UDEV[1])
    assert await dm.holders("vastsky-data") == ("opened by fio (pid 812)",)
