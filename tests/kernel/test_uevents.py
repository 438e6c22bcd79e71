"""Uevents that are heard, not meant for us, and lost: on a real socket, in a network namespace of
its own, where nobody else speaks."""

import subprocess
import sys

import pytest

_PROGRAM = """
import select, socket
from vastskyd.kernel.uevents import Uevents

def readable(uevents):
    return bool(select.select([uevents], [], [], 2)[0])

speaker = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
speaker.bind((0, 0))

def say(text):
    speaker.sendto(text.replace("|", "\\0").encode(), (0, 2))

BLOCK = "libudev|ACTION=add|SUBSYSTEM=block|DEVNAME=/dev/sdb|"
OTHER = "libudev|ACTION=add|SUBSYSTEM=blocks|DEVNAME=/dev/null|"
"""


def in_namespace(program: str, *, rights: bool = True) -> None:
    script = _PROGRAM + program
    made = ["unshare", "--map-root-user", "--net"]
    drop = [] if rights else ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    probe = subprocess.run([*made, *drop, "true"], capture_output=True, check=False, timeout=20)
    if probe.returncode:
        pytest.skip(f"needs a namespace of its own: {probe.stderr.decode()}")
    done = subprocess.run(
        [*made, *drop, sys.executable, "-c", script],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_only_block_devices_count() -> None:
    in_namespace("""
uevents = Uevents()
assert uevents.take() is False
say(OTHER)
assert readable(uevents) and uevents.take() is False
say(OTHER); say(BLOCK); say(OTHER)
assert readable(uevents) and uevents.take() is True
assert uevents.take() is False
""")


def test_lost_uevents_are_a_reason_to_look() -> None:
    """Nothing of what was lost, or is left, spoke of a block device."""
    in_namespace("""
uevents = Uevents(buffer_bytes=4096)
for _ in range(2000):
    say(OTHER)
assert readable(uevents) and uevents.take() is True
assert uevents.take() is False
say(BLOCK)
assert readable(uevents) and uevents.take() is True, "it hears no more after an overrun"
""")


def test_a_flood_does_not_keep_the_daemon() -> None:
    """One call takes a part of it, and says what it saw; the rest is taken by the next."""
    in_namespace("""
uevents = Uevents()
say(BLOCK)
for _ in range(3000):
    say(OTHER)
assert uevents.take() is True
assert readable(uevents)
calls = 0
while uevents.take() is False and select.select([uevents], [], [], 0)[0]:
    calls += 1
assert 0 < calls < 10
""")


def test_the_buffer_needs_no_rights() -> None:
    in_namespace("uevents = Uevents()\nassert uevents.take() is False\n", rights=False)
