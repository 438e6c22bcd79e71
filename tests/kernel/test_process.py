"""The door for external commands."""

import asyncio
import os
from pathlib import Path

import pytest

from vastskyd.core.errors import DeviceError
from vastskyd.kernel import process


async def test_output_and_a_clean_environment() -> None:
    os.environ["VASTSKY_LEAK"] = "1"
    try:
        outcome = await process.run(["sh", "-c", "env; pwd; cat; echo warn >&2"], 5)
    finally:
        del os.environ["VASTSKY_LEAK"]
    assert "VASTSKY_LEAK" not in outcome.output
    assert "LC_ALL=C.UTF-8" in outcome.output
    assert outcome.errors == "warn\n"


async def test_a_failure_can_be_pasted() -> None:
    with pytest.raises(DeviceError) as failed:
        await process.run(["sh", "-c", "echo 'no such disk' >&2; exit 3"], 5)
    assert "sh -c 'echo '\"'\"'no such disk'\"'\"' >&2; exit 3'" in failed.value.message
    assert "status 3" in failed.value.message
    assert "no such disk" in failed.value.message


async def test_other_statuses_can_be_fine() -> None:
    assert (await process.run(["sh", "-c", "exit 2"], 5, ok=(0, 2))).status == 2


async def test_no_such_command() -> None:
    with pytest.raises(DeviceError, match="cannot be started"):
        await process.run(["vastsky-no-such-command"], 5)


async def test_a_time_out_kills_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(DeviceError, match=r"did not end within 0\.5 s"):
        await process.run(["sh", "-c", f"sleep 60 & echo $! > {pids}; wait"], 0.5)
    child = int(pids.read_text())
    for _ in range(100):
        if not _runs(child):
            break
        await asyncio.sleep(0.02)
    assert not _runs(child)


async def test_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OUTPUT_MAX_BYTES", 1000)
    outcome = await process.run(["sh", "-c", "yes | head -c 1000000"], 10)
    assert len(outcome.output) == 1000


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
