"""What is asked of smartctl, and that any of its exit statuses is an answer."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from vastskyd.core.model import SmartHealth
from vastskyd.kernel import process
from vastskyd.kernel.process import Outcome
from vastskyd.kernel.smart import TIMEOUT_S, LinuxSmart

OUTPUTS = Path(__file__).parents[1] / "core/smart"
DISK = "/dev/disk/by-id/wwn-1"


@pytest.mark.parametrize(
    ("name", "status", "health"),
    [
        ("sata-hdd-wd-red", 0, SmartHealth.PASSED),
        ("sata-hdd-growing", 64, SmartHealth.PASSED),
        ("sata-hdd-failing", 88, SmartHealth.FAILING),
        ("sata-standby", 2, None),
        ("captured/virtio-blk", 1, SmartHealth.UNKNOWN),
    ],
)
async def test_a_disk_is_asked(
    monkeypatch: pytest.MonkeyPatch, name: str, status: int, health: SmartHealth | None
) -> None:
    async def answer(argv: Sequence[str], timeout_s: float, *, ok: Sequence[int] = (0,)) -> Outcome:
        assert argv[0] == "smartctl"
        assert argv[-1] == DISK
        assert "--nocheck=standby" in argv
        assert timeout_s == TIMEOUT_S
        assert status in ok
        said = (OUTPUTS / f"{name}.json").read_text()
        assert list(argv[:-1]) == json.loads(said)["smartctl"]["argv"][:-1], "else it lacks some"
        return Outcome(tuple(argv), status, said, "")

    monkeypatch.setattr(process, "run", answer)
    reading = await LinuxSmart().read(DISK)
    assert (None if reading is None else reading.health) == health


async def test_one_that_is_to_wake_is_asked_even_if_it_sleeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def answer(argv: Sequence[str], timeout_s: float, *, ok: Sequence[int] = (0,)) -> Outcome:
        assert "--nocheck=never" in argv
        assert "--nocheck=standby" not in argv
        return Outcome(tuple(argv), 0, (OUTPUTS / "sata-hdd-wd-red.json").read_text(), "")

    monkeypatch.setattr(process, "run", answer)
    assert await LinuxSmart().read(DISK, wake=True) is not None
