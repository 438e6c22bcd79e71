"""Errors on the bus: `org.vastsky.Vastsky1.Error.<code>`, with one string.

The string's first line is the message; what follows the first newline, if anything, is the
hint. So a caller that knows nothing of hints still shows them, and one that does can part them.
"""

from vastskyd.core.errors import FailedError, VastskyError, from_code
from vastskyd.dbus.messages import Message, MessageType
from vastskyd.dbus.paths import BUS_NAME
from vastskyd.dbus.variants import text

ERROR_PREFIX = f"{BUS_NAME}.Error."
MAX_TEXT = 4096


class ProtocolError(Exception):
    """The call itself is wrong, in D-Bus's own terms: `org.freedesktop.DBus.Error.<name>`."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = f"org.freedesktop.DBus.Error.{name}"
        self.message = message


def internal_error() -> FailedError:
    return FailedError(
        "internal error in vastskyd", hint="its journal says more: `journalctl -u vastskyd`"
    )


def error_text(error: VastskyError) -> str:
    message = " ".join(error.message.splitlines())
    whole = f"{message}\n{error.hint}" if error.hint else message
    return text(whole)[:MAX_TEXT]


def error_reply(call: Message, error: VastskyError | ProtocolError) -> Message:
    if isinstance(error, ProtocolError):
        name, body = error.name, text(error.message)[:MAX_TEXT]
    else:
        name, body = ERROR_PREFIX + error.code, error_text(error)
    return Message(
        message_type=MessageType.ERROR,
        reply_serial=call.serial,
        destination=call.sender,
        error_name=name,
        signature="s",
        body=[body],
    )


def error_in(name: str, body: str) -> VastskyError | None:
    """The error that a reply of this name carries; None if it is not one of ours."""
    if not name.startswith(ERROR_PREFIX):
        return None
    message, _, hint = body.partition("\n")
    return from_code(name.removeprefix(ERROR_PREFIX), message, hint)
