"""Who is not root is asked for at polkit: by its name on the bus, about the right kind of act."""

import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from typing import Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageFlag
from dbus_next.message import Message
from dbus_next.signature import Variant

from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.fake_polkit import FakePolkit
from tests.dbus.test_policy import ACTIONS, placeholders
from vastskyd.core import api
from vastskyd.dbus import authority
from vastskyd.dbus.actions import Action
from vastskyd.dbus.interfaces import INTERFACES, MANAGER, OF_KIND
from vastskyd.dbus.paths import BUS_NAME, ROOT, Kind, Place
from vastskyd.dbus.server import DbusServer, serve

DENIED = f"{BUS_NAME}.Error.Denied"
VOLUME = Place(Kind.VOLUME, "data").path
DISK = Place(Kind.DISK, "m1:/dev/sdb").path
ACTION = "org.vastsky.vastsky1."


@pytest.fixture
async def polkit(bus_address: str) -> AsyncIterator[FakePolkit]:
    there = FakePolkit()
    await there.start(bus_address)
    yield there
    await there.stop()


@pytest.fixture
async def server(bus_address: str, cluster: FakeCluster) -> AsyncIterator[DbusServer]:
    """To it nobody is root."""
    running = await serve(cluster, bus_address, trusted=frozenset())
    yield running
    await running.close()


@pytest.fixture
async def bus(bus_address: str, server: DbusServer) -> AsyncIterator[MessageBus]:
    there = await MessageBus(bus_address).connect()
    yield there
    there.disconnect()  # type: ignore[no-untyped-call]
    await there.wait_for_disconnect()  # type: ignore[no-untyped-call]


def interface_of(path: str) -> str:
    place = Place.parse(path)
    return (MANAGER if place is None else OF_KIND[place.kind]).name


async def ask(
    bus: MessageBus, path: str, member: str, signature: str, body: list[Any],
    flags: MessageFlag = MessageFlag.NONE,
) -> Message:  # fmt: skip
    reply = await bus.call(
        Message(
            destination=BUS_NAME, path=path, interface=interface_of(path), member=member,
            signature=signature, body=body, flags=flags,
        )
    )  # fmt: skip
    assert reply is not None
    return reply


TRUE = Variant("b", True)
DATA = {"object": "v1", "name": "data"}
JOB = {"object": "j1", "name": "data"}
SDB = {"object": "m1:/dev/sdb", "name": "m1:/dev/sdb"}
STORE = {"object": "store2", "name": "store2"}
NODE = Place(Kind.NODE, "store2").path
ENROLLED = {"object": "d1", "name": "m1:/dev/sdb"}
ASKED: list[tuple[str, str, str, list[Any], str, dict[str, str]]] = [
    (ROOT, "CreateVolume", "sta{sv}", ["new", 1, {}], "create-volume", {"name": "new"}),
    (ROOT, "CreateVolume", "sta{sv}", ["", 1, {}], "create-volume", {"name": ""}),
    (ROOT, "CreateToken", "asa{sv}", [["head"], {}], "manage-nodes", {}),
    (ROOT, "SetCopiesApart", "sa{sv}", ["host", {}], "change-cluster", {}),
    (ROOT, "InitCluster", "sa{sv}", ["demo", {}], "manage-cluster", {"name": "demo"}),
    (ROOT, "JoinCluster", "sa{sv}", ["vst1.secret", {}], "manage-cluster", {}),
    (ROOT, "BeginRecovery", "a{sv}", [{}], "manage-cluster", {}),
    (ROOT, "FinishRecovery", "a{sv}", [{}], "manage-cluster", {}),
    (NODE, "Remove", "a{sv}", [{}], "manage-nodes", STORE),
    (VOLUME, "Attach", "sa{sv}", ["m1", {}], "attach-volume", DATA),
    (VOLUME, "Attach", "sa{sv}", ["m1", {"force": TRUE}], "destroy-data", DATA),
    (VOLUME, "Detach", "a{sv}", [{}], "attach-volume", DATA),
    (Place(Kind.ATTACHMENT, "v1").path, "Detach", "a{sv}", [{}], "attach-volume", DATA),
    (VOLUME, "Failover", "a{sv}", [{}], "failover-volume", DATA),
    (VOLUME, "SetStandby", "asa{sv}", [["m1"], {}], "change-volume", DATA),
    (VOLUME, "Scrub", "a{sv}", [{}], "change-volume", DATA),
    (VOLUME, "Delete", "a{sv}", [{}], "destroy-data", DATA),
    (VOLUME, "Delete", "a{sv}", [{"dry_run": TRUE}], "destroy-data", DATA),
    (DISK, "Enrol", "a{sv}", [{}], "manage-disks", SDB),
    (DISK, "Enrol", "a{sv}", [{"wipe": TRUE}], "destroy-data", SDB),
    (DISK, "Retire", "a{sv}", [{}], "manage-disks", ENROLLED),
    (Place(Kind.JOB, "j1").path, "Cancel", "a{sv}", [{}], "cancel-job", JOB),
]


def test_every_act_is_among_them() -> None:
    acts = {
        (interface.name, method.name, action)
        for interface in INTERFACES
        for method in interface.methods
        if method.action is not None
        for action in (method.action, Action.DESTROY_DATA if method.destroys else method.action)
    }
    assert {(interface_of(path), member, action) for path, member, *_, action, _ in ASKED} == acts


def test_what_a_dialogue_shows_is_known_of_each_act() -> None:
    """polkit would leave the placeholder as it is."""
    actions = ET.parse(ACTIONS).getroot().findall("action")
    shown = {each.get("id"): placeholders(each.findtext("message", "")) for each in actions}
    for *_, action, details in ASKED:
        assert shown[ACTION + action] <= set(details), action


@pytest.mark.parametrize(("path", "member", "signature", "body", "action", "details"), ASKED)
async def test_each_kind_of_act_is_asked_about(
    bus: MessageBus, polkit: FakePolkit, cluster: FakeCluster, path: str, member: str,
    signature: str, body: list[Any], action: str, details: dict[str, str],
) -> None:  # fmt: skip
    reply = await ask(bus, path, member, signature, body)
    assert reply.error_name == DENIED
    assert ACTION + action in reply.body[0]
    assert polkit.asked == [(str(bus.unique_name), ACTION + action, details, 0)]
    assert not cluster.changes()
    polkit.answer = (True, False)
    assert (await ask(bus, path, member, signature, body)).error_name is None
    assert len(cluster.changes()) == 1


async def test_what_is_done_is_what_was_asked_about(
    bus: MessageBus, polkit: FakePolkit, cluster: FakeCluster
) -> None:
    """By its id, whatever the caller called it: names can change hands meanwhile."""
    polkit.answer = (True, False)
    enrolled = Place(Kind.DISK, "m1:/dev/sdb").path
    await ask(bus, VOLUME, "Delete", "a{sv}", [{}])
    await ask(bus, enrolled, "Retire", "a{sv}", [{}])
    assert [details for _, _, details, _ in polkit.asked] == [
        DATA, {"object": "d1", "name": "m1:/dev/sdb"},
    ]  # fmt: skip
    delete, retire = cluster.changes()
    assert isinstance(delete, api.DeleteVolume)
    assert isinstance(retire, api.RetireDisk)
    assert (delete.volume, retire.disk) == ("v1", "d1")
    gone = Place(Kind.VOLUME, "none").path
    reply = await ask(bus, gone, "Delete", "a{sv}", [{}])
    assert reply.error_name == f"{BUS_NAME}.Error.NotFound"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("m1:/dev/\0", "m1:/dev/\ufffd"),
        ("m1:/dev/\x1b[2J\nsdb\u202e", "m1:/dev/\ufffd[2J\ufffdsdb\ufffd"),
        ("m1:/dev/Größe 1", "m1:/dev/Größe 1"),
        ("m1:/dev/" + "x" * 5000, "m1:/dev/" + "x" * 248 + "…"),
    ],
)
async def test_a_name_is_text_before_anybody_sees_it(
    bus: MessageBus, polkit: FakePolkit, name: str, shown: str
) -> None:
    """For a NUL byte the bus would cut vastskyd off, and all its callers with it."""
    reply = await ask(bus, Place(Kind.DISK, name).path, "Enrol", "a{sv}", [{}])
    assert reply.error_name == DENIED
    assert [details for _, _, details, _ in polkit.asked] == [{"object": shown, "name": shown}]


async def test_reading_asks_nobody(bus: MessageBus, polkit: FakePolkit) -> None:
    for member in ("Status", "ListVolumes", "ListJobs", "Local", "ShowRecovery"):
        assert (await ask(bus, ROOT, member, "a{sv}", [{}])).error_name is None
    assert not polkit.asked


async def test_a_person_is_asked_only_if_the_caller_has_one(
    bus: MessageBus, polkit: FakePolkit
) -> None:
    """The flag allows it; the option says no all the same, and the error says what would do."""
    polkit.answer = (False, True)
    allow = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
    no = {"auth.no_user_interaction": TRUE}
    yes = {"auth.no_user_interaction": Variant("b", False)}
    for flags, options in ((MessageFlag.NONE, {}), (allow, {}), (allow, no), (allow, yes)):
        reply = await ask(bus, VOLUME, "Detach", "a{sv}", [options], flags)
        assert reply.error_name == f"{DENIED}CanObtain"
        assert "password" in reply.body[0]
    assert [flags for *_, flags in polkit.asked] == [0, 1, 0, 1]


async def test_each_refusal_has_its_meaning(bus: MessageBus, polkit: FakePolkit) -> None:
    """Also to who was asked: a dialogue that was closed is no polkit that does not allow it."""
    allow, none = MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION, MessageFlag.NONE
    closed = {"polkit.dismissed": "true"}
    said = []
    for flags, challenge, says in (
        (none, False, {}), (allow, False, {}), (none, True, {}), (allow, False, closed),
    ):  # fmt: skip
        polkit.answer, polkit.says = (False, challenge), says
        reply = await ask(bus, VOLUME, "Detach", "a{sv}", [{}], flags)
        message, _, hint = reply.body[0].partition("\n")
        assert hint
        said.append((reply.error_name.removeprefix(DENIED), message.partition(" (")[0]))
    assert said == [
        ("", "polkit does not allow this"),
        ("", "the password was wrong, or polkit does not allow this at all"),
        ("CanObtain", "this needs an administrator's password, and nobody was asked for it"),
        ("Dismissed", "this needs an administrator's password, and none was given"),
    ]


async def test_who_asked_is_noted(
    bus: MessageBus, polkit: FakePolkit, cluster: FakeCluster
) -> None:
    polkit.answer = (True, False)
    await ask(bus, VOLUME, "Detach", "a{sv}", [{}])
    (asked,) = cluster.changes()
    assert isinstance(asked, api.Act)
    assert asked.asked_by.endswith(" on m1")


async def test_without_polkit_the_error_says_so(bus: MessageBus, cluster: FakeCluster) -> None:
    reply = await ask(bus, VOLUME, "Delete", "a{sv}", [{}])
    assert reply.error_name == DENIED
    assert "polkit" in reply.body[0]
    assert "not running" in reply.body[0]
    assert not cluster.changes()


async def test_a_polkit_that_does_not_answer_is_not_waited_for(
    bus: MessageBus, polkit: FakePolkit, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "POLKIT_TIMEOUT_S", 0.05)
    polkit.silent = True
    reply = await ask(bus, VOLUME, "Delete", "a{sv}", [{}])
    assert reply.error_name == f"{BUS_NAME}.Error.Unreachable"
    assert "polkit did not say" in reply.body[0]
    assert len(polkit.cancelled) == 1  # no dialogue is left behind
    assert not cluster.changes()


@pytest.mark.parametrize("how", ["error", "wrong"])
async def test_an_answer_that_is_none_is_a_no(
    bus: MessageBus, polkit: FakePolkit, cluster: FakeCluster, how: str
) -> None:
    setattr(polkit, how, "org.example.Error.Odd" if how == "error" else True)
    reply = await ask(bus, VOLUME, "Delete", "a{sv}", [{}])
    assert reply.error_name == DENIED
    assert not cluster.changes()


async def test_what_is_malformed_is_not_asked_about(bus: MessageBus, polkit: FakePolkit) -> None:
    reply = await ask(bus, VOLUME, "Delete", "a{sv}", [{"colour": TRUE}])
    assert reply.error_name == f"{BUS_NAME}.Error.Invalid"
    assert not polkit.asked


async def test_root_is_kept_from_nothing_by_polkit(
    bus_address: str, polkit: FakePolkit, cluster: FakeCluster
) -> None:
    polkit.silent = True
    running = await serve(cluster, bus_address)  # who runs the test is who the daemon runs as
    caller = await MessageBus(bus_address).connect()
    try:
        assert (await ask(caller, VOLUME, "Delete", "a{sv}", [{}])).error_name is None
        assert not polkit.asked
    finally:
        caller.disconnect()  # type: ignore[no-untyped-call]
        await running.close()
