"""What mdadm is told. What it then does is the contract's, in a guest."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from vastskyd.kernel import md_sysfs, process, sysfs
from vastskyd.kernel.md import SAFE_MODE_DELAY_S, LinuxMd
from vastskyd.kernel.process import Outcome
from vastskyd.ports import MdArray

UUID = "0123456789abcdef" * 2
LEGS = ("/dev/dm-1", "/dev/dm-2")


class Mdadm:
    """Notes what it is told. `refuses`: a word of the commands that fail."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.erased: list[str] = []
        self.refuses = ""

    async def run(
        self, argv: Sequence[str], timeout_s: float, *, ok: Sequence[int] = (0,)
    ) -> Outcome:
        self.told.append(list(argv))
        refused = bool(self.refuses) and self.refuses in argv
        return Outcome(tuple(argv), 1 if refused else 0, "", "")


@pytest.fixture
def mdadm(monkeypatch: pytest.MonkeyPatch) -> Mdadm:
    made = Mdadm()

    async def no_arrays(_: LinuxMd) -> tuple[MdArray, ...]:
        return ()

    async def no_member(_self: LinuxMd, _array: str, _member: str) -> None:
        return None

    async def erase(_: LinuxMd, leg: str) -> None:
        made.erased.append(leg)

    monkeypatch.setattr(process, "run", made.run)
    monkeypatch.setattr(sysfs, "kernel_name", lambda device: Path(device).name)
    monkeypatch.setattr(LinuxMd, "arrays", no_arrays)
    monkeypatch.setattr(LinuxMd, "_member", no_member)
    monkeypatch.setattr(LinuxMd, "_erase_superblock", erase)
    return made


async def test_a_new_array_has_a_bitmap_and_nobody_writes_to_it_yet(mdadm: Mdadm) -> None:
    await LinuxMd(CallsHere()).create(UUID, "v-0", LEGS, 3, 16 << 20)
    (command,) = mdadm.told
    assert "--bitmap=internal" in command, "without it a leg's return is a full copy"
    assert "--readonly" in command
    assert "--config=none" in command, "no line of the host's own configuration has a say"
    assert command[-3:] == [*LEGS, "missing"]


async def test_an_array_is_assembled_from_vetted_legs_and_never_by_force(mdadm: Mdadm) -> None:
    """By force mdadm takes a stale leg for good."""
    await LinuxMd(CallsHere()).assemble(UUID, "v-0", LEGS)
    (command,) = mdadm.told
    assert not {"--force", "-f", "--scan", "--update=resync"} & set(command)
    assert "--readonly" in command
    assert "--config=none" in command
    assert command[-2:] == list(LEGS)


async def test_a_returning_leg_is_added_by_its_bitmap(mdadm: Mdadm) -> None:
    await LinuxMd(CallsHere()).add("/dev/md9", LEGS[1], fresh=False)
    assert mdadm.told == [["mdadm", "--manage", "/dev/md9", "--re-add", LEGS[1]]]
    assert mdadm.erased == []


async def test_a_leg_that_md_no_longer_knows_is_filled_whole(mdadm: Mdadm) -> None:
    mdadm.refuses = "--re-add"
    await LinuxMd(CallsHere()).add("/dev/md9", LEGS[1], fresh=False)
    assert mdadm.erased == [LEGS[1]]
    assert mdadm.told[-1] == ["mdadm", "--manage", "/dev/md9", "--add", LEGS[1]]


async def test_a_new_leg_is_never_added_by_a_bitmap(mdadm: Mdadm) -> None:
    """mdadm --add does so by itself where it finds a superblock of the array."""
    await LinuxMd(CallsHere()).add("/dev/md9", LEGS[1], fresh=True)
    assert mdadm.erased == [LEGS[1]]
    assert mdadm.told == [["mdadm", "--manage", "/dev/md9", "--add", LEGS[1]]]


async def test_an_array_is_writable_once_its_pending_resync_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a reader may see legs that differ, and which one it sees changes."""
    pending = [True, True, False]
    (tmp_path / "array_state").write_text("readonly\n")
    (tmp_path / "safe_mode_delay").write_text("0\n")
    monkeypatch.setattr(sysfs, "kernel_name", lambda device: Path(device).name)
    monkeypatch.setattr(md_sysfs, "directory", lambda _: tmp_path)
    monkeypatch.setattr(md_sysfs, "resync_pending", lambda _: pending.pop(0))
    await LinuxMd(CallsHere()).make_writable("/dev/md9")
    assert (tmp_path / "array_state").read_text().startswith("active")
    assert float((tmp_path / "safe_mode_delay").read_text()) == SAFE_MODE_DELAY_S
    assert pending == []
