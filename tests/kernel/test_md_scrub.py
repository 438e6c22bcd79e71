"""The lock by which one program knows of another's repair."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vastskyd.core.errors import BusyError, NotFoundError
from vastskyd.kernel.md_scrub import locked


def test_a_device_is_locked_by_one_at_a_time(tmp_path: Path) -> None:
    leg = tmp_path / "leg"
    leg.touch()
    with locked(str(leg)), pytest.raises(BusyError, match="is on its way"), locked(str(leg)):
        raise AssertionError
    with locked(str(leg)):
        pass
    with pytest.raises(NotFoundError), locked(str(tmp_path / "gone")):
        raise AssertionError


def test_the_lock_of_a_killed_program_goes_with_it(tmp_path: Path) -> None:
    leg = tmp_path / "leg"
    leg.touch()
    code = (
        "from vastskyd.kernel.md_scrub import locked\n"
        f"with locked({str(leg)!r}): print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        with pytest.raises(BusyError), locked(str(leg)):
            raise AssertionError
        os.kill(program.pid, signal.SIGKILL)
        program.wait(10)
    with locked(str(leg)):
        pass
