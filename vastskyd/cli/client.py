"""The typed way to the vastskyd of this host: a request of core.api in, its answer out.

Synchronous outside; the event loop within lives as long as the client. dbus-next and asyncio
are imported with this module, so commands import it only when they run.
"""

import asyncio
import sys
from contextlib import nullcontext
from types import TracebackType
from typing import TypeVar

import msgspec

from vastskyd.cli.agent import asking
from vastskyd.core import answers, api
from vastskyd.core.errors import (
    BusyError,
    DeniedError,
    FailedError,
    InvalidError,
    UnreachableError,
)
from vastskyd.core.ids import JobId
from vastskyd.core.model import Record
from vastskyd.core.paging import joined
from vastskyd.dbus.errors import error_in
from vastskyd.dbus.interfaces import OF_KIND, carrier
from vastskyd.dbus.messages import BusType, Message, MessageBus, MessageFlag, MessageType
from vastskyd.dbus.paths import BUS_NAME, NO_OBJECT, ROOT, Place

A = TypeVar("A", bound=Record)

CALL_TIMEOUT_S = 130.0  # vastskyd itself answers, or says why not, before that
ALIVE_TIMEOUT_S = 30.0  # it may be starting, for this very question
_PEER = "org.freedesktop.DBus.Peer"
_DBUS_ERROR = "org.freedesktop.DBus.Error."
# The bus asked systemd to start it, which did not, or not for long.
_NOT_STARTED = (f"{_DBUS_ERROR}Spawn.", "org.freedesktop.systemd1.")
_NOT_RUNNING = UnreachableError(
    "vastskyd is not running on this host", hint="start it with `systemctl start vastskyd`"
)


class Client:
    """Connects at the first question, and again after the connection was lost. `may_ask`: whoever
    sits at this terminal, for a password. `may_start`: vastskyd, where it does not run."""

    def __init__(
        self,
        bus_address: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
        *,
        may_ask: bool = False,
        may_start: bool = True,
    ) -> None:
        self._address = bus_address
        self._timeout_s = timeout_s
        self._may_ask = may_ask and sys.stdin is not None and sys.stdin.isatty()
        self._may_start = may_start
        self._runner = asyncio.Runner()
        self._bus: MessageBus | None = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bus is not None and self._bus.connected:
            self._runner.run(_disconnect(self._bus))
        self._runner.close()

    def ask(self, request: Record, answer: type[A]) -> A:
        """The answer to any request of api.ADMIN_REQUESTS or api.LOCAL_REQUESTS. Raises what
        vastskyd says went wrong, and UnreachableError if it says nothing."""
        _, method = carrier(type(request))
        with asking() if self._may_ask and method.action is not None else nullcontext():
            got = self._runner.run(self._ask(request))
        if not isinstance(got, answer):
            raise TypeError(f"{type(request).__name__} is answered by {type(got).__name__}")
        return got

    async def _ask(self, request: Record) -> Record:
        timeout_s = self._timeout_s + getattr(request, "wait_s", 0.0)
        try:
            async with asyncio.timeout(timeout_s):
                bus = await self._connected()
                answer = await _call(bus, request, self._flags)
                while isinstance(request, api.Paged) and (more := getattr(answer, "next", "")):
                    request = msgspec.structs.replace(request, after=more)
                    answer = joined(answer, await _call(bus, request, self._flags))
                return answer
        except TimeoutError:
            raise UnreachableError(
                f"vastskyd did not answer within {timeout_s:.0f} s: whether it acted is not known",
                hint="`vastskyctl job list` shows whether it goes on, `journalctl -u vastskyd`"
                " what was amiss",
            ) from None

    @property
    def _flags(self) -> MessageFlag:
        flags = MessageFlag.NONE if self._may_start else MessageFlag.NO_AUTOSTART
        if self._may_ask:
            flags |= MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
        return flags

    async def _connected(self) -> MessageBus:
        if self._bus is None or not self._bus.connected:
            try:
                self._bus = MessageBus(self._address, BusType.SYSTEM)
                await self._bus.connect()
            except Exception as error:
                raise UnreachableError(
                    f"the system bus cannot be reached: {error}",
                    hint="`systemctl status dbus` says whether it runs",
                ) from error
            await self._alive(self._bus)
        return self._bus

    async def _alive(self, bus: MessageBus) -> None:
        """Whatever the manager does, vastskyd itself answers that it is there: one that does not
        would have us wait for as long as the longest question may take."""
        try:
            async with asyncio.timeout(min(ALIVE_TIMEOUT_S, self._timeout_s)):
                ping = Message(
                    destination=BUS_NAME,
                    path=ROOT,
                    interface=_PEER,
                    member="Ping",
                    flags=self._flags,
                )
                await _reply(bus, ping)
        except TimeoutError:
            bus.disconnect()  # type: ignore[no-untyped-call]
            raise UnreachableError(
                "vastskyd is there, and does not answer",
                hint="`systemctl status vastskyd` and `journalctl -u vastskyd` say more",
            ) from None
        except BusyError:
            return  # it answers


async def _call(bus: MessageBus, request: Record, flags: MessageFlag) -> Record:
    """The answer to the request, or a page of it. Of a job that was started: its record;
    of a dry run: Done."""
    interface, method = carrier(type(request))
    path = ROOT
    for kind, known in OF_KIND.items():
        if known is interface:
            name = method.name_of(request)
            if not name:
                raise InvalidError(f"the name of the {kind.removesuffix('s')} is empty")
            path = Place(kind, name).path
    call = Message(
        destination=BUS_NAME,
        path=path,
        interface=interface.name,
        member=method.name,
        signature=method.in_signature,
        body=method.call_body(request),
        flags=flags,
    )
    got = await _reply(bus, call)
    if not method.starts_job:
        return method.read_answer(got.body)
    if got.body[0] == NO_OBJECT and getattr(request, "dry_run", False):
        return api.Done()
    started = Place.parse(got.body[0])
    if started is None:
        raise FailedError(f"{method.name} is answered by {got.body[0]}, which is no job")
    shown = await _call(bus, api.ShowJob(job=JobId(started.name)), MessageFlag.NONE)
    if not isinstance(shown, answers.JobList):
        raise TypeError("a job is shown as something else")
    return api.JobStarted(job=shown.jobs[0])


async def _reply(bus: MessageBus, call: Message) -> Message:
    """An error of whatever kind is raised in our words."""
    try:
        reply = await bus.call(call)
    except (OSError, EOFError) as error:
        raise UnreachableError(f"the connection to the system bus broke: {error}") from None
    if reply is None:
        raise UnreachableError("the system bus closed the connection")
    if reply.message_type is not MessageType.ERROR:
        return reply
    said = reply.body[0] if reply.signature.startswith("s") else ""
    raise error_in(reply.error_name, said) or _bus_error(reply.error_name, said, call.member)


def _bus_error(name: str, said: str, member: str) -> Exception:
    """What an error that is not vastskyd's own means to a person."""
    if name.startswith(_NOT_STARTED):
        return _NOT_RUNNING
    match name.removeprefix(_DBUS_ERROR):
        case "ServiceUnknown" | "NameHasNoOwner":
            return _NOT_RUNNING
        case "AccessDenied":
            return DeniedError("only root may do this", hint="run it as root: sudo vastskyctl ...")
        case "LimitsExceeded":
            return BusyError(said, hint="try again, or as root, for whom there is always room")
        case "NoReply" | "Disconnected" | "Timeout":
            return UnreachableError(
                "vastskyd ended before it answered: whether it acted is not known",
                hint="`vastskyctl job list` shows whether it did, `journalctl -u vastskyd` why"
                " it ended",
            )
        case "UnknownMethod" | "UnknownInterface" | "UnknownObject" | "InvalidArgs":
            return FailedError(
                f"the running vastskyd does not understand {member}",
                hint="after an upgrade, restart it: `systemctl restart vastskyd`",
            )
    return FailedError(f"{name}: {said}")


async def _disconnect(bus: MessageBus) -> None:
    bus.disconnect()  # type: ignore[no-untyped-call]
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
