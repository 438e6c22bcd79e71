"""A head in a few lines: NBD's newstyle handshake, then reads and writes, one at a time."""

import socket
import ssl
import struct

_OPTION = b"IHAVEOPT"
_OPTION_REPLY = 0x3E889045565A9
_STARTTLS, _GO = 5, 7
_ACK, _INFO = 1, 3


class RefusedError(Exception):
    """The server answered no, or hung up."""


class NbdClient:
    def __init__(self, port: int, export: str, tls: ssl.SSLContext | None = None) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        try:
            self._handshake(export, tls)
        except (OSError, RefusedError) as error:
            self._socket.close()
            raise RefusedError(str(error)) from error

    def _handshake(self, export: str, tls: ssl.SSLContext | None) -> None:
        if self._receive(16) != b"NBDMAGICIHAVEOPT":
            raise RefusedError("no NBD server")
        (flags,) = struct.unpack(">H", self._receive(2))
        self._socket.sendall(struct.pack(">I", flags & 3))
        if tls is not None:
            self._ask(_STARTTLS, b"")
            self._socket = tls.wrap_socket(self._socket)
        self._ask(_GO, struct.pack(">I", len(export)) + export.encode() + struct.pack(">H", 0))

    def _ask(self, option: int, content: bytes) -> None:
        self._socket.sendall(_OPTION + struct.pack(">II", option, len(content)) + content)
        while True:
            magic, _, kind, length = struct.unpack(">QIII", self._receive(20))
            text = self._receive(length)
            assert magic == _OPTION_REPLY
            if kind & 0x80000000:
                raise RefusedError(f"{kind & 0xFF}: {text.decode()}")
            if kind == _INFO and text[:2] == b"\0\0":
                _, self.size_bytes, self.flags = struct.unpack(">HQH", text)
            if kind == _ACK:
                return

    def write(self, offset: int, content: bytes) -> None:
        self._request(1, offset, len(content), content)

    def flush(self) -> None:
        self._request(3, 0, 0)

    def read(self, offset: int, length: int) -> bytes:
        self._request(0, offset, length)
        return self._receive(length)

    def _request(self, command: int, offset: int, length: int, content: bytes = b"") -> None:
        header = struct.pack(">IHHQQI", 0x25609513, 0, command, 7, offset, length)
        try:
            self._socket.sendall(header + content)
        except OSError as error:
            raise RefusedError(str(error)) from error
        magic, failure, cookie = struct.unpack(">IIQ", self._receive(16))
        assert (magic, cookie) == (0x67446698, 7)
        if failure:
            raise OSError(failure, "the server says so")

    def _receive(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            try:
                part = self._socket.recv(length - len(found))
            except OSError as error:
                raise RefusedError(str(error)) from error
            if not part:
                raise RefusedError("the server hung up")
            found += part
        return found

    def close(self) -> None:
        self._socket.close()
