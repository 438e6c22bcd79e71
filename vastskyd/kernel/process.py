"""The one door for external commands.

A command gets an argument list, an environment of two variables, no standard input, a process
group of its own and a time limit. Its output is bounded. What it leaves behind when it fails is a
DeviceError with a line that a person can paste and run again.
"""

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from vastskyd.core.errors import DeviceError

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
OUTPUT_MAX_BYTES = 4 * 1024 * 1024
ERROR_LINES = 4

# A killed process that sleeps in the kernel on held I/O does not die: nobody waits for it longer.
REAP_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended. Output past OUTPUT_MAX_BYTES is dropped."""

    argv: tuple[str, ...]
    status: int
    output: str
    errors: str

    def failure(self) -> DeviceError:
        lines = [line for line in self.errors.splitlines() if line.strip()] or ["no message"]
        said = "; ".join(lines[-ERROR_LINES:])
        return DeviceError(f"`{shlex.join(self.argv)}` failed with status {self.status}: {said}")


async def run(argv: Sequence[str], timeout_s: float, *, ok: Sequence[int] = (0,)) -> Outcome:
    """Runs the command to its end. DeviceError: it cannot be started, ended with a status that is
    not `ok`, or took longer than `timeout_s`; its whole process group is then killed."""
    line = shlex.join(argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise DeviceError(f"`{line}` cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await asyncio.gather(_read(process.stdout), _read(process.stderr))
            status = await process.wait()
    except TimeoutError as error:
        await _kill(process)
        raise DeviceError(f"`{line}` did not end within {timeout_s:g} s") from error
    except asyncio.CancelledError:
        await _kill(process)
        raise
    outcome = Outcome(tuple(argv), status, output, errors)
    if status not in ok:
        raise outcome.failure()
    return outcome


async def _read(stream: asyncio.StreamReader | None) -> str:
    """All of the stream, so that its writer never waits; what is past the bound is dropped."""
    assert stream is not None  # noqa: S101  # both are pipes
    kept = bytearray()
    while chunk := await stream.read(65536):
        kept += chunk[: OUTPUT_MAX_BYTES - len(kept)]
    return kept.decode(errors="replace")


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended just now
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):  # see REAP_TIMEOUT_S
        async with asyncio.timeout(REAP_TIMEOUT_S):
            await process.wait()
