"""The client side of joining: from a token to a certificate.

Two connections. On the first nothing is trusted: it only fetches the CA's certificate, which
counts if it has the token's fingerprint. The second trusts exactly that CA and talks only to
the manager that the token names; the secret travels on that one.
"""

import asyncio
from dataclasses import dataclass

from vastskyd.core.api import Join, Joined
from vastskyd.core.errors import DamagedError, DeniedError, UnreachableError, VastskyError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record, Role
from vastskyd.wire.ca import (
    NodeKey,
    certificate_pem,
    certified_node,
    check_certificate_key,
    check_issued,
    fingerprint,
    parse_certificate,
)
from vastskyd.wire.dialer import first_stream
from vastskyd.wire.framing import FrameError, Response, decode_message
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.messages import Ca, FetchCa, decode_answer, encode_request
from vastskyd.wire.stream import FrameStream, at, open_stream
from vastskyd.wire.tls import joining_context, unverified_context
from vastskyd.wire.token import JoinToken

_ID = 1


@dataclass(frozen=True)
class Applicant:
    """The host that wants to join, and what it wants to be."""

    node: NodeId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    port: int
    rack: str = ""


async def join(
    token: JoinToken,
    applicant: Applicant,
    key: NodeKey,
    *,
    now_s: float,
    limits: WireLimits | None = None,
) -> Joined:
    """The manager's answer, checked: the certificate is of the token's CA, for this key and for
    the node that was asked for. Nothing is written."""
    bounds = limits or WireLimits()
    stream, ca_pem = await _trusted_stream(token, bounds)
    request = Join(
        secret=token.secret,
        node=applicant.node,
        roles=applicant.roles,
        addresses=applicant.addresses,
        port=applicant.port,
        rack=applicant.rack,
        csr_pem=key.csr_pem(),
    )
    try:
        joined = await _ask(stream, request, bounds)
    except DeniedError as error:
        if token.is_expired(now_s) and not error.hint:
            error.hint = "the token has expired: make a new one with `vastskyctl cluster token`"
        raise
    finally:
        await stream.close()
    if not isinstance(joined, Joined):
        raise TypeError(f"join is answered by {type(joined).__name__}")
    _check_joined(joined, applicant, key, ca_pem)
    return joined


def _check_joined(joined: Joined, applicant: Applicant, key: NodeKey, ca_pem: str) -> None:
    certificate = parse_certificate(joined.certificate_pem)
    check_issued(certificate, parse_certificate(ca_pem))
    check_certificate_key(certificate, key)
    if fingerprint(parse_certificate(joined.ca_pem)) != fingerprint(parse_certificate(ca_pem)):
        raise DamagedError("the manager answered with another CA than it uses")
    if joined.node != applicant.node or certified_node(certificate) != applicant.node:
        raise DamagedError(f"the manager's certificate is not for node {applicant.node}")


async def _trusted_stream(token: JoinToken, limits: WireLimits) -> tuple[FrameStream, str]:
    """A connection to the token's manager, by the first of its addresses that proves to be it,
    and the CA."""
    found: dict[FrameStream, str] = {}

    async def prove(address: str) -> FrameStream:
        ca_pem = await _fetch_ca(token, address, limits)
        context = joining_context(ca_pem)
        stream = await open_stream(address, token.port, context, token.manager, limits)
        found[stream] = ca_pem
        return stream

    try:
        stream = await first_stream(token.addresses, prove, limits.stagger_s)
    except VastskyError as error:
        raise UnreachableError(
            f"the manager cannot be reached: {error.message}",
            hint="`systemctl status vastskyd` on the manager says whether it runs; if so, open"
            f" TCP port {token.port} of {', '.join(token.addresses)} to this host",
        ) from error
    return stream, found[stream]


async def _fetch_ca(token: JoinToken, address: str, limits: WireLimits) -> str:
    """The CA's certificate, alone: whatever else the answer holds must not be trusted."""
    stream = await open_stream(address, token.port, unverified_context(), None, limits)
    try:
        answer = await _ask(stream, FetchCa(), limits)
    finally:
        stream.abort()
    if not isinstance(answer, Ca):
        raise TypeError(f"fetch_ca is answered by {type(answer).__name__}")
    certificate = parse_certificate(answer.ca_pem)
    if fingerprint(certificate) != token.ca_fingerprint:
        raise DeniedError(
            f"{at(address, token.port)} is not the token's cluster: another CA answers there"
        )
    return certificate_pem(certificate)


async def _ask(stream: FrameStream, request: Record, limits: WireLimits) -> Record:
    try:
        async with asyncio.timeout(limits.anonymous_s):
            await stream.send(encode_request(_ID, request, limits.unauthenticated_frame_bytes))
            message = decode_message(await stream.receive(limits.anonymous_s))
    except TimeoutError as error:
        raise UnreachableError("the manager did not answer in time") from error
    if not isinstance(message, Response) or message.id != _ID:
        raise FrameError("something else than an answer")
    return decode_answer(type(request), message)
