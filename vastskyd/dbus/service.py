"""What answers calls on the bus: parse, authorise, submit, answer. It decides nothing.

dbus-next's own dispatch is not used: it does not know the caller, sends tracebacks to strangers
and refuses calls without an interface name. A call comes in here as a message, whatever it is,
and leaves as a reply; every way out is in `Service.reply`.
"""

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from vastskyd.core import api
from vastskyd.core.errors import UnreachableError, VastskyError
from vastskyd.core.model import Encryption, Record, Role
from vastskyd.dbus.errors import ProtocolError, error_reply, internal_error
from vastskyd.dbus.introspection import node_xml
from vastskyd.dbus.messages import Message, Variant
from vastskyd.dbus.methods import BY_NAME, INTERFACE, PATH, PROPERTIES, Method
from vastskyd.dbus.variants import members, signature, value_out

log = logging.getLogger(__name__)

# The caller's unique bus name, for whom a request is being answered.
caller: ContextVar[str] = ContextVar("caller", default="")

_PROPERTIES = "org.freedesktop.DBus.Properties"
_INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
_PEER = "org.freedesktop.DBus.Peer"


class Cluster(Protocol):
    """All that the views need of the program behind them. Errors are those of core.errors."""

    async def ask(self, request: Record) -> Record:
        """Any of api.ADMIN_REQUESTS. Bounded in time (UnreachableError: the manager did not
        answer); ConflictError while this host belongs to no cluster."""

    async def init(
        self,
        name: str,
        addresses: tuple[str, ...],
        rack: str,
        node: str,
        encryption: Encryption | None,
        roles: tuple[Role, ...],
    ) -> api.Initialised:
        """api.InitCluster."""

    async def join(
        self, token: str, addresses: tuple[str, ...], rack: str, node: str, roles: tuple[Role, ...]
    ) -> api.Initialised:
        """api.JoinCluster."""

    def local(self) -> api.LocalView:
        """What this host is, at once and without asking anybody."""


Authorise = Callable[[Method, str], Awaitable[None]]
Reply = tuple[str, list[Any]]  # signature and body


class Service:
    """Answers one message at a time; knows nothing of the connection it came from.

    `authorise` raises DeniedError if the sender may not call the method.
    """

    def __init__(self, cluster: Cluster, authorise: Authorise) -> None:
        self._cluster = cluster
        self._authorise = authorise

    async def reply(self, call: Message) -> Message:
        """The reply or error to send. Nothing is raised, and nothing of our insides is told."""
        caller.set(call.sender or "")
        try:
            kind, body = await self._route(call)
            return Message.new_method_return(call, kind, body)
        except (VastskyError, ProtocolError) as error:
            return error_reply(call, error)
        except TimeoutError:
            return error_reply(call, UnreachableError("no answer in time"))
        except Exception:
            log.exception("%s by %s failed unexpectedly", call.member, call.sender)
            return error_reply(call, internal_error())

    async def _route(self, call: Message) -> Reply:
        """D-Bus allows a call without an interface: it means the member of any."""
        interface = call.interface or _owner(call.member)
        if interface == _PEER:
            return _answer_peer(call)
        xml = node_xml(call.path)
        if xml is None:
            raise ProtocolError("UnknownObject", f"there is no object {call.path}")
        if interface == _INTROSPECTABLE and call.member == "Introspect":
            _check_signature(call, "")
            return "s", [xml]
        if call.path == PATH and interface == _PROPERTIES:
            return self._answer_properties(call)
        if call.path == PATH and interface == INTERFACE and call.member in BY_NAME:
            return await self._answer_method(BY_NAME[call.member], call)
        raise ProtocolError("UnknownMethod", f"{call.path} has no method {interface}.{call.member}")

    async def _answer_method(self, method: Method, call: Message) -> Reply:
        _check_signature(call, method.in_signature)
        if method.changes:
            await self._authorise(method, call.sender or "")
        request = method.parse(call.body)
        answer = await self._submit(request)
        return method.out_signature, method.answer_body(answer)

    async def _submit(self, request: Record) -> Record:
        match request:
            case api.InitCluster():
                return await self._cluster.init(
                    request.name,
                    request.addresses,
                    request.rack,
                    request.node,
                    request.encryption,
                    request.roles,
                )
            case api.JoinCluster():
                return await self._cluster.join(
                    request.token, request.addresses, request.rack, request.node, request.roles
                )
            case _:
                return await self._cluster.ask(request)

    def _answer_properties(self, call: Message) -> Reply:
        expected = {"Get": "ss", "GetAll": "s", "Set": "ssv"}.get(call.member)
        if expected is None:
            raise ProtocolError("UnknownMethod", f"{_PROPERTIES} has no method {call.member}")
        _check_signature(call, expected)
        values = local_properties(self._cluster.local()) if call.body[0] == INTERFACE else {}
        if call.member == "GetAll":
            return "a{sv}", [values]
        name = call.body[1]
        if name not in values:
            raise ProtocolError("UnknownProperty", f"{call.body[0]} has no property {name}")
        if call.member == "Set":
            raise ProtocolError("PropertyReadOnly", f"{name} is read-only")
        return "v", [values[name]]


def local_properties(view: api.LocalView) -> dict[str, Variant]:
    known = members(api.LocalView)
    return {
        name: Variant(signature(known[member].type, member), value_out(getattr(view, member)))
        for name, member, _ in PROPERTIES
    }


def _owner(member: str) -> str:
    if member in BY_NAME:
        return INTERFACE
    if member in ("Get", "GetAll", "Set"):
        return _PROPERTIES
    return _INTROSPECTABLE if member == "Introspect" else _PEER


def _answer_peer(call: Message) -> Reply:
    _check_signature(call, "")
    if call.member == "Ping":
        return "", []
    if call.member == "GetMachineId":
        return "s", [Path("/etc/machine-id").read_text(encoding="ascii").strip()]
    raise ProtocolError("UnknownMethod", f"{_PEER} has no method {call.member}")


def _check_signature(call: Message, expected: str) -> None:
    if call.signature != expected:
        raise ProtocolError(
            "InvalidArgs",
            f"{call.member} takes arguments of type {expected!r}, not {call.signature!r}",
        )
