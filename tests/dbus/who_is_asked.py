"""A user with an authentication agent, which closes every dialogue and says what was in it."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.dbus.somebody_else import LIMIT_S, NOBODY
from vastskyd.dbus.actions import PREFIX
from vastskyd.dbus.paths import BUS_NAME

_ALL_SAY = "Authentication is required to "

# path, interface, member, signature and body without the options, names of options that are true
Act = tuple[str, str, str, str, Sequence[Any], Sequence[str]]


@dataclass(frozen=True)
class Asked:
    """What the dialogue was about and what it said, without what all say; what became of the
    call."""

    action: str
    message: str
    error: str


# As in somebody_else.
_PROGRAM = """
import asyncio, json, os
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageFlag
from dbus_next.message import Message
from dbus_next.signature import Variant
os.setgid({nobody}); os.setuid({nobody})
POLKIT = "org.freedesktop.PolicyKit1"
async def main():
    bus = await MessageBus({address!r}).connect()
    shown = []
    def close(call):
        if call.member == "BeginAuthentication":
            shown.extend(call.body[:2])
            return Message.new_error(call, POLKIT + ".Error.Cancelled", "no")
    bus.add_message_handler(close)
    since = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    me = ["unix-process", {{"pid": Variant("u", os.getpid()), "start-time": Variant("t", since)}}]
    reply = await bus.call(Message(destination=POLKIT, path="/org/freedesktop/PolicyKit1/Authority",
        interface=POLKIT + ".Authority", member="RegisterAuthenticationAgent",
        signature="(sa{{sv}})ss", body=[me, "C.UTF-8", "/agent"]))
    assert reply.error_name is None, reply.body
    for path, interface, name, signature, body, options in {acts!r}:
        shown.clear()
        options = {{option: Variant("b", True) for option in options}}
        reply = await bus.call(Message(destination={bus_name!r}, path=path, interface=interface,
            member=name, signature=signature + "a{{sv}}", body=[*body, options],
            flags=MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION))
        print(json.dumps([*(shown or ["", ""]), reply.error_name or "ok"]), flush=True)
asyncio.run(main())
"""


async def what_nobody_is_asked(address: str, acts: Sequence[Act]) -> list[Asked]:
    program = _PROGRAM.format(nobody=NOBODY, address=address, acts=acts, bus_name=BUS_NAME)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    answers = [msgspec.json.decode(line) for line in said.splitlines()]
    return [
        Asked(action.removeprefix(PREFIX), message.removeprefix(_ALL_SAY), error)
        for action, message, error in answers
    ]
