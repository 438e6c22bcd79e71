"""What is known of connections by the index of their device, which the kernel gives again."""

from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from vastskyd.core.ids import ExtentId
from vastskyd.core.names import PathName
from vastskyd.kernel import direct, nbd
from vastskyd.kernel.nbd import LinuxNbd

FIRST = PathName(ExtentId("00000000000000e1"), 1, 0)
NEXT = PathName(ExtentId("00000000000000e1"), 2, 0)


async def test_a_new_connection_is_not_dead_by_the_index_of_one_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there: list[tuple[int, str]] = [(2, FIRST.backend_identifier())]
    monkeypatch.setattr(nbd, "_connected", lambda: tuple(there))
    monkeypatch.setattr(nbd, "_backend", lambda index: dict(there).get(index))
    monkeypatch.setattr(direct, "read", lambda *_: b"")
    monkeypatch.setattr(LinuxNbd, "hear", lambda self: None)
    monkeypatch.setattr(LinuxNbd, "_ready", lambda self: None)

    def lets_go(family: object, index: int) -> None:
        there.clear()

    monkeypatch.setattr(nbd, "_disconnect", lets_go)
    door = LinuxNbd(CallsHere(), tmp_path)
    await door.disconnect("/dev/nbd2")
    assert await door.devices() == ()
    there.append((2, NEXT.backend_identifier()))  # by a call that has not returned yet
    (shown,) = await door.devices()
    assert (shown.path, shown.alive) == (NEXT, True)


async def test_one_that_was_let_go_of_and_is_still_open_is_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = ((2, FIRST.backend_identifier()),)
    monkeypatch.setattr(nbd, "_connected", lambda: there)
    monkeypatch.setattr(nbd, "_backend", lambda index: dict(there).get(index))
    monkeypatch.setattr(nbd, "_held", lambda index: True)
    monkeypatch.setattr(LinuxNbd, "hear", lambda self: None)
    monkeypatch.setattr(LinuxNbd, "_ready", lambda self: None)
    monkeypatch.setattr(nbd, "_disconnect", lambda family, index: None)
    door = LinuxNbd(CallsHere(), tmp_path)
    await door.disconnect("/dev/nbd2")
    for _ in range(2):
        (shown,) = await door.devices()
        assert not shown.alive
