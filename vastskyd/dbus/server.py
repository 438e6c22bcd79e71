"""The connection to the bus: its name, the calls in flight, its end."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from vastskyd.core.errors import ConflictError, UnreachableError, VastskyError
from vastskyd.dbus.authority import Authority, Gate, Polkit
from vastskyd.dbus.cluster import Cluster
from vastskyd.dbus.errors import ProtocolError, error_reply, internal_error
from vastskyd.dbus.inflight import InFlight
from vastskyd.dbus.jobs import JobWatch
from vastskyd.dbus.messages import (
    BusType,
    Message,
    MessageBus,
    MessageFlag,
    MessageType,
    NameFlag,
    RequestNameReply,
    SignatureTree,
)
from vastskyd.dbus.mirror import Mirror
from vastskyd.dbus.own import OwnObjects
from vastskyd.dbus.paths import BUS_NAME
from vastskyd.dbus.service import Service

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 120.0  # a last bound; every request has a tighter one of its own
BUS_TIMEOUT_S = 10.0
DBUS = "org.freedesktop.DBus"
WAIT = "Wait"
_GONE = f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg2=''"
MAX_SIGNATURES = 1000
MIRROR_RETRY_S = 5.0


class DbusServer:
    """One connection that owns our name. Made by `serve`."""

    def __init__(
        self, bus: MessageBus, cluster: Cluster, authority: Authority, trusted: frozenset[int]
    ) -> None:
        self._bus = bus
        own = OwnObjects(self._emit)
        self._jobs = JobWatch(cluster, own)
        self._mirror = Mirror(cluster, own, self._jobs)
        self._gate = Gate(bus, authority, trusted)
        self._service = Service(cluster, own, self._jobs, self._gate)
        self._mirroring: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._waits: dict[str, set[asyncio.Task[None]]] = {}  # by who waits
        self._in_flight = InFlight()
        bus.add_message_handler(self._on_message)

    def start(self) -> None:
        """From here on what changes is told."""
        self._mirror.look()
        self._mirroring = asyncio.create_task(self._keep_mirror(), name="mirror")

    async def close(self) -> None:
        """Give the name back, drop the calls in flight, disconnect. Callers of dropped calls
        are told by the bus."""
        tasks = [*self._calls] if self._mirroring is None else [*self._calls, self._mirroring]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._jobs.close()
        if self._bus.connected:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._bus.release_name(BUS_NAME), BUS_TIMEOUT_S)
            self._bus.disconnect()  # type: ignore[no-untyped-call]
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Returns when the connection is gone, by `close` or by the bus."""
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def _on_message(self, message: Message) -> bool | None:
        """True: dbus-next has nothing more to do with it."""
        if message.message_type is MessageType.SIGNAL:
            self._hear(message)
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        if len(SignatureTree._cache) > MAX_SIGNATURES:
            SignatureTree._cache.clear()  # a caller can think up endless signatures
        sender = message.sender or ""
        try:
            self._in_flight.come(sender)
        except ProtocolError as error:
            self._send(message, error_reply(message, error))
            return True
        task = asyncio.get_running_loop().create_task(self._answer(message, sender))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        if message.member == WAIT:
            self._waits.setdefault(sender, set()).add(task)
            task.add_done_callback(lambda ended: self._waited(sender, ended))
        return True

    def _waited(self, sender: str, ended: asyncio.Task[None]) -> None:
        self._waits[sender].discard(ended)
        if not self._waits[sender]:
            del self._waits[sender]

    def _hear(self, signal: Message) -> None:
        """Who has gone waits no more. What else he asked for is done: half a join helps nobody."""
        if signal.sender == DBUS and signal.member == "NameOwnerChanged":
            for task in self._waits.get(signal.body[0], ()):
                task.cancel()

    async def _answer(self, call: Message, sender: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                reply = await self._reply(call, sender)
            self._send(call, reply)
        except TimeoutError:
            self._send(call, error_reply(call, UnreachableError("no answer in time")))
        finally:
            self._in_flight.gone(sender)

    async def _reply(self, call: Message, sender: str) -> Message:
        try:
            uid = await self._gate.uid(sender)
            with self._in_flight.of_user(uid, is_root=self._gate.trusts(uid)):
                return await self._service.reply(call)
        except (VastskyError, ProtocolError) as error:
            return error_reply(call, error)

    def _send(self, call: Message, reply: Message) -> None:
        if call.flags & MessageFlag.NO_REPLY_EXPECTED or not self._bus.connected:
            return
        try:
            sent = self._bus.send(reply)
        except Exception:  # it does not fit its signature, say: a fault of ours
            log.exception("the answer to %s cannot be sent", call.member)
            sent = self._bus.send(error_reply(call, internal_error()))
        sent.add_done_callback(lambda done: done.exception())  # the connection's end, if any

    def _emit(self, signal: Message) -> None:
        if not self._bus.connected:
            return
        try:
            sent = self._bus.send(signal)
        except Exception:  # as above
            log.exception("the signal %s of %s cannot be sent", signal.member, signal.path)
        else:
            sent.add_done_callback(lambda done: done.exception())

    async def _keep_mirror(self) -> None:
        """Until cancelled. A fault in telling must not end answering."""
        while True:
            try:
                await self._mirror.run()
            except Exception:
                log.exception("what is new on this host cannot be told")
            await asyncio.sleep(MIRROR_RETRY_S)


def _listening(rule: str) -> Message:
    return Message(
        destination=DBUS,
        path="/org/freedesktop/DBus",
        interface=DBUS,
        member="AddMatch",
        signature="s",
        body=[rule],
    )


async def serve(
    cluster: Cluster,
    bus_address: str | None = None,
    trusted: frozenset[int] | None = None,
) -> DbusServer:
    """Connect, and answer under our name. Without an address: the system bus, where
    DBUS_SYSTEM_BUS_ADDRESS may say which. `trusted`: who may all without polkit; unless said
    otherwise root, and who vastskyd runs as. ConflictError: the name is taken; UnreachableError:
    no bus, or it does not let us have the name."""
    try:
        bus = MessageBus(bus_address or "", BusType.SYSTEM)
    except Exception as error:
        raise UnreachableError(f"the system bus: {error}") from error
    try:
        await asyncio.wait_for(bus.connect(), BUS_TIMEOUT_S)
    except Exception as error:
        bus.abandon()
        raise UnreachableError(f"the system bus: {str(error) or 'no answer in time'}") from error
    users = frozenset({0, os.geteuid()}) if trusted is None else trusted
    server = DbusServer(bus, cluster, Polkit(bus), users)
    server.start()
    try:
        await asyncio.wait_for(bus.call(_listening(_GONE)), BUS_TIMEOUT_S)
        taken = await asyncio.wait_for(
            bus.request_name(BUS_NAME, NameFlag.DO_NOT_QUEUE), BUS_TIMEOUT_S
        )
    except Exception as error:
        await server.close()
        raise UnreachableError(f"the system bus refuses {BUS_NAME}: {error}") from error
    if taken is not RequestNameReply.PRIMARY_OWNER:
        await server.close()
        raise ConflictError(
            f"{BUS_NAME} is taken on the bus", hint=f"`busctl status {BUS_NAME}` shows by whom"
        )
    return server


async def keep_serving(
    cluster: Cluster,
    bus_address: str | None = None,
    retry_s: float = 5.0,
    tried: Callable[[], object] = lambda: None,
) -> None:
    """Serve until cancelled, through restarts of the bus: vastskyd does not need it to live.
    `tried` is called after each attempt."""
    failed = ""
    while True:
        try:
            server = await serve(cluster, bus_address)
        except (UnreachableError, ConflictError) as error:
            if error.message != failed:  # once, not every few seconds
                log.error("no D-Bus: %s", error.message)
            failed = error.message
            tried()
        else:
            failed = ""
            tried()
            try:
                await server.wait_closed()
            finally:
                await server.close()
            log.warning("the system bus closed the connection")
        await asyncio.sleep(retry_s)
