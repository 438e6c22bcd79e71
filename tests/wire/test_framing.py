from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.errors import InvalidError
from vastskyd.wire.framing import (
    FrameDecoder,
    FrameError,
    Notification,
    Request,
    Response,
    decode_message,
    encode_frame,
)

LIMIT_BYTES = 1000


def frames_of(stream: bytes, sizes: list[int]) -> list[bytes]:
    """What the decoder makes of the stream, fed in pieces of these sizes and then the rest."""
    decoder = FrameDecoder(LIMIT_BYTES)
    found = []
    for size in [*sizes, len(stream)]:
        decoder.feed(stream[:size])
        stream = stream[size:]
        while (frame := decoder.next()) is not None:
            found.append(frame)
    return found


@given(st.lists(st.binary(min_size=1, max_size=300)), st.lists(st.integers(0, 50)))
def test_frames_come_out_as_they_went_in(payloads: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(encode_frame(payload, LIMIT_BYTES) for payload in payloads)
    assert frames_of(stream, sizes) == payloads


@given(st.binary(max_size=3000), st.lists(st.integers(0, 500)))
def test_any_bytes_make_bounded_frames_or_a_frame_error(stream: bytes, sizes: list[int]) -> None:
    try:
        frames = frames_of(stream, sizes)
    except FrameError:
        return
    assert all(0 < len(frame) <= LIMIT_BYTES for frame in frames)


@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\0\0\x03\xe9", b"\xff\xff\xff\xff", b"GET "])
def test_a_length_out_of_bounds_is_refused_before_its_content_comes(length: bytes) -> None:
    decoder = FrameDecoder(LIMIT_BYTES)
    decoder.feed(length)
    with pytest.raises(FrameError):
        decoder.next()


def test_nothing_larger_than_the_limit_is_sent() -> None:
    encode_frame(bytes(LIMIT_BYTES), LIMIT_BYTES)
    with pytest.raises(InvalidError):
        encode_frame(bytes(LIMIT_BYTES + 1), LIMIT_BYTES)


def test_the_three_kinds_of_message() -> None:
    request = decode_message(msgspec.msgpack.encode([0, 7, "ping", [{}]]))
    response = decode_message(msgspec.msgpack.encode([1, 7, None, {}]))
    notification = decode_message(msgspec.msgpack.encode([2, "heartbeat", []]))
    assert isinstance(request, Request)
    assert (request.id, request.method) == (7, "ping")
    assert isinstance(response, Response)
    assert bytes(response.error) == b"\xc0"
    assert isinstance(notification, Notification)
    assert notification.method == "heartbeat"


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        {},
        [],
        [0, 1, "ping"],
        [2, "heartbeat", [], []],
        [3, 1, "ping", []],
        [False, 1, "ping", []],
        [0, -1, "ping", []],
        [0, 2**32, "ping", []],
        [0, "1", "ping", []],
        [0, 1, 5, []],
        [0, 1, "", []],
        [0, 1, "x" * 65, []],
        [0, 1, b"ping", []],
        [0, 1, "ping", [], []],
    ],
)
def test_other_messages_are_refused(message: Any) -> None:
    with pytest.raises(FrameError):
        decode_message(msgspec.msgpack.encode(message))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x94\x00\x01",
        b"\x94\x00\x01\xa2\xff\xff\x90",  # a method that is not UTF-8
        b"\x94\x00\x01\xa4ping\x90\x00",  # bytes after the message
        b"\x91" * 100_000 + b"\xc0",  # deeper than any stack
        b"\xdd\xff\xff\xff\xff" + b"\x00" * 1000,  # four thousand million elements
        b"\x94\x00\x01\xa4ping" + b"\x91" * 100_000 + b"\xc0",
    ],
)
def test_hostile_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode_message(payload)


@given(st.binary(max_size=200))
def test_any_payload_is_a_message_or_a_frame_error(payload: bytes) -> None:
    try:
        message = decode_message(payload)
    except FrameError:
        return
    assert isinstance(message, Request | Response | Notification)
