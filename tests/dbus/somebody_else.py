"""Calls by a user who is not root."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from vastskyd.dbus.paths import BUS_NAME

NOBODY = 65534
LIMIT_S = 20

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root, to be root and somebody else"
)

# path, interface, member, signatures of the arguments
Call = tuple[str, str, str, Sequence[str]]

# Loads all it needs before it becomes the other user, who may not see this tree.
_PROGRAM = """
import asyncio, os
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message
os.setgid({nobody}); os.setuid({nobody})
async def main():
    bus = await MessageBus({address!r}).connect()
    for path, interface, name, signature in {calls!r}:
        body = [dict() if kind == "a{{sv}}" else 0.0 if kind == "d" else 1 if kind == "t" else
                [] if kind == "as" else "host" if name == "SetCopiesApart" else "m1"
                for kind in signature]
        reply = await bus.call(Message(destination={bus_name!r}, path=path,
            interface=interface, member=name, signature="".join(signature), body=body))
        print(f"{{interface}}.{{name}}", reply.error_name or "ok", flush=True)
asyncio.run(main())
"""


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """One that other users can reach, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="vastsky-bus-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


async def call_as_nobody(address: str, calls: Sequence[Call]) -> dict[str, str]:
    """The error's name, or "ok", by interface and member."""
    program = _PROGRAM.format(nobody=NOBODY, address=address, calls=calls, bus_name=BUS_NAME)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    return dict(line.split(" ") for line in said.decode().splitlines())
