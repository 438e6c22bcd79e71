"""Frames and messages: bytes to MessagePack-RPC messages and back, without I/O.

A frame is a length of 4 bytes, big-endian, and one message. MessagePack ends by itself, but
only a length lets a reader refuse what is too large before it has read it.
"""

import struct
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.errors import InvalidError

_LENGTH = struct.Struct(">I")
MESSAGE_ID_MAX: Final = 2**32 - 1


class FrameError(InvalidError):
    """The bytes are not this protocol's. After it nothing on the connection can be trusted."""


class FrameDecoder:
    """Cuts a byte stream into frames. Keeps at most one frame and one chunk in memory."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._buffer = bytearray()

    @property
    def pending_bytes(self) -> int:
        return len(self._buffer)

    def feed(self, chunk: bytes) -> None:
        self._buffer += chunk

    def next(self) -> bytes | None:
        """The next whole frame's content, or None until more is fed."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if not 0 < length <= self.limit_bytes:
            raise FrameError(f"a frame of {length} bytes; 1 to {self.limit_bytes} are allowed")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        return payload


def encode_frame(payload: bytes, limit_bytes: int) -> bytes:
    if len(payload) > limit_bytes:
        raise InvalidError(f"a message of {len(payload)} bytes; {limit_bytes} are allowed")
    return _LENGTH.pack(len(payload)) + payload


@dataclass(frozen=True)
class Request:
    id: int
    method: str
    params: msgspec.Raw


@dataclass(frozen=True)
class Response:
    """`error` is nil if all went well, else `result` is."""

    id: int
    error: msgspec.Raw
    result: msgspec.Raw


@dataclass(frozen=True)
class Notification:
    method: str
    params: msgspec.Raw


Message = Request | Response | Notification

# The number of elements is checked before any is made: junk stays as small as it came.
_PARTS = msgspec.msgpack.Decoder(
    Annotated[list[msgspec.Raw], msgspec.Meta(min_length=3, max_length=4)]
)
_KIND: msgspec.msgpack.Decoder[Literal[0, 1, 2]] = msgspec.msgpack.Decoder(Literal[0, 1, 2])
_ID = msgspec.msgpack.Decoder(Annotated[int, msgspec.Meta(ge=0, le=MESSAGE_ID_MAX)])
_METHOD = msgspec.msgpack.Decoder(Annotated[str, msgspec.Meta(min_length=1, max_length=64)])


def decode_message(payload: bytes) -> Message:
    try:
        return _decode(_PARTS.decode(payload))
    except DECODE_ERRORS as error:
        raise FrameError(f"not a MessagePack-RPC message: {error}") from error


def _decode(parts: list[msgspec.Raw]) -> Message:
    kind = _KIND.decode(parts[0])
    if len(parts) != (3 if kind == 2 else 4):
        raise FrameError(f"a message of kind {kind} with {len(parts)} elements")
    if kind == 0:
        return Request(_ID.decode(parts[1]), _METHOD.decode(parts[2]), parts[3])
    if kind == 1:
        return Response(_ID.decode(parts[1]), parts[2], parts[3])
    return Notification(_METHOD.decode(parts[1]), parts[2])
