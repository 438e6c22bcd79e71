"""Real calls over a real bus: every method, every error, and nothing of our insides."""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from tests.dbus.conftest import Call
from tests.dbus.fake_cluster import DISKS, JOIN, NODES, STATUS, VOLUMES, FakeCluster, job
from vastskyd.core import answers, api
from vastskyd.core.errors import BY_CODE, ConflictError, UnreachableError, from_code
from vastskyd.core.ids import JobId, NodeId
from vastskyd.core.model import Encryption, Job, JobState, Layout, Record, Role
from vastskyd.dbus.inflight import MAX_CALLS_EACH
from vastskyd.dbus.interfaces import MANAGER, OF_KIND
from vastskyd.dbus.paths import BUS_NAME, ROOT, Kind, Place
from vastskyd.dbus.server import DbusServer, keep_serving, serve
from vastskyd.dbus.variants import plain, record_in, record_out

PROJECT = Path(__file__).resolve().parents[2]
VOLUME = Place(Kind.VOLUME, "data")
CANDIDATE = Place(Kind.DISK, "m1:/dev/sdb")
WHO = "root on m1"
JOB = Place(Kind.JOB, "j1").path
ERROR = "org.vastsky.Vastsky1.Error."
DBUS_ERROR = "org.freedesktop.DBus.Error."
MANAGED = "org.freedesktop.DBus.ObjectManager"


def error(reply: Message) -> tuple[str, str]:
    assert reply.message_type is MessageType.ERROR, reply.body
    return reply.error_name, reply.body[0]


def value(reply: Message) -> Any:
    assert reply.message_type is MessageType.METHOD_RETURN, (reply.error_name, reply.body)
    return reply.body[0]


def options(**values: Variant) -> dict[str, Variant]:
    return values


CHANGES: list[tuple[Place | None, str, str, list[Any], Record]] = [
    (None, "CreateVolume", "sta{sv}", ["data", 2**40, {}],
     api.CreateVolume(name="data", size_bytes=2**40, asked_by=WHO)),
    (None, "CreateVolume", "sta{sv}",
     ["data", 5, options(copies=Variant("i", 3), layout=Variant("s", "linear"),
                         idempotency_key=Variant("s", "k"))],
     api.CreateVolume(name="data", size_bytes=5, copies=3, layout=Layout.LINEAR,
                      idempotency_key="k", asked_by=WHO)),
    (VOLUME, "Delete", "a{sv}", [{}], api.DeleteVolume(volume="data", asked_by=WHO)),
    (VOLUME, "Attach", "sa{sv}", ["m1", options(force=Variant("b", True))],
     api.AttachVolume(volume="data", head=NodeId("m1"), force=True, asked_by=WHO)),
    (VOLUME, "Detach", "a{sv}", [{}], api.DetachVolume(volume="data", asked_by=WHO)),
    (VOLUME, "Failover", "a{sv}", [options(head=Variant("s", "h2"))],
     api.FailoverVolume(volume="data", head="h2", asked_by=WHO)),
    (VOLUME, "Scrub", "a{sv}", [{}], api.ScrubVolume(volume="data", asked_by=WHO)),
    (Place(Kind.ATTACHMENT, "v1"), "Detach", "a{sv}", [{}],
     api.DetachVolume(volume="v1", asked_by=WHO)),
    (CANDIDATE, "Enrol", "a{sv}", [options(wipe=Variant("b", True))],
     api.EnrolDisk(node=NodeId("m1"), path="/dev/sdb", wipe=True, asked_by=WHO)),
    (Place(Kind.DISK, "d1"), "Retire", "a{sv}", [{}], api.RetireDisk(disk="d1", asked_by=WHO)),
]  # fmt: skip


@pytest.mark.parametrize(("place", "member", "signature", "body", "request_"), CHANGES)
async def test_changes_start_a_job(
    call: Call,
    cluster: FakeCluster,
    place: Place | None,
    member: str,
    signature: str,
    body: list[Any],
    request_: Record,
) -> None:
    path = ROOT if place is None else place.path
    interface = (MANAGER if place is None else OF_KIND[place.kind]).name
    assert value(await call(member, signature, body, interface, path)) == JOB
    assert cluster.changes() == (request_,)


async def test_a_dry_run_names_no_job(call: Call, cluster: FakeCluster) -> None:
    body = ["data", 2**40, {"dry_run": Variant("b", True)}]
    assert value(await call("CreateVolume", "sta{sv}", body)) == "/"
    (asked,) = cluster.changes()
    assert isinstance(asked, api.CreateVolume)
    assert asked.dry_run
    assert value(await call("GetManagedObjects", "", [], MANAGED)).keys().isdisjoint({JOB})


async def test_reading(call: Call, cluster: FakeCluster) -> None:
    assert record_in(answers.ClusterStatus, value(await call("Status"))) == STATUS
    assert record_in(answers.LocalView, value(await call("Local"))).node == "m1"
    nodes = value(await call("ListNodes"))
    assert tuple(record_in(answers.NodeView, each) for each in nodes) == NODES
    volumes = value(await call("ListVolumes"))
    assert tuple(record_in(answers.VolumeView, each) for each in volumes) == VOLUMES
    assert [each["object"].value for each in volumes] == [
        Place(Kind.VOLUME, each.id).path for each in VOLUMES
    ]
    assert [each["id"].value for each in value(await call("ListJobs"))] == ["j1"]
    disks = value(await call("ListDisks", body=[{"node": Variant("s", "store2")}]))
    assert [each["path"].value for each in disks] == [DISKS[1].path]
    events = value(await call("ListEvents", body=[{"after": Variant("u", 3)}]))
    assert [each["number"].value for each in events] == [4, 5]
    why = record_in(answers.Placement, value(await call("ExplainPlacement", "ta{sv}", [2**40, {}])))
    assert (why.fits, why.disks[0].reason) == (False, "it is full")


async def test_lists_come_in_pages(call: Call) -> None:
    first = await call("ListVolumes", body=[{"limit": Variant("u", 1)}])
    assert [each["name"].value for each in first.body[0]] == ["data"]
    token = Variant("s", first.body[1])
    second = await call("ListVolumes", body=[{"limit": Variant("u", 1), "after": token}])
    assert [each["name"].value for each in second.body[0]] == ["empty"]
    assert second.body[1] == ""
    assert error(await call("ListVolumes", body=[{"limit": Variant("u", 0)}]))[0] == (
        ERROR + "Invalid"
    )


@pytest.mark.parametrize(
    ("member", "name", "path"),
    [
        ("GetNode", "store2", "nodes/store2"),
        ("GetDisk", "m1:/dev/sdb", "disks/d1"),
        ("GetDisk", "store2:/dev/sdc", "disks/store2_3a_2fdev_2fsdc"),
        ("GetVolume", "data", "volumes/v1"),
        ("GetJob", "j1", "jobs/j1"),
    ],
)
async def test_a_name_becomes_an_object(call: Call, member: str, name: str, path: str) -> None:
    assert value(await call(member, "sa{sv}", [name, {}])) == f"{ROOT}/{path}"
    assert error(await call(member, "sa{sv}", ["none", {}]))[0] == ERROR + "NotFound"


async def test_a_nul_byte_does_not_cost_us_the_bus(call: Call) -> None:
    disks = value(await call("ListDisks"))
    assert disks[0]["serial"].value == "S\N{REPLACEMENT CHARACTER}X"


async def test_waiting_carries_what_was_seen(call: Call, cluster: FakeCluster) -> None:
    seen = {"seen": Variant("a{sv}", record_out(job()))}
    waited = value(await call("Wait", "da{sv}", [2.5, seen], OF_KIND[Kind.JOB].name, JOB))
    assert record_in(Job, waited) == job(state=JobState.DONE)
    assert cluster.asked[-1] == api.ShowJob(job=JobId("j1"), wait_s=2.5, seen=job())


async def test_an_answer_can_be_given_back_as_what_was_seen(
    call: Call, cluster: FakeCluster
) -> None:
    """As it is, with the path that stands beside the record's members."""
    cluster.steps = [job()]
    shown = value(await call("Wait", "da{sv}", [0.0, {}], OF_KIND[Kind.JOB].name, JOB))
    assert shown["object"] == Variant("o", JOB)
    seen = {"seen": Variant("a{sv}", shown)}
    again = await call("Wait", "da{sv}", [0.0, seen], OF_KIND[Kind.JOB].name, JOB)
    assert record_in(Job, value(again)) == job()
    assert cluster.asked[-1] == api.ShowJob(job=JobId("j1"), seen=job())


async def test_others(call: Call, cluster: FakeCluster) -> None:
    valid = {"valid_s": Variant("x", 60)}
    assert value(await call("CreateToken", "asa{sv}", [["head"], valid])) == "vsky1-secret"
    node = Place(Kind.NODE, "store2").path
    assert (await call("Remove", "a{sv}", [{}], OF_KIND[Kind.NODE].name, node)).body == []
    standby = await call("SetStandby", "asa{sv}", [["m1"], {}], OF_KIND[Kind.VOLUME].name,
                         VOLUME.path)  # fmt: skip
    assert standby.body == []
    assert (await call("Cancel", "a{sv}", [{}], OF_KIND[Kind.JOB].name, JOB)).body == []
    made = value(
        await call("InitCluster", "sa{sv}", ["demo", {"encryption": Variant("s", "none")}])
    )
    assert record_in(answers.Initialised, made) == JOIN
    joined = value(await call("JoinCluster", "sa{sv}", ["t", {"roles": Variant("as", ["head"])}]))
    assert record_in(answers.Initialised, joined) == JOIN
    assert cluster.changes() == (
        api.CreateToken(roles=(Role.HEAD,), valid_s=60.0, asked_by=WHO),
        api.RemoveNode(node=NodeId("store2"), asked_by=WHO),
        api.SetStandby(volume="data", heads=(NodeId("m1"),), asked_by=WHO),
        api.CancelJob(job=JobId("j1"), asked_by=WHO),
        api.InitCluster(name="demo", encryption=Encryption.NONE),
        api.JoinCluster(token="t", roles=(Role.HEAD,)),
    )


@pytest.mark.parametrize("code", BY_CODE)
async def test_every_error_comes_with_its_hint(call: Call, cluster: FakeCluster, code: str) -> None:
    cluster.fault = from_code(code, "it is\nso", "do that\nor this")
    assert error(await call("Status")) == (ERROR + code, "it is so\ndo that\nor this")
    cluster.fault = from_code(code, "x" * 10000)
    assert error(await call("Status")) == (ERROR + code, "x" * 4096)


@pytest.mark.parametrize("fault", [KeyError("secret"), AssertionError(), RecursionError("secret")])
async def test_insides_stay_inside(
    call: Call, cluster: FakeCluster, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    cluster.fault = fault
    name, text = error(await call("Status"))
    assert name == ERROR + "Failed"
    assert text.startswith("internal error")
    assert "journal" in text
    assert "Traceback" not in text
    assert "secret" not in text
    assert any(record.exc_info for record in caplog.records)


async def test_an_answer_that_cannot_be_sent_is_our_fault(
    call: Call, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.wrong_answer = answers.EventList(events=())
    assert error(await call("Status"))[0] == ERROR + "Failed"
    cluster.wrong_answer = STATUS.__class__(
        **{name: getattr(STATUS, name) for name in STATUS.__struct_fields__} | {"nodes": 2**70}
    )
    assert error(await call("Status"))[0] == ERROR + "Failed"
    cluster.wrong_answer = None
    assert value(await call("Status"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": Variant("s", "red")}, "no option 'colour'"),
        ({"copies": Variant("s", "2")}, "CreateVolume: copies: expected int, got str"),
        ({"copies": Variant("d", 2.5)}, "copies"),
        ({"layout": Variant("s", "raid7")}, "raid7"),
        ({"layout": Variant("a{sv}", {})}, "layout"),
        ({"name": Variant("s", "b")}, "no option 'name'"),
        ({"asked_by": Variant("s", "root")}, "no option 'asked_by'"),
        ({"auth.no_user_interaction": Variant("s", "yes")}, "auth.no_user_interaction"),
        ({"dry_run": Variant("s", "yes")}, "dry_run"),
    ],
)
async def test_options_are_checked(
    call: Call, cluster: FakeCluster, options: dict[str, Variant], said: str
) -> None:
    name, text = error(await call("CreateVolume", "sta{sv}", ["a", 1, options]))
    assert name == ERROR + "Invalid"
    assert said in text
    assert not cluster.changes()


async def test_wrong_calls_get_the_buss_own_errors(call: Call, cluster: FakeCluster) -> None:
    assert error(await call("CreateVolume", "ss", ["a", "1G"]))[0] == DBUS_ERROR + "InvalidArgs"
    assert error(await call("Frobnicate"))[0] == DBUS_ERROR + "UnknownMethod"
    elsewhere = await call("Status", interface="org.example.Other")
    assert error(elsewhere)[0] == DBUS_ERROR + "UnknownMethod"
    assert error(await call("Status", path="/nowhere"))[0] == DBUS_ERROR + "UnknownObject"
    assert error(await call("Status", path="/org"))[0] == DBUS_ERROR + "UnknownMethod"
    gone = Place(Kind.ATTACHMENT, "v9").path
    nothing = await call("Detach", "a{sv}", [{}], OF_KIND[Kind.ATTACHMENT].name, gone)
    assert error(nothing)[0] == DBUS_ERROR + "UnknownObject"
    enrolled = Place(Kind.DISK, "d1").path
    twice = await call("Enrol", "a{sv}", [{}], OF_KIND[Kind.DISK].name, enrolled)
    assert error(twice)[0] == ERROR + "Invalid"
    assert not cluster.changes()


async def test_a_call_needs_no_interface_name(call: Call) -> None:
    assert value(await call("Status", interface=""))


async def test_properties(call: Call) -> None:
    properties = "org.freedesktop.DBus.Properties"
    everything = plain(value(await call("GetAll", "s", [MANAGER.name], properties)))
    assert everything == {
        "Version": "0.1.0", "Node": "m1", "ClusterName": "demo",
        "Roles": ["manager", "storage", "head"], "Connected": True,
    }  # fmt: skip
    assert plain(value(await call("Get", "ss", [MANAGER.name, "Node"], properties))) == "m1"
    bad = await call("Get", "ss", [MANAGER.name, "Colour"], properties)
    assert error(bad)[0] == DBUS_ERROR + "UnknownProperty"
    fixed = await call("Set", "ssv", [MANAGER.name, "Node", Variant("s", "x")], properties)
    assert error(fixed)[0] == DBUS_ERROR + "PropertyReadOnly"
    assert error(await call("Steal", "", [], properties))[0] == DBUS_ERROR + "UnknownMethod"


async def test_properties_of_any_interface(call: Call) -> None:
    """An empty name is any; a name that the object does not have is an error."""
    properties, path = "org.freedesktop.DBus.Properties", VOLUME.path
    interface = OF_KIND[Kind.VOLUME].name
    named = value(await call("GetAll", "s", [interface], properties, path))
    assert plain(named)["Name"] == "data"
    assert value(await call("GetAll", "s", [""], properties, path)) == named
    assert plain(value(await call("Get", "ss", ["", "Name"], properties, path))) == "data"
    fixed = await call("Set", "ssv", ["", "Name", Variant("s", "x")], properties, path)
    assert error(fixed)[0] == DBUS_ERROR + "PropertyReadOnly"
    bad = await call("Get", "ss", ["", "Colour"], properties, path)
    assert error(bad)[0] == DBUS_ERROR + "UnknownProperty"
    for member, signature, body in (
        ("GetAll", "s", []), ("Get", "ss", ["Name"]), ("Set", "ssv", ["Name", Variant("s", "x")]),
    ):  # fmt: skip
        for unknown in ("org.example", MANAGER.name, MANAGED):
            said = await call(member, signature, [unknown, *body], properties, path)
            assert error(said) == (
                DBUS_ERROR + "UnknownInterface", f"{path} has no interface {unknown}"
            )  # fmt: skip
    gone = Place(Kind.VOLUME, "none").path
    assert error(await call("GetAll", "s", [""], properties, gone))[0] == ERROR + "NotFound"


@pytest.mark.parametrize("standard", ["Properties", "Introspectable", "Peer", "ObjectManager"])
async def test_standard_interfaces_have_no_properties(call: Call, standard: str) -> None:
    properties = "org.freedesktop.DBus.Properties"
    name = f"org.freedesktop.DBus.{standard}"
    assert value(await call("GetAll", "s", [name], properties)) == {}
    assert error(await call("Get", "ss", [name, "Node"], properties))[0] == (
        DBUS_ERROR + "UnknownProperty"
    )


async def test_peer(call: Call) -> None:
    peer = "org.freedesktop.DBus.Peer"
    assert (await call("Ping", "", [], peer)).body == []
    assert error(await call("Pong", "", [], peer))[0] == DBUS_ERROR + "UnknownMethod"


async def test_calls_in_flight_are_bounded(call: Call, cluster: FakeCluster) -> None:
    cluster.gate = asyncio.Event()
    calls = [asyncio.ensure_future(call("Status")) for _ in range(MAX_CALLS_EACH)]
    await cluster.has_been_asked(api.ShowStatus, MAX_CALLS_EACH)
    name, said = error(await call("Status"))
    assert name == DBUS_ERROR + "LimitsExceeded"
    assert said.endswith("wait for their answers")
    cluster.gate.set()
    assert all(value(reply) for reply in await asyncio.gather(*calls))
    assert value(await call("Status"))


async def test_a_full_socket_is_waited_for(
    bus_address: str, call: Call, cluster: FakeCluster
) -> None:
    """More answers at once than a socket takes: none is lost, nor is the connection."""
    cluster.gate = asyncio.Event()
    buses = [await MessageBus(bus_address).connect() for _ in range(8)]
    calls = [asyncio.ensure_future(bus.call(status_call())) for bus in buses for _ in range(100)]
    await cluster.has_been_asked(api.ShowStatus, 8 * MAX_CALLS_EACH)
    cluster.gate.set()
    replies = await asyncio.wait_for(asyncio.gather(*calls), 20)
    names = [reply.error_name for reply in replies if reply is not None]
    assert names.count(DBUS_ERROR + "LimitsExceeded") >= len(calls) - 8 * MAX_CALLS_EACH
    assert set(names) == {None, DBUS_ERROR + "LimitsExceeded"}
    assert value(await call("Status"))
    for bus in buses:
        bus.disconnect()  # type: ignore[no-untyped-call]


def status_call() -> Message:
    return Message(
        destination=BUS_NAME, path=ROOT, interface=MANAGER.name, member="Status",
        signature="a{sv}", body=[{}],
    )  # fmt: skip


async def test_closing_ends_calls_in_flight(
    call: Call, cluster: FakeCluster, server: DbusServer
) -> None:
    cluster.gate = asyncio.Event()
    waiting = asyncio.ensure_future(call("Status"))
    await cluster.has_been_asked(api.ShowStatus)
    await server.close()
    assert error(await waiting)[0] == DBUS_ERROR + "NoReply"


async def test_the_name_is_owned_once(server: DbusServer, bus_address: str) -> None:
    with pytest.raises(ConflictError):
        await serve(FakeCluster(), bus_address)


async def test_a_connection_that_broke_leaves_the_name_to_the_next(
    bus_address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever broke it, on this side: the bus knows, and so there is no second one of us."""
    tried = asyncio.Queue[None]()
    broken: list[MessageBus] = []
    connect = MessageBus.connect

    async def noted(bus: MessageBus) -> MessageBus:
        broken.append(bus)
        await connect(bus)
        return bus

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MessageBus, "connect", noted)
        serving = asyncio.create_task(
            keep_serving(FakeCluster(), bus_address, 0.01, lambda: tried.put_nowait(None))
        )
        try:
            async with asyncio.timeout(10):
                await tried.get()
                broken[0]._finalize(ConnectionError("as if"))  # type: ignore[no-untyped-call]
                await tried.get()
            assert len(broken) == 2
            assert "taken on the bus" not in caplog.text
            with pytest.raises(ConflictError):
                await serve(FakeCluster(), bus_address)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def test_a_bus_that_hangs_is_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try would keep a connection for ever."""
    monkeypatch.setattr("vastskyd.dbus.server.BUS_TIMEOUT_S", 0.2)
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n")
        writer.write(b"OK 0123456789abcdef0123456789abcdef\r\n")
        with suppress(ConnectionError):
            await reader.read()  # to its end
        ended.set()
        writer.close()

    async with await asyncio.start_unix_server(hang, tmp_path / "bus"):
        with pytest.raises(UnreachableError):
            await serve(FakeCluster(), f"unix:path={tmp_path}/bus")
        await asyncio.wait_for(ended.wait(), 5)


async def test_without_a_bus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"unix:path={tmp_path}/none"
    with pytest.raises(UnreachableError):
        await serve(FakeCluster(), address)
    with caplog.at_level(logging.ERROR), pytest.raises(TimeoutError):
        await asyncio.wait_for(keep_serving(FakeCluster(), address, retry_s=0.01), 0.1)
    assert len(caplog.records) == 1  # said once
