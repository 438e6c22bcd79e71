"""A polkitd on the private bus, which answers as a test tells it to."""

import asyncio
from typing import Any

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message

NAME = "org.freedesktop.PolicyKit1"


class FakePolkit:
    """`asked`: each question's subject, action, details and flags. `answer`: (allowed, challenge),
    with the details `says`. `silent`: it never answers. `cancelled`: the questions that were taken
    back."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], int]] = []
        self.cancelled: list[str] = []
        self.answer = (False, False)
        self.says: dict[str, str] = {}
        self.silent = False
        self.error = ""
        self.wrong = False
        self._bus: MessageBus | None = None

    async def start(self, address: str) -> None:
        self._bus = await MessageBus(address).connect()
        self._bus.add_message_handler(self._on_message)
        await self._bus.request_name(NAME)

    async def stop(self) -> None:
        if self._bus is not None:
            self._bus.disconnect()  # type: ignore[no-untyped-call]
            await asyncio.wait_for(self._bus.wait_for_disconnect(), 5)  # type: ignore[no-untyped-call]

    def _on_message(self, call: Message) -> Message | bool | None:
        if call.message_type is not MessageType.METHOD_CALL:
            return None
        if call.member == "CancelCheckAuthorization":
            self.cancelled.append(call.body[0])
            return Message.new_method_return(call)
        assert call.member == "CheckAuthorization"
        assert call.signature == "(sa{sv})sa{ss}us"
        return self._check(call, *call.body)

    def _check(
        self, call: Message, subject: Any, action: str, details: dict[str, str], flags: int, _: str
    ) -> Message | bool:
        kind, about = subject
        assert kind == "system-bus-name"
        self.asked.append((about["name"].value, action, details, flags))
        if self.silent:
            return True
        if self.error:
            return Message.new_error(call, self.error, "no")
        if self.wrong:
            return Message.new_method_return(call, "b", [True])
        return Message.new_method_return(call, "(bba{ss})", [[*self.answer, self.says]])
