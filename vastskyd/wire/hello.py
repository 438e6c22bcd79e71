"""The hello: both sides say who they are, and agree on a version, before anything else."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from vastskyd.core.errors import ConflictError, DeniedError, UnreachableError, VastskyError
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.wire.framing import FrameError, Request, Response, decode_message
from vastskyd.wire.limits import WireLimits
from vastskyd.wire.messages import (
    HELLO_METHOD,
    PROTOCOL_VERSIONS,
    Hello,
    Purpose,
    Welcome,
    decode_hello,
    decode_welcome,
    encode_error,
    encode_hello,
    encode_result,
)
from vastskyd.wire.stream import FrameStream

_HELLO_ID = 0


@dataclass(frozen=True)
class Identity:
    """This node, as it tells its peers."""

    cluster: ClusterId
    node: NodeId
    boot_id: str


@dataclass(frozen=True)
class Peer:
    """The other side of a session. `address` is where its connection comes from or went to."""

    node: NodeId
    boot_id: str
    version: int
    address: str


async def greet(
    stream: FrameStream, me: Identity, node: NodeId, purpose: Purpose, limits: WireLimits
) -> Peer:
    """The dialing side. Raises what the peer answered, or why there is no answer."""
    hello = Hello(
        versions=PROTOCOL_VERSIONS,
        cluster=me.cluster,
        node=me.node,
        boot_id=me.boot_id,
        purpose=purpose,
    )
    try:
        async with asyncio.timeout(limits.hello_s):
            await stream.send(encode_hello(_HELLO_ID, hello, limits.unauthenticated_frame_bytes))
            message = decode_message(await stream.receive(limits.hello_s))
    except TimeoutError as error:
        raise UnreachableError(f"node {node} did not answer the hello") from error
    except UnreachableError as error:
        # In TLS 1.3 a server judges the client's certificate after the client's handshake, and
        # asyncio's closes without telling its verdict.
        raise UnreachableError(
            f"no answer to the hello, {error.message}: perhaps it refused this host's certificate",
            hint=f"`journalctl -u vastskyd` on node {node} says why",
        ) from error
    if not isinstance(message, Response) or message.id != _HELLO_ID:
        raise FrameError("something else than the answer to hello")
    welcome = decode_welcome(message)
    _check_welcome(welcome, me, node)
    stream.trust()
    return Peer(welcome.node, welcome.boot_id, welcome.version, stream.address)


def _check_welcome(welcome: Welcome, me: Identity, node: NodeId) -> None:
    if welcome.node != node:
        raise DeniedError(f"node {node} says that it is {welcome.node}")
    if welcome.cluster != me.cluster:
        raise ConflictError(f"node {node} belongs to cluster {welcome.cluster}")
    if welcome.version not in PROTOCOL_VERSIONS:
        raise ConflictError(f"node {node} chose version {welcome.version}, which was not offered")


async def welcome(
    stream: FrameStream,
    request: Request,
    me: Identity,
    certified: NodeId,
    admit: Callable[[NodeId], bool],
    limits: WireLimits,
) -> tuple[Peer, Purpose]:
    """The accepting side, given the connection's first request. A peer that is refused is told
    why; the error is then raised here too."""
    try:
        hello, version = _accept_hello(request, me, certified, admit)
    except VastskyError as error:
        await stream.send(encode_error(request.id, error, limits.frame_bytes))
        raise
    answer = Welcome(version=version, cluster=me.cluster, node=me.node, boot_id=me.boot_id)
    await stream.send(encode_result(request.id, answer, limits.frame_bytes))
    stream.trust()
    return Peer(hello.node, hello.boot_id, version, stream.address), hello.purpose


def _accept_hello(
    request: Request, me: Identity, certified: NodeId, admit: Callable[[NodeId], bool]
) -> tuple[Hello, int]:
    if request.method != HELLO_METHOD:
        raise DeniedError("the first request must be hello")
    hello = decode_hello(request.params)
    if hello.node != certified:
        raise DeniedError(f"the certificate is of node {certified}, not of {hello.node!r}")
    if hello.cluster != me.cluster:
        raise ConflictError(f"this node belongs to cluster {me.cluster}")
    if not admit(certified):
        raise DeniedError(
            f"node {certified} is not in the cluster any more",
            hint="if the manager's database was rebuilt while it was away, `vastskyctl cluster"
            " recover --again` on the manager's host takes it in",
        )
    common = set(hello.versions) & set(PROTOCOL_VERSIONS)
    if not common:
        raise ConflictError(
            f"no common protocol version: {list(hello.versions)!r:.100} and "
            f"{list(PROTOCOL_VERSIONS)}",
            hint="install the same version of vastskyd on both: `vastskyd --version` shows it",
        )
    return hello, max(common)
