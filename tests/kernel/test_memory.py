"""Memory that is held, by what the kernel says of a process that asked for it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CAP_SYS_RESOURCE = 24

# What was refused, the kernel's page of the process, and whether its memory may wait for I/O.
ASK = """
import ctypes, sys
from vastskyd.kernel.memory import hold_memory
{before}
refused = hold_memory()
more = bytearray(8 << 20)
print(*refused, sep="\\n", file=sys.stderr)
print(open("/proc/self/status").read())
print("Flusher:", ctypes.CDLL(None).prctl(58, 0, 0, 0, 0))
"""
# No privilege, and a limit that the interpreter alone is past.
REFUSED = """
import os, resource
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
"""


def started(before: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ASK.format(before=before)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip


def kib(status: str, key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+)", status, re.M)
    assert found is not None, status
    return int(found[1])


def test_all_memory_is_locked_also_what_comes_later() -> None:
    if os.getuid() != 0:
        pytest.fail("to lock memory this test needs root")
    done = started("")
    assert "locked" not in done.stderr
    assert kib(done.stdout, "VmLck") > 8 * 1024
    assert kib(done.stdout, "VmSwap") == 0


def test_memory_does_not_wait_for_io_where_that_is_allowed() -> None:
    """Some containers have no CAP_SYS_RESOURCE; the lab's hosts have."""
    done = started("")
    capabilities = re.search(r"^CapEff:\s+([0-9a-f]+)", done.stdout, re.M)
    assert capabilities is not None
    allowed = bool(int(capabilities[1], 16) >> CAP_SYS_RESOURCE & 1)
    assert ("Flusher: 1" in done.stdout) == allowed
    assert ("PR_SET_IO_FLUSHER" in done.stderr) != allowed


def test_thread_stacks_are_not_filled() -> None:
    threads = """
import threading, time
for _ in range(32):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""
    done = started("hold_memory()\n" + threads)
    assert kib(done.stdout, "VmRSS") < 32 * 8 * 1024 / 2


def test_refused_it_goes_on_and_says_so() -> None:
    done = started(REFUSED)
    assert "its memory cannot be locked (Cannot allocate memory)" in done.stderr
    assert "PR_SET_IO_FLUSHER: Operation not permitted" in done.stderr
    assert kib(done.stdout, "VmLck") == 0
