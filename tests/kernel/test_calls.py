"""Calls that may sleep, made in a process apart and with a bound."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from vastskyd.core.errors import BusyError, DeviceError, LateError, NotFoundError
from vastskyd.kernel import apart, direct, sysfs
from vastskyd.kernel.calls import STUCK_MAX, CallsApart

LIMIT_S = 10.0


@pytest_asyncio.fixture
async def calls() -> AsyncIterator[CallsApart]:
    async with CallsApart(apart.start()) as made:
        yield made


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Who opens it to read sleeps in the kernel until it is opened to write."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def passes(gate: Path, word: str = "") -> str:
    with gate.open() as file:
        return file.read() or word


def open_gate(gate: Path) -> None:
    """For all who sleep there."""
    os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))


def refuse() -> None:
    raise BusyError("it is in use", hint="wait")


def fail() -> None:
    raise ZeroDivisionError("of the program's own")


class OddError(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


def fail_oddly() -> None:
    raise OddError("this", "that")


def answer_with_what_cannot_travel() -> Callable[[], int]:
    return lambda: 1


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not check():  # noqa: ASYNC110 - another process ends without an event here
            await asyncio.sleep(0.01)


async def test_answers_and_errors_pass_through(calls: CallsApart) -> None:
    assert await calls.call(partial(divmod, 7, 2), 5, "divide") == (3, 1)
    with pytest.raises(BusyError, match="in use") as refused:
        await calls.call(refuse, 5, "ask")
    assert refused.value.hint == "wait"
    with pytest.raises(NotFoundError):
        await calls.call(partial(direct.read, "/dev/nonexistent", 0, 4096), 5, "read")
    with pytest.raises(FileNotFoundError):
        await calls.call(partial(os.listdir, "/nonexistent"), 5, "list")


async def test_an_error_of_the_program_says_where_it_was(calls: CallsApart) -> None:
    with pytest.raises(ZeroDivisionError) as failed:
        await calls.call(fail, 5, "fail")
    assert "in fail" in "".join(failed.value.__notes__)
    with pytest.raises(DeviceError, match="OddError: this that"):
        await calls.call(fail_oddly, 5, "fail")
    with pytest.raises(Exception, match="pickle"):
        await calls.call(answer_with_what_cannot_travel, 5, "fail")
    assert await calls.call(partial(abs, -1), 5, "count") == 1


async def test_large_frames_pass_and_too_large_ones_are_refused(calls: CallsApart) -> None:
    megabyte = bytes(range(256)) * 4096
    assert await calls.call(partial(bytes.upper, megabyte), 30, "copy") == megabyte.upper()
    with pytest.raises(DeviceError, match="too long"):
        await calls.call(partial(len, bytes(apart.FRAME_MAX_BYTES)), 30, "count")
    with pytest.raises(DeviceError, match="too long"):
        await calls.call(partial(bytes, apart.FRAME_MAX_BYTES), 30, "make")


async def test_a_late_call_is_given_up_and_its_lane_closed_until_it_returns(
    calls: CallsApart, gate: Path
) -> None:
    with pytest.raises(LateError, match=r"suspend x: the kernel did not answer within 0\.1 s"):
        await calls.call(partial(passes, gate), 0.1, "suspend x", lane="x")
    with pytest.raises(LateError, match="an earlier call has not returned: suspend x"):
        await calls.call(partial(abs, 1), 5, "resume x", lane="x")
    assert await calls.call(partial(abs, 1), 5, "resume y", lane="y") == 1
    open_gate(gate)
    await until(lambda: not calls.at_work("x"))
    assert await calls.call(partial(abs, 2), 5, "resume x", lane="x") == 2


async def test_the_number_of_sleeping_calls_is_bounded(calls: CallsApart, gate: Path) -> None:
    sleeping = [
        asyncio.create_task(calls.call(partial(passes, gate, "well"), 30, "wait"))
        for _ in range(STUCK_MAX)
    ]
    await asyncio.sleep(0)
    with pytest.raises(DeviceError, match="have not returned"):
        await calls.call(partial(abs, 1), 5, "one more")

    async def let_through() -> None:
        while not all(task.done() for task in sleeping):
            with contextlib.suppress(OSError):  # nobody sleeps there yet
                open_gate(gate)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(30):
        await let_through()
    assert {task.result() for task in sleeping} == {"well"}


async def test_a_call_is_at_work_until_it_returns_whoever_waits(
    calls: CallsApart, gate: Path
) -> None:
    waiting = asyncio.create_task(calls.call(partial(passes, gate), 5, "wait", lane="x"))
    await asyncio.sleep(0.05)
    assert calls.at_work("x")
    waiting.cancel()
    await asyncio.sleep(0.05)
    assert calls.at_work("x")
    await until(lambda: is_opened(gate))
    await until(lambda: not calls.at_work("x"))
    assert not calls.at_work("y")


def is_opened(gate: Path) -> bool:
    try:
        open_gate(gate)
    except OSError:
        return False
    return True


async def test_the_end_of_the_process_fails_all_calls(calls: CallsApart, gate: Path) -> None:
    pid = await calls.call(os.getpid, 5, "ask")
    assert sysfs.attribute(Path(f"/proc/{pid}/comm")) == "vastskyd-kernel"
    sleeping = asyncio.create_task(calls.call(partial(passes, gate), 30, "wait"))
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGTERM)  # of no effect: it ends with its maker
    assert await calls.call(os.getpid, 5, "ask") == pid
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(DeviceError, match="process that makes kernel calls has ended"):
            await calls.ended()
    for task in (sleeping, asyncio.create_task(calls.call(os.getpid, 5, "ask"))):
        with pytest.raises(DeviceError, match="has ended"):
            await task


MAKER = """
import asyncio, fcntl, functools, os, sys
from vastskyd.kernel import apart, calls
process = apart.start()
held = open(sys.argv[1], "w")
fcntl.flock(held, fcntl.LOCK_EX)
async def main():
    async with calls.CallsApart(process) as made:
        print(await made.call(os.getpid, 5, "ask"), flush=True)
        await made.call(functools.partial(open, sys.argv[2]), 600, "sleep")
asyncio.run(main())
"""


def test_it_ends_with_its_maker_who_waits_for_nothing(tmp_path: Path, gate: Path) -> None:
    """Killed while a call sleeps, and while it does not run itself: what the maker held is free at
    once, and no call begins any more."""
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, str(lock), str(gate)], stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        pid = int(maker.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        maker.kill()
        maker.wait(LIMIT_S)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    end = time.monotonic() + LIMIT_S
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
