"""dbus-next, as far as we use it.

Its package also imports its GLib half, and with it GObject introspection where that is installed:
a fifth of what a short vastskyctl command takes, for nothing. It does without where there is none.
"""

import socket
import sys
from contextlib import suppress

_without = "gi" not in sys.modules
if _without:
    sys.modules["gi"] = None  # type: ignore[assignment]  # an import of it fails: ImportError
try:
    from dbus_next.aio.message_bus import MessageBus as _NextBus
    from dbus_next.constants import (
        BusType,
        MessageFlag,
        MessageType,
        NameFlag,
        RequestNameReply,
    )
    from dbus_next.message import Message
    from dbus_next.signature import SignatureTree, Variant
finally:
    if _without:
        del sys.modules["gi"]


class _PatientSocket:
    """A full socket is the end of a connection to dbus-next (altdesktop/python-dbus-next #153): a
    few hundred answers at once are enough. Having sent nothing, it waits until there is room."""

    def __init__(self, to: socket.socket) -> None:
        self._to = to

    def send(self, data: memoryview) -> int:
        try:
            return self._to.send(data)
        except BlockingIOError:
            return 0


class MessageBus(_NextBus):
    def __init__(self, bus_address: str, bus_type: BusType) -> None:
        super().__init__(bus_address, bus_type)
        self._writer.sock = _PatientSocket(self._sock)

    def _finalize(self, err: Exception | None = None) -> None:
        """The bus is told, too: dbus-next leaves the socket open, and with it our name taken."""
        super()._finalize(err)  # type: ignore[no-untyped-call]
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._stream.close()
        self._sock.close()


__all__ = [
    "BusType",
    "Message",
    "MessageBus",
    "MessageFlag",
    "MessageType",
    "NameFlag",
    "RequestNameReply",
    "SignatureTree",
    "Variant",
]
