"""The protocol's own messages, and how typed requests, answers and errors become bytes.

Requests of the cluster are the types of `core.api`. Here are those that only sessions use:
the hello, the heartbeat, and the question for the CA before a host joins.
"""

from enum import StrEnum
from typing import Any, Final

import msgspec

from vastskyd.core.api import ANSWERS, BY_METHOD, JOIN_REQUESTS, method_of
from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.errors import (
    TEXT_LENGTH_MAX,
    FailedError,
    InvalidError,
    VastskyError,
    from_code,
)
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import Record
from vastskyd.wire.framing import Response, encode_frame

PROTOCOL_VERSIONS: Final = (1,)
HEARTBEAT_METHOD: Final = "heartbeat"
HELLO_METHOD: Final = "hello"

_NIL: Final = b"\xc0"
SAME_VERSION: Final = "`vastskyd --version` on each host: all should run the same"


class Purpose(StrEnum):
    """Why a node connects: to stay, or only to see whether the other side lives."""

    SESSION = "session"
    PROBE = "probe"


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The first request on a connection, by who dialed. Unlike all other types it lets unknown
    members pass, so that a later version may add some and still agree on this one."""

    versions: tuple[int, ...]
    cluster: ClusterId
    node: NodeId
    boot_id: str
    purpose: Purpose


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to Hello: `version` is the one that both speak from now on."""

    version: int
    cluster: ClusterId
    node: NodeId
    boot_id: str


class FetchCa(Record):
    """Of a host without a certificate: the CA, to compare with the token's fingerprint.
    Answer: Ca."""


class Ca(Record):
    ca_pem: str


def _params_decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(tuple[kind])


_ENCODER: Final = msgspec.msgpack.Encoder()
_ERROR: Final = msgspec.msgpack.Decoder(tuple[str, str, str])
_HELLO: Final = _params_decoder(Hello)
_WELCOME: Final = msgspec.msgpack.Decoder(Welcome)
_SESSION_PARAMS: Final = {
    method: _params_decoder(kind) for method, kind in BY_METHOD.items() if kind not in JOIN_REQUESTS
}
_ANONYMOUS_ANSWERS: Final[dict[type[Record], type[Record]]] = {**JOIN_REQUESTS, FetchCa: Ca}
_ANONYMOUS_PARAMS: Final = {method_of(kind): _params_decoder(kind) for kind in _ANONYMOUS_ANSWERS}
_RESULTS: Final[dict[type[Record], msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(answer)
    for kind, answer in {**ANSWERS, **_ANONYMOUS_ANSWERS}.items()
}


def is_anonymous_method(method: str) -> bool:
    return method in _ANONYMOUS_PARAMS


def encode_request(message_id: int, request: Record, limit_bytes: int) -> bytes:
    """The frame of a request; InvalidError if it cannot be one."""
    if type(request) not in _RESULTS:
        raise InvalidError(f"{type(request).__name__} is not a request")
    return _encode([0, message_id, method_of(type(request)), [request]], limit_bytes)


def encode_hello(message_id: int, hello: Hello, limit_bytes: int) -> bytes:
    return _encode([0, message_id, HELLO_METHOD, [hello]], limit_bytes)


def encode_result(message_id: int, result: msgspec.Struct, limit_bytes: int) -> bytes:
    return _encode([1, message_id, None, result], limit_bytes)


def encode_error(message_id: int, error: VastskyError, limit_bytes: int) -> bytes:
    message, hint = error.message[:TEXT_LENGTH_MAX], error.hint[:TEXT_LENGTH_MAX]
    return _encode([1, message_id, [error.code, message, hint], None], limit_bytes)


def encode_heartbeat() -> bytes:
    return _encode([2, HEARTBEAT_METHOD, []], limit_bytes=64)


def _encode(message: list[Any], limit_bytes: int) -> bytes:
    try:
        payload = _ENCODER.encode(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidError(f"cannot be sent: {error}") from error
    return encode_frame(payload, limit_bytes)


def decode_session_request(method: str, params: msgspec.Raw) -> Record:
    """A cluster member's request. InvalidError names what is wrong."""
    return _decode_params(_SESSION_PARAMS, method, params)


def decode_anonymous_request(method: str, params: msgspec.Raw) -> Record:
    return _decode_params(_ANONYMOUS_PARAMS, method, params)


def _decode_params(
    decoders: dict[str, msgspec.msgpack.Decoder[Any]], method: str, params: msgspec.Raw
) -> Record:
    decoder = decoders.get(method)
    if decoder is None:
        raise InvalidError(f"there is no request {method!r} here", hint=SAME_VERSION)
    try:
        (request,) = decoder.decode(params)
    except DECODE_ERRORS as error:
        raise InvalidError(f"{method}: {error}") from error
    if not isinstance(request, Record):
        raise TypeError(f"{method} decodes to {type(request).__name__}")
    return request


def decode_hello(params: msgspec.Raw) -> Hello:
    try:
        (hello,) = _HELLO.decode(params)
    except DECODE_ERRORS as error:
        raise InvalidError(f"hello: {error}") from error
    if not isinstance(hello, Hello):
        raise TypeError(f"hello decodes to {type(hello).__name__}")
    return hello


def decode_welcome(response: Response) -> Welcome:
    """Raises the error that the peer answered with."""
    _raise_error(response)
    try:
        return _WELCOME.decode(response.result)
    except DECODE_ERRORS as error:
        raise FailedError(f"the answer to hello cannot be read: {error}") from error


def decode_answer(request: type[Record], response: Response) -> Record:
    """The typed answer; raises the error that the peer answered with."""
    _raise_error(response)
    try:
        answer = _RESULTS[request].decode(response.result)
    except DECODE_ERRORS as error:
        raise FailedError(
            f"the answer to {method_of(request)} cannot be read: {error}",
            hint=SAME_VERSION,
        ) from error
    if not isinstance(answer, Record):
        raise TypeError(f"{method_of(request)} is answered by {type(answer).__name__}")
    return answer


def _raise_error(response: Response) -> None:
    if bytes(response.error) == _NIL:
        return
    try:
        code, message, hint = _ERROR.decode(response.error)
    except DECODE_ERRORS as error:
        raise FailedError(f"the peer's error cannot be read: {error}") from error
    raise from_code(code, message, hint)
