"""Real calls over a real bus: every method, every error, and nothing of our insides."""

import asyncio
import logging
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from tests.dbus.conftest import Call
from tests.dbus.fake_cluster import DISKS, JOIN, NODES, STATUS, VOLUMES, FakeCluster, job
from vastskyd.core import api
from vastskyd.core.errors import BY_CODE, ConflictError, UnreachableError, from_code
from vastskyd.core.ids import JobId, NodeId
from vastskyd.core.model import Encryption, JobState, Layout, Record, Role
from vastskyd.dbus.introspection import shipped_xml
from vastskyd.dbus.methods import INTERFACE, METHODS, PATH
from vastskyd.dbus.server import MAX_CALLS_EACH, DbusServer, keep_serving, serve
from vastskyd.dbus.variants import plain, record_in, record_out

ROOT = Path(__file__).resolve().parents[2]
ERROR = "org.vastsky.Vastsky1.Error."
DBUS_ERROR = "org.freedesktop.DBus.Error."


def error(reply: Message) -> tuple[str, str]:
    assert reply.message_type is MessageType.ERROR, reply.body
    return reply.error_name, reply.body[0]


def value(reply: Message) -> Any:
    assert reply.message_type is MessageType.METHOD_RETURN, (reply.error_name, reply.body)
    return reply.body[0]


CHANGES: list[tuple[str, str, list[Any], Record]] = [
    ("CreateVolume", "sta{sv}", ["data", 2**40, {}],
     api.CreateVolume(name="data", size_bytes=2**40)),
    ("CreateVolume", "sta{sv}",
     ["data", 5, {"copies": Variant("i", 3), "layout": Variant("s", "linear")}],
     api.CreateVolume(name="data", size_bytes=5, copies=3, layout=Layout.LINEAR)),
    ("DeleteVolume", "sa{sv}", ["data", {}], api.DeleteVolume(volume="data")),
    ("AttachVolume", "ssa{sv}", ["data", "m1", {"force": Variant("b", True)}],
     api.AttachVolume(volume="data", head=NodeId("m1"), force=True)),
    ("DetachVolume", "sa{sv}", ["data", {}], api.DetachVolume(volume="data")),
    ("EnrolDisk", "ssa{sv}", ["m1", "/dev/sdb", {"wipe": Variant("b", True)}],
     api.EnrolDisk(node=NodeId("m1"), path="/dev/sdb", wipe=True)),
    ("RetireDisk", "sa{sv}", ["d1", {}], api.RetireDisk(disk="d1")),
]  # fmt: skip


@pytest.mark.parametrize(("member", "signature", "body", "request_"), CHANGES)
async def test_changes_start_a_job(
    call: Call, cluster: FakeCluster, member: str, signature: str, body: list[Any], request_: Record
) -> None:
    started = record_in(type(job()), value(await call(member, signature, body)))
    assert started.id == "j1"
    assert started.state is JobState.RUNNING
    assert cluster.asked == [request_]


async def test_reading(call: Call, cluster: FakeCluster) -> None:
    assert record_in(api.ClusterStatus, value(await call("Status"))) == STATUS
    nodes = value(await call("ListNodes"))
    assert tuple(record_in(api.NodeView, each) for each in nodes) == NODES
    volumes = value(await call("ListVolumes"))
    assert tuple(record_in(api.VolumeView, each) for each in volumes) == VOLUMES
    one = value(await call("GetVolume", "sa{sv}", ["data", {}]))
    assert record_in(api.VolumeView, one) == VOLUMES[0]
    assert [each["id"].value for each in value(await call("ListJobs"))] == ["j1"]
    assert value(await call("GetJob", "sa{sv}", ["j1", {}]))["state"].value == "done"
    disks = value(await call("ListDisks", body=[{"node": Variant("s", "store2")}]))
    assert [each["path"].value for each in disks] == [DISKS[1].path]
    events = value(await call("ListEvents", body=[{"after": Variant("u", 3)}]))
    assert [each["number"].value for each in events] == [4, 5]


async def test_a_nul_byte_does_not_cost_us_the_bus(call: Call) -> None:
    disks = value(await call("ListDisks"))
    assert disks[0]["serial"].value == "S\N{REPLACEMENT CHARACTER}X"


async def test_waiting_carries_what_was_seen(call: Call, cluster: FakeCluster) -> None:
    seen = {"seen": Variant("a{sv}", record_out(job()))}
    value(await call("WaitJob", "sda{sv}", ["j1", 2.5, seen]))
    assert cluster.asked == [api.ShowJob(job=JobId("j1"), wait_s=2.5, seen=job())]


async def test_others(call: Call, cluster: FakeCluster) -> None:
    options = {"valid_s": Variant("x", 60)}
    assert value(await call("CreateToken", "asa{sv}", [["head"], options])) == "vst1.secret"
    assert (await call("RemoveNode", "sa{sv}", ["store2", {}])).body == []
    made = value(
        await call("InitCluster", "sa{sv}", ["demo", {"encryption": Variant("s", "none")}])
    )
    assert record_in(api.Initialised, made) == JOIN
    joined = value(await call("JoinCluster", "sa{sv}", ["t", {"roles": Variant("as", ["head"])}]))
    assert record_in(api.Initialised, joined) == JOIN
    assert cluster.asked == [
        api.CreateToken(roles=(Role.HEAD,), valid_s=60.0),
        api.RemoveNode(node=NodeId("store2")),
        api.InitCluster(name="demo", encryption=Encryption.NONE),
        api.JoinCluster(token="t", roles=(Role.HEAD,)),
    ]


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
    cluster.wrong_answer = api.EventList(events=())
    assert error(await call("Status"))[0] == ERROR + "Failed"  # an array where a dict belongs
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
        ({"copies": Variant("s", "2")}, "copies"),
        ({"copies": Variant("d", 2.5)}, "copies"),
        ({"layout": Variant("s", "raid7")}, "raid7"),
        ({"layout": Variant("a{sv}", {})}, "layout"),
        ({"name": Variant("s", "b")}, "no option 'name'"),
    ],
)
async def test_options_are_checked(
    call: Call, cluster: FakeCluster, options: dict[str, Variant], said: str
) -> None:
    name, text = error(await call("CreateVolume", "sta{sv}", ["a", 1, options]))
    assert name == ERROR + "Invalid"
    assert said in text
    assert not cluster.asked


async def test_wrong_calls_get_the_buss_own_errors(call: Call, cluster: FakeCluster) -> None:
    assert error(await call("CreateVolume", "ss", ["a", "1G"]))[0] == DBUS_ERROR + "InvalidArgs"
    assert error(await call("Frobnicate"))[0] == DBUS_ERROR + "UnknownMethod"
    elsewhere = await call("Status", interface="org.example.Other")
    assert error(elsewhere)[0] == DBUS_ERROR + "UnknownMethod"
    assert error(await call("Status", path="/nowhere"))[0] == DBUS_ERROR + "UnknownObject"
    assert error(await call("Status", path="/org"))[0] == DBUS_ERROR + "UnknownMethod"
    nothing = await call("GetVolume", "sa{sv}", ["none", {}])
    assert error(nothing)[0] == ERROR + "NotFound"
    assert not [each for each in cluster.asked if not isinstance(each, api.ListVolumes)]


async def test_a_call_needs_no_interface_name(call: Call) -> None:
    assert value(await call("Status", interface=""))


async def test_properties(call: Call) -> None:
    properties = "org.freedesktop.DBus.Properties"
    everything = plain(value(await call("GetAll", "s", [INTERFACE], properties)))
    assert everything == {
        "Version": "0.1.0", "Node": "m1", "ClusterName": "demo",
        "Roles": ["manager", "storage", "head"], "Connected": True, "LocalVolumes": [],
    }  # fmt: skip
    assert plain(value(await call("Get", "ss", [INTERFACE, "Node"], properties))) == "m1"
    bad = await call("Get", "ss", [INTERFACE, "Colour"], properties)
    assert error(bad)[0] == DBUS_ERROR + "UnknownProperty"
    fixed = await call("Set", "ssv", [INTERFACE, "Node", Variant("s", "x")], properties)
    assert error(fixed)[0] == DBUS_ERROR + "PropertyReadOnly"
    assert value(await call("GetAll", "s", ["org.example"], properties)) == {}
    assert error(await call("Steal", "", [], properties))[0] == DBUS_ERROR + "UnknownMethod"


async def test_peer(call: Call) -> None:
    peer = "org.freedesktop.DBus.Peer"
    assert (await call("Ping", "", [], peer)).body == []
    assert error(await call("Pong", "", [], peer))[0] == DBUS_ERROR + "UnknownMethod"


async def test_introspection_is_what_is_shipped(call: Call) -> None:
    shipped = (ROOT / "packaging/org.vastsky.Vastsky1.xml").read_text()
    assert shipped == shipped_xml(), "python3 -m vastskyd.dbus.introspection writes it"
    live = ET.fromstring(
        value(await call("Introspect", "", [], "org.freedesktop.DBus.Introspectable"))
    )
    (ours,) = live.findall(f"interface[@name='{INTERFACE}']")
    (theirs,) = ET.fromstring(shipped).findall("interface")
    assert ET.canonicalize(ET.tostring(ours), strip_text=True) == ET.canonicalize(
        ET.tostring(theirs), strip_text=True
    )
    assert [each.get("name") for each in theirs.findall("method")] == [m.name for m in METHODS]


async def test_the_object_can_be_found_from_the_root(call: Call) -> None:
    path = ""
    while path != PATH:
        xml = value(
            await call("Introspect", "", [], "org.freedesktop.DBus.Introspectable", path or "/")
        )
        (node,) = ET.fromstring(xml).findall("node")
        path = f"{path}/{node.get('name')}"


async def test_calls_in_flight_are_bounded(call: Call, cluster: FakeCluster) -> None:
    cluster.gate = asyncio.Event()
    calls = [asyncio.ensure_future(call("Status")) for _ in range(MAX_CALLS_EACH)]
    await cluster.has_been_asked(MAX_CALLS_EACH)
    assert error(await call("Status"))[0] == DBUS_ERROR + "LimitsExceeded"
    cluster.gate.set()
    assert all(value(reply) for reply in await asyncio.gather(*calls))
    assert value(await call("Status"))


async def test_closing_ends_calls_in_flight(
    call: Call, cluster: FakeCluster, server: DbusServer
) -> None:
    cluster.gate = asyncio.Event()
    waiting = asyncio.ensure_future(call("Status"))
    await cluster.has_been_asked(1)
    await server.close()
    assert error(await waiting)[0] == DBUS_ERROR + "NoReply"


async def test_the_name_is_owned_once(server: DbusServer, bus_address: str) -> None:
    with pytest.raises(ConflictError):
        await serve(FakeCluster(), bus_address)


async def test_without_a_bus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = f"unix:path={tmp_path}/none"
    with pytest.raises(UnreachableError):
        await serve(FakeCluster(), address)
    with caplog.at_level(logging.ERROR), pytest.raises(TimeoutError):
        await asyncio.wait_for(keep_serving(FakeCluster(), address, retry_s=0.01), 0.1)
    assert len(caplog.records) == 1  # said once
