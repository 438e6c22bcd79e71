"""The join token: all that a new host needs to find the cluster, trust it, and be let in.

`vsky1-` and base64url, without padding, of a MessagePack array and 4 bytes of its sha256: the
checksum is for broken pastes only. Whoever has the token may join until it expires.
"""

import base64
import hashlib
import hmac
import re
import secrets
from typing import Annotated, Final

import msgspec

from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.errors import InvalidError
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.model import PointInTime, Record, Role

_PREFIX: Final = "vsky1-"
_ANY_VERSION: Final = re.compile(r"vsky\d+-")
_BODY: Final = re.compile(r"[A-Za-z0-9_-]+")
_CHECKSUM_BYTES: Final = 4
_LENGTH_MAX: Final = 4096
_HINT: Final = "copy the whole token again from `vastskyctl cluster token`"

_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Some = msgspec.Meta(min_length=1)


class JoinToken(Record, array_like=True):
    """`manager` is there so that no other node can pose as the manager and get the secret."""

    ca_fingerprint: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    cluster: ClusterId
    manager: NodeId
    addresses: Annotated[tuple[str, ...], _Some]
    port: _Port
    secret: Annotated[str, _Some]
    expires_s: PointInTime
    roles: Annotated[tuple[Role, ...], _Some]

    def __repr__(self) -> str:
        """Without the secret: tokens end in logs otherwise."""
        return f"JoinToken(cluster={self.cluster!r}, manager={self.manager!r}, secret=...)"

    def encode(self) -> str:
        payload = msgspec.msgpack.encode(self)
        body = base64.urlsafe_b64encode(payload + _checksum(payload))
        return _PREFIX + body.decode("ascii").rstrip("=")

    def is_expired(self, now_s: float) -> bool:
        return now_s >= self.expires_s


_DECODER: Final = msgspec.msgpack.Decoder(JoinToken)


def parse_token(text: str) -> JoinToken:
    """The token of what a person pasted; line breaks within are forgiven. InvalidError says
    what is wrong with it."""
    token = "".join(text.split())
    if not token.startswith(_PREFIX):
        if _ANY_VERSION.match(token):
            raise InvalidError(
                "this join token is of another version of vastskyd",
                hint="install the same version as on the manager, which `vastskyd --version`"
                " shows there",
            )
        raise InvalidError("this is not a join token: they begin with vsky1-", hint=_HINT)
    return _decode(token.removeprefix(_PREFIX))


def _decode(body: str) -> JoinToken:
    # base64 passes over characters that are not its own; so they are refused first.
    if len(body) > _LENGTH_MAX or not _BODY.fullmatch(body) or len(body) % 4 == 1:
        raise InvalidError("the join token is incomplete or altered", hint=_HINT)
    content = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    payload, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if checksum != _checksum(payload):
        raise InvalidError("the join token is incomplete or altered", hint=_HINT)
    try:
        return _DECODER.decode(payload)
    except DECODE_ERRORS as error:
        raise InvalidError(f"the join token cannot be read: {error}", hint=_HINT) from error


def new_secret() -> str:
    return secrets.token_urlsafe(24)


def secret_digest(secret: str) -> str:
    """What the manager keeps. The secret is random and long: no salt or stretching is needed."""
    return hashlib.sha256(secret.encode("utf-8")).hexdigest()


def secret_matches(secret: str, digest: str) -> bool:
    return hmac.compare_digest(secret_digest(secret).encode(), digest.encode())


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()[:_CHECKSUM_BYTES]
