"""dbus-next, as far as we use it.

Its package also imports its GLib half, and with it GObject introspection where that is installed:
a fifth of what a short vastskyctl command takes, for nothing. It does without where there is none.
"""

import asyncio
import socket
import sys
from contextlib import suppress
from struct import unpack_from

_without = "gi" not in sys.modules
if _without:
    sys.modules["gi"] = None  # type: ignore[assignment]  # an import of it fails: ImportError
try:
    from dbus_next._private.unmarshaller import MarshallerStreamEndError, Unmarshaller
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


LENGTH_MAX_BYTES = 65536  # of what comes unasked; the bus itself lets 32 MiB through
_ANSWERS = (MessageType.METHOD_RETURN.value, MessageType.ERROR.value)
_FIXED_BYTES = 16  # that each message begins with
_LITTLE_ENDIAN = ord("l")


class _Reader(Unmarshaller):
    """Reads one message, but not the body of one that is `too_long`: values take so much longer to
    read than to send that one message could keep the loop from all else for a minute. Where already
    the header is too long, nothing is read and `message` is None."""

    def __init__(self, stream: object, sock: object = None) -> None:
        super().__init__(stream, sock)  # type: ignore[no-untyped-call]
        self.too_long = False
        self._unread_bytes: int | None = None
        self._has_header = True

    def complete(self) -> bool:
        """Whether all of it has come."""
        try:
            if self._unread_bytes is None:
                self._unread_bytes = self._measure()
            self._drop()
            if self._has_header:
                self._unmarshall()  # type: ignore[no-untyped-call]
        except MarshallerStreamEndError:
            return False
        return True

    def _measure(self) -> int:
        """How much of it is dropped. That of the rest is kept which has come: this may be asked
        again."""
        self.offset = 0
        self.read(_FIXED_BYTES, prefetch=True)  # type: ignore[no-untyped-call]
        order = "<" if self.buf[0] == _LITTLE_ENDIAN else ">"
        body, fields = unpack_from(f"{order}I4xI", self.buf, 4)
        header: int = _FIXED_BYTES + fields + -fields % 8
        if self.buf[1] in _ANSWERS or header + body <= LENGTH_MAX_BYTES:
            return 0
        self.too_long = True
        if header > LENGTH_MAX_BYTES:
            self._has_header = False
            return int(header + body - _FIXED_BYTES)
        self.read(header, prefetch=True)  # type: ignore[no-untyped-call]
        self.buf[4:8] = bytes(4)  # it has no body
        return int(body)

    def _drop(self) -> None:
        while self._unread_bytes:
            dropped = self.stream.read(min(self._unread_bytes, LENGTH_MAX_BYTES))
            if dropped is None:
                raise MarshallerStreamEndError
            if not dropped:
                raise EOFError
            self._unread_bytes -= len(dropped)


class MessageBus(_NextBus):
    """Of what others send one message is read in each turn of the loop: dbus-next would read for as
    long as more comes, and nothing else had its turn."""

    def __init__(self, bus_address: str, bus_type: BusType) -> None:
        super().__init__(bus_address, bus_type)
        self._writer.sock = _PatientSocket(self._sock)
        self._next_read: asyncio.Handle | None = None

    def _create_unmarshaller(self) -> _Reader:
        return _Reader(self._stream)

    def _message_reader(self) -> None:
        if self._next_read is None:
            self._read_one()

    def _read_one(self) -> None:
        self._next_read = None
        if self._disconnected:
            return
        try:
            if not self._unmarshaller.complete():
                return
            read, self._unmarshaller = self._unmarshaller, self._create_unmarshaller()
            if read.too_long:
                self._refuse(read.message)
            else:
                self._on_message(read.message)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the connection's end
            self._finalize(error)
        else:
            self._next_read = self._loop.call_soon(self._read_one)  # it may be buffered already

    def _refuse(self, message: Message | None) -> None:
        if message is None or message.message_type is not MessageType.METHOD_CALL:
            return
        if message.flags & MessageFlag.NO_REPLY_EXPECTED:
            return
        name = "org.freedesktop.DBus.Error.LimitsExceeded"
        said = f"a call to vastskyd has {LENGTH_MAX_BYTES} bytes at the most"
        self.send(Message.new_error(message, name, said))

    def abandon(self) -> None:
        """Of a connection that was not made to its end: nothing of it is left."""
        self._user_disconnect = True
        self._finalize()

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
