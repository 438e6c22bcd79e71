"""Blocking calls with a bound."""

import asyncio
import threading

import pytest

from vastskyd.core.errors import DeviceError
from vastskyd.kernel import threads


async def test_answers_and_errors_pass_through() -> None:
    assert await threads.call(lambda: 7, 5, "count") == 7
    with pytest.raises(ZeroDivisionError):
        await threads.call(lambda: 1 // 0, 5, "divide")


async def test_a_late_call_is_given_up_and_its_lane_closed_until_it_returns() -> None:
    returned = threading.Event()
    with pytest.raises(DeviceError, match=r"suspend x: the kernel did not answer within 0\.1 s"):
        await threads.call(returned.wait, 0.1, "suspend x", lane="x")
    with pytest.raises(DeviceError, match="an earlier call has not returned: suspend x"):
        await threads.call(lambda: None, 5, "resume x", lane="x")
    assert await threads.call(lambda: 1, 5, "resume y", lane="y") == 1
    returned.set()
    for _ in range(100):
        try:
            assert await threads.call(lambda: 2, 5, "resume x", lane="x") == 2
            return
        except DeviceError:
            await asyncio.sleep(0.01)
    pytest.fail("the lane stays closed")


async def test_the_number_of_sleeping_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_running", threading.Semaphore(2))
    returned = threading.Event()
    sleeping = [asyncio.create_task(threads.call(returned.wait, 5, "wait")) for _ in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(DeviceError, match="have not returned"):
        await threads.call(lambda: None, 5, "one more")
    returned.set()
    assert await asyncio.gather(*sleeping) == [True, True]


async def test_a_call_is_at_work_until_it_returns_whoever_waits() -> None:
    returned = threading.Event()
    waiting = asyncio.create_task(threads.call(returned.wait, 5, "wait", lane="x"))
    await asyncio.sleep(0.05)
    assert threads.at_work("x")
    waiting.cancel()
    await asyncio.sleep(0.05)
    assert threads.at_work("x")
    returned.set()
    async with asyncio.timeout(5):
        while threads.at_work("x"):  # noqa: ASYNC110 - a thread ends without an event
            await asyncio.sleep(0.01)
    assert not threads.at_work("y")
