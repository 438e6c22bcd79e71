"""Who may do what: root all, others what polkit says of them."""

import asyncio
import logging
from enum import Enum, auto
from typing import Protocol

from vastskyd.core.errors import (
    DeniedCanObtainError,
    DeniedDismissedError,
    DeniedError,
    UnreachableError,
)
from vastskyd.dbus.actions import Action
from vastskyd.dbus.messages import Message, MessageBus, MessageType, Variant

log = logging.getLogger(__name__)

BUS_TIMEOUT_S = 10.0
UIDS_KEPT = 1024
POLKIT_TIMEOUT_S = 10.0
PERSON_TIMEOUT_S = 60.0
_POLKIT = "org.freedesktop.PolicyKit1"
_INTERACTIVE = 1
_DISMISSED = "polkit.dismissed"  # among the details of an answer
_ABSENT = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.Spawn.ServiceNotFound",
    "org.freedesktop.DBus.Error.Spawn.ExecFailed",
    "org.freedesktop.systemd1.NoSuchUnit",
    "org.freedesktop.systemd1.Masked",
)


Details = dict[str, str]  # what a rule may look at, and the dialogue shows
DETAIL_MAX = 256


class Verdict(Enum):
    ALLOWED = auto()
    DENIED = auto()
    ASKS = auto()  # a person's password would do, and nobody can be asked for it
    DISMISSED = auto()  # who was asked did not want to
    ABSENT = auto()  # there is nobody who could say


class Authority(Protocol):
    """polkit, or a test's."""

    async def check(
        self, caller: str, action: Action, details: Details, *, interactive: bool
    ) -> Verdict:
        """Whether the connection `caller` may; bounded in time (UnreachableError)."""


class Polkit:
    """Asks about the caller's name on the bus: a PID may be another program's by now."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._asked = 0

    async def check(
        self, caller: str, action: Action, details: Details, *, interactive: bool
    ) -> Verdict:
        self._asked += 1
        cancel = f"vastskyd-{self._asked}"
        body = [
            ["system-bus-name", {"name": Variant("s", caller)}],
            action.id,
            details,
            _INTERACTIVE if interactive else 0,
            cancel,
        ]
        limit_s = PERSON_TIMEOUT_S if interactive else POLKIT_TIMEOUT_S
        try:
            async with asyncio.timeout(limit_s):
                reply = await self._call("CheckAuthorization", "(sa{sv})sa{ss}us", body)
        except TimeoutError:
            await self._cancel(cancel)
            raise UnreachableError(
                f"polkit did not say within {limit_s:.0f} s whether this is allowed",
                hint="`systemctl status polkit` may say why; or run it with sudo: root is not"
                " kept waiting",
            ) from None
        return _verdict(reply)

    async def _cancel(self, cancel: str) -> None:
        """So that no dialogue stays that nobody waits for."""
        try:
            async with asyncio.timeout(1.0):
                await self._call("CancelCheckAuthorization", "s", [cancel])
        except TimeoutError:
            log.warning("polkit does not answer at all")

    async def _call(self, member: str, signature: str, body: list[object]) -> Message | None:
        return await self._bus.call(
            Message(
                destination=_POLKIT,
                path="/org/freedesktop/PolicyKit1/Authority",
                interface=f"{_POLKIT}.Authority",
                member=member,
                signature=signature,
                body=body,
            )
        )


def _verdict(reply: Message | None) -> Verdict:
    if reply is None or reply.message_type is MessageType.ERROR:
        name = "the bus is gone" if reply is None else reply.error_name
        if name in _ABSENT:
            return Verdict.ABSENT
        log.error("polkit does not answer as it should: %s", name)
        return Verdict.DENIED
    if reply.signature != "(bba{ss})":
        log.error("polkit does not answer as it should: %s", reply.signature)
        return Verdict.DENIED
    allowed, challenge, details = reply.body[0]
    if allowed:
        return Verdict.ALLOWED
    if _DISMISSED in details:
        return Verdict.DISMISSED
    return Verdict.ASKS if challenge else Verdict.DENIED


class Gate:
    """`trusted`: the users who may all, without polkit being asked: it may be what is broken."""

    def __init__(
        self, bus: MessageBus, authority: Authority, trusted: frozenset[int] = frozenset({0})
    ) -> None:
        self._bus = bus
        self._authority = authority
        self._trusted = trusted
        self._uids: dict[str, int] = {}

    def trusts(self, uid: int) -> bool:
        return uid in self._trusted

    async def enter(
        self, caller: str, uid: int, action: Action, details: Details, *, interactive: bool
    ) -> None:
        """DeniedError: who is not trusted may not do this."""
        verdict = await self._authority.check(caller, action, details, interactive=interactive)
        if verdict is not Verdict.ALLOWED:
            log.warning("%s by uid %d refused", action.id, uid)
            raise _denied(action, verdict, interactive=interactive)

    async def uid(self, caller: str) -> int:
        """Of the connection `caller`, by the bus, which never gives its name to another."""
        if (known := self._uids.get(caller)) is not None:
            return known
        try:
            async with asyncio.timeout(BUS_TIMEOUT_S):
                reply = await self._bus.call(
                    Message(
                        destination="org.freedesktop.DBus",
                        path="/org/freedesktop/DBus",
                        interface="org.freedesktop.DBus",
                        member="GetConnectionUnixUser",
                        signature="s",
                        body=[caller],
                    )
                )
        except TimeoutError:
            raise UnreachableError("the bus does not say who asks") from None
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            raise DeniedError("the bus does not know who asks")
        (uid,) = reply.body
        if len(self._uids) >= UIDS_KEPT:
            self._uids.clear()
        self._uids[caller] = int(uid)
        return int(uid)


def detail(value: str) -> str:
    """Of a name that is the caller's choice, what can go to polkit and from there to the terminal
    of whoever is asked: for a NUL byte the bus would cut the whole connection, and a terminal obeys
    what is no text."""
    shown = "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value[:DETAIL_MAX]
    )
    return shown + "\N{HORIZONTAL ELLIPSIS}" if len(value) > DETAIL_MAX else shown


def _denied(action: Action, verdict: Verdict, *, interactive: bool) -> DeniedError:
    match verdict:
        case Verdict.ABSENT:
            return DeniedError(
                "only root may do this: polkit, which could allow it to others, is not running",
                hint="run it with sudo, or install polkitd",
            )
        case Verdict.ASKS:
            return DeniedCanObtainError(
                f"this needs an administrator's password, and nobody was asked for it"
                f" ({action.id})",
                hint="run it with sudo, or where somebody can be asked: on a terminal, or where an"
                " authentication agent runs",
            )
        case Verdict.DISMISSED:
            return DeniedDismissedError(
                f"this needs an administrator's password, and none was given ({action.id})",
                hint="run it again and give the password, or run it with sudo",
            )
    if interactive:  # polkit does not say which
        return DeniedError(
            f"the password was wrong, or polkit does not allow this at all ({action.id})",
            hint="run it again if it was the password; else with sudo",
        )
    return DeniedError(f"polkit does not allow this ({action.id})", hint="run it with sudo")
