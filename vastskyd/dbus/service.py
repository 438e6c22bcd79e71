"""What answers calls on the bus: parse, authorise, submit, answer. It decides nothing.

dbus-next's own dispatch is not used: it does not know the caller, sends tracebacks to strangers
and refuses calls without an interface name. A call comes in here as a message, whatever it is,
and leaves as a reply; every way out is in `Service.reply`.
"""

import logging
from pathlib import Path
from typing import Any

import msgspec

from vastskyd.core import api
from vastskyd.core.errors import FailedError, UnreachableError, VastskyError
from vastskyd.core.model import Record
from vastskyd.dbus.authority import Details, Gate, detail
from vastskyd.dbus.cluster import Cluster
from vastskyd.dbus.errors import ProtocolError, error_reply, internal_error
from vastskyd.dbus.interfaces import MANAGER, OF_KIND, question
from vastskyd.dbus.introspection import object_xml, root_xml, way_xml
from vastskyd.dbus.jobs import JobWatch
from vastskyd.dbus.messages import Message, MessageFlag, Variant
from vastskyd.dbus.own import OwnObjects
from vastskyd.dbus.paths import ROOT, Kind, Place, called, place_of
from vastskyd.dbus.table import Interface, Method
from vastskyd.dbus.variants import members

log = logging.getLogger(__name__)

_PROPERTIES = "org.freedesktop.DBus.Properties"
_INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
_OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
_PEER = "org.freedesktop.DBus.Peer"

Reply = tuple[str, list[Any]]  # signature and body


class Service:
    """Answers one message at a time; knows nothing of the connection it came from."""

    def __init__(self, cluster: Cluster, own: OwnObjects, jobs: JobWatch, gate: Gate) -> None:
        self._cluster = cluster
        self._own = own
        self._jobs = jobs
        self._gate = gate

    async def reply(self, call: Message) -> Message:
        """The reply or error to send. Nothing is raised, and nothing of our insides is told."""
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
        place = Place.parse(call.path)
        ours = OF_KIND[place.kind] if place is not None else MANAGER
        interface = call.interface or _owner(ours, call.member)
        if interface == _PEER:
            return _answer_peer(call)
        if interface == _INTROSPECTABLE and call.member == "Introspect":
            _check_signature(call, "")
            return "s", [await self._introspect(call.path, place)]
        if place is None and call.path != ROOT:
            self._check_way(call.path)
        elif interface == _PROPERTIES:
            return await self._answer_properties(ours, place, call)
        elif interface == _OBJECT_MANAGER and place is None and call.member == "GetManagedObjects":
            _check_signature(call, "")
            return "a{oa{sa{sv}}}", [self._own.managed()]
        elif interface == ours.name and (method := ours.method(call.member)) is not None:
            return await self._answer_method(method, place, call)
        raise ProtocolError("UnknownMethod", f"{call.path} has no method {interface}.{call.member}")

    # --- objects ------------------------------------------------------------------------

    def _check_way(self, path: str) -> None:
        if way_xml(path, self._own.paths()) is None:
            raise _no_object(path)

    async def _introspect(self, path: str, place: Place | None) -> str:
        if path == ROOT:
            return root_xml()
        if place is None:
            xml = way_xml(path, self._own.paths())
            if xml is None:
                raise _no_object(path)
            return xml
        announced = self._own.get(place) is not None
        await self._record(place)  # is there such a thing?
        return object_xml(place, announced=announced)

    async def _record(self, place: Place) -> Record:
        """What the object is: the host's own as it was told, another as the manager says."""
        own = self._own.get(place)
        if own is not None:
            return own
        asked = question(place)
        if asked is None:
            raise _no_object(place.path)
        answer = await self._cluster.ask(asked)
        (found,) = getattr(answer, next(iter(members(type(answer)))))
        if not isinstance(found, OF_KIND[place.kind].record):
            raise FailedError(f"{place.path} is shown as something else")
        return found

    # --- methods ------------------------------------------------------------------------

    async def _answer_method(self, method: Method, place: Place | None, call: Message) -> Reply:
        _check_signature(call, method.in_signature)
        name = "" if place is None else place.name
        if place is not None and place.kind is Kind.ATTACHMENT and self._own.get(place) is None:
            raise _no_object(place.path)
        request = method.parse(call.body, name).request
        if method.action is not None:
            request = await self._authorised(method, place, call)
        answer = await self._submit(request)
        if isinstance(answer, api.JobStarted) and answer.job.id:
            self._jobs.track(answer.job)
        return method.out_signature, method.answer_body(answer)

    async def _authorised(self, method: Method, place: Place | None, call: Message) -> Record:
        """What the call asks for, by somebody who may. Whoever polkit is asked about acts on the
        object that it was asked about, and not on what has that name a moment later."""
        caller = call.sender or ""
        asked = method.parse(call.body, "" if place is None else place.name)
        action = method.action_for(asked.request)
        uid = await self._gate.uid(caller)
        if action is not None and not self._gate.trusts(uid):
            settled, details = await self._settle(method, place, asked.request)
            asked = method.parse(call.body, settled)
            may_ask = bool(call.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
            await self._gate.enter(
                caller, uid, action, details, interactive=may_ask and not asked.silent
            )
        log.info("%s of %s by uid %d", method.name, call.path, uid)
        if isinstance(asked.request, api.Act):
            return msgspec.structs.replace(asked.request, asked_by=self._words(uid))
        return asked.request

    async def _settle(
        self, method: Method, place: Place | None, request: Record
    ) -> tuple[str, Details]:
        """The object's id, and what polkit is told of it. What is not enrolled has no id."""
        if place is None:
            name = getattr(request, "name", None)
            return "", {} if name is None else {"name": detail(name)}
        if len(method.target) > 1:
            return place.name, _details(place.name, place.name)
        record = await self._record(place)
        there = place_of(record) or place
        return there.name, _details(there.name, called(record) or there.name)

    def _words(self, uid: int) -> str:
        who = f"uid {uid}" if uid else "root"
        return f"{who} on {self._cluster.local().node}"

    async def _submit(self, request: Record) -> Record:
        match request:
            case api.ShowLocal():
                return self._cluster.local()
            case api.ShowJob():
                return await self._jobs.show(request)
            case api.InitCluster():
                return await self._cluster.init(request)
            case api.JoinCluster():
                return await self._cluster.join(
                    request.token, request.addresses, request.rack, request.node, request.roles
                )
        return await self._cluster.ask(request)

    # --- properties ---------------------------------------------------------------------

    async def _answer_properties(
        self, ours: Interface, place: Place | None, call: Message
    ) -> Reply:
        """Without an interface's name it is the property of any; the standard ones have none."""
        expected = {"Get": "ss", "GetAll": "s", "Set": "ssv"}.get(call.member)
        if expected is None:
            raise ProtocolError("UnknownMethod", f"{_PROPERTIES} has no method {call.member}")
        _check_signature(call, expected)
        interface = call.body[0]
        if interface not in ("", ours.name, *_standard(place)):
            raise ProtocolError("UnknownInterface", f"{call.path} has no interface {interface}")
        values: dict[str, Variant] = {}
        if interface in ("", ours.name):
            record = self._cluster.local() if place is None else await self._record(place)
            values = ours.values(record)
        if call.member == "GetAll":
            return "a{sv}", [values]
        name = call.body[1]
        if name not in values:
            raise ProtocolError(
                "UnknownProperty", f"{interface or ours.name} has no property {name}"
            )
        if call.member == "Set":
            raise ProtocolError("PropertyReadOnly", f"{name} is read-only")
        return "v", [values[name]]


def _details(object_: str, name: str) -> Details:
    return {"object": detail(object_), "name": detail(name)}


def _no_object(path: str) -> ProtocolError:
    return ProtocolError("UnknownObject", f"there is no object {path}")


def _standard(place: Place | None) -> tuple[str, ...]:
    """What such an object has besides its own interface."""
    everywhere = (_PROPERTIES, _INTROSPECTABLE, _PEER)
    return (*everywhere, _OBJECT_MANAGER) if place is None else everywhere


def _owner(ours: Interface, member: str) -> str:
    if ours.method(member) is not None:
        return ours.name
    if member in ("Get", "GetAll", "Set"):
        return _PROPERTIES
    if member == "GetManagedObjects":
        return _OBJECT_MANAGER
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
