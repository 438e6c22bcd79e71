from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.answers import VolumeList
from vastskyd.core.api import ANSWERS, BY_METHOD, AttachVolume, Join, ListVolumes, Ping
from vastskyd.core.errors import BY_CODE, FailedError, InvalidError, VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record
from vastskyd.wire.framing import FrameDecoder, Request, Response, decode_message
from vastskyd.wire.messages import (
    FetchCa,
    decode_anonymous_request,
    decode_answer,
    decode_hello,
    decode_session_request,
    decode_welcome,
    encode_error,
    encode_request,
    encode_result,
)

LIMIT_BYTES = 2**20


def payload_of(frame: bytes) -> bytes:
    decoder = FrameDecoder(LIMIT_BYTES)
    decoder.feed(frame)
    payload = decoder.next()
    assert payload is not None
    return payload


def request_of(frame: bytes) -> Request:
    message = decode_message(payload_of(frame))
    assert isinstance(message, Request)
    return message


def response_of(frame: bytes) -> Response:
    message = decode_message(payload_of(frame))
    assert isinstance(message, Response)
    return message


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


def test_a_request_arrives_as_it_was_sent() -> None:
    sent = AttachVolume(volume="v1", head=NodeId("h1"), force=True)
    message = request_of(encode_request(5, sent, LIMIT_BYTES))
    assert (message.id, message.method) == (5, "attach_volume")
    assert decode_session_request(message.method, message.params) == sent


def test_an_answer_arrives_as_it_was_sent() -> None:
    message = response_of(encode_result(5, VolumeList(volumes=()), LIMIT_BYTES))
    assert decode_answer(ListVolumes, message) == VolumeList(volumes=())


@pytest.mark.parametrize("kind", BY_CODE.values())
def test_errors_keep_their_meaning(kind: type[VastskyError]) -> None:
    message = response_of(encode_error(5, kind("so it is", hint="do that"), LIMIT_BYTES))
    with pytest.raises(kind) as caught:
        decode_answer(Ping, message)
    assert (type(caught.value), caught.value.message, caught.value.hint) == (
        kind,
        "so it is",
        "do that",
    )


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("no_such_thing", [{}]),
        ("join", [{}]),  # not of a member
        ("fetch_ca", [{}]),
        ("ping", []),
        ("ping", {}),
        ("ping", [{}, {}]),
        ("ping", [{"extra": 1}]),
        ("attach_volume", [{"volume": "v1"}]),
        ("attach_volume", [{"volume": 1, "head": "h1"}]),
        ("attach_volume", [None]),
    ],
)
def test_wrong_requests_are_invalid(method: str, params: Any) -> None:
    with pytest.raises(InvalidError):
        decode_session_request(method, raw(params))


def test_an_anonymous_host_may_ask_for_two_things_only() -> None:
    assert decode_anonymous_request("fetch_ca", raw([{}])) == FetchCa()
    with pytest.raises(InvalidError):
        decode_anonymous_request("join", raw([{}]))
    for method, kind in BY_METHOD.items():
        if kind is not Join:
            with pytest.raises(InvalidError, match="there is no request"):
                decode_anonymous_request(method, raw([{}]))


@pytest.mark.parametrize("error", [7, ["Busy"], ["Busy", "m", "h", 1], ["Busy", 1, 2], {}])
def test_an_error_that_is_none_of_ours_is_a_failure(error: Any) -> None:
    with pytest.raises(FailedError):
        decode_answer(Ping, Response(1, raw(error), raw(None)))


def test_an_answer_of_another_type_is_a_failure() -> None:
    with pytest.raises(FailedError):
        decode_answer(ListVolumes, Response(1, raw(None), raw({"volumes": [1]})))


def test_only_requests_can_be_sent() -> None:
    with pytest.raises(InvalidError):
        encode_request(1, VolumeList(volumes=()), LIMIT_BYTES)
    with pytest.raises(InvalidError):
        encode_request(1, ListVolumes(volume="\ud800"), LIMIT_BYTES)
    with pytest.raises(InvalidError):
        encode_request(1, ListVolumes(volume="x" * 100), 50)


def test_every_request_has_decoders() -> None:
    for kind in ANSWERS:
        with pytest.raises(FailedError):
            decode_answer(kind, Response(1, raw(None), raw(7)))


@given(st.sampled_from([*BY_METHOD, "hello", "fetch_ca"]), st.binary(max_size=200))
def test_any_params_are_a_request_or_invalid(method: str, params: bytes) -> None:
    for decode in (decode_session_request, decode_anonymous_request):
        try:
            request = decode(method, msgspec.Raw(params))
        except InvalidError:
            continue
        assert isinstance(request, Record)


keys = st.text(max_size=9)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=9)
    | keys
    | st.sampled_from(["v1", "raid1", "manager", "m1"])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(values, values)
def test_any_hello_or_welcome_is_one_or_an_error(hello: Any, error: Any) -> None:
    for attempt in (
        lambda: decode_hello(raw([hello])),
        lambda: decode_welcome(Response(0, raw(error), raw(hello))),
    ):
        try:
            attempt()
        except VastskyError:
            continue
