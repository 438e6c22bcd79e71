"""The host's own objects: who listens is told all, once, and nothing that is not so."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageType
from dbus_next.message import Message
from dbus_next.signature import Variant

from tests.dbus.conftest import Call
from tests.dbus.fake_cluster import DISKS, GIB, LOCAL_VOLUME, FakeCluster, job
from vastskyd.core import answers, api
from vastskyd.core.errors import NotFoundError, UnreachableError
from vastskyd.core.ids import DiskId, JobId
from vastskyd.core.model import Job, JobKind, JobState
from vastskyd.dbus import jobs, mirror
from vastskyd.dbus.interfaces import MANAGER, OF_KIND
from vastskyd.dbus.paths import BUS_NAME, ROOT, Kind, Place
from vastskyd.dbus.server import DbusServer, serve
from vastskyd.dbus.variants import plain, record_in, record_out

MANAGED = "org.freedesktop.DBus.ObjectManager"
DISK = Place(Kind.DISK, "d1").path
ATTACHMENT = Place(Kind.ATTACHMENT, "v1").path
JOB = Place(Kind.JOB, "j1").path
DONE = job(state=JobState.DONE, message="created")


class Listener:
    """All signals of our name, in order: path, member, and body."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, list[Any]]] = []
        self._more = asyncio.Event()

    def on_message(self, message: Message) -> None:
        ours = (message.path or "").startswith(ROOT)
        if message.message_type is MessageType.SIGNAL and ours:
            self.heard.append((message.path, message.member, plain(message.body)))
            self._more.set()

    def of(self, path: str, member: str) -> list[list[Any]]:
        return [body for p, m, body in self.heard if (p, m) == (path, member)]

    def told(self, path: str) -> dict[str, Any]:
        """The last that was told of each property."""
        values: dict[str, Any] = {}
        for _, changed, invalidated in self.of(path, "PropertiesChanged"):
            assert not invalidated
            values |= changed
        return values

    async def until_told(self, path: str, values: dict[str, Any]) -> None:
        async with asyncio.timeout(5):
            while self.told(path) != values:
                self._more.clear()
                await self._more.wait()

    async def until(self, path: str, member: str, times: int = 1) -> list[list[Any]]:
        async with asyncio.timeout(5):
            while len(found := self.of(path, member)) < times:
                self._more.clear()
                await self._more.wait()
        return found


@pytest.fixture
async def listener(bus_address: str, server: DbusServer) -> AsyncIterator[Listener]:
    bus = await MessageBus(bus_address).connect()
    heard = Listener()
    bus.add_message_handler(heard.on_message)
    rule = f"type='signal',path_namespace='{ROOT}'"
    await bus.call(
        Message(
            destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus", member="AddMatch", signature="s", body=[rule],
        )
    )  # fmt: skip
    yield heard
    bus.disconnect()  # type: ignore[no-untyped-call]
    await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


async def managed(call: Call) -> dict[str, Any]:
    reply = await call("GetManagedObjects", "", [], MANAGED)
    assert reply.message_type is MessageType.METHOD_RETURN, reply.body
    found: dict[str, Any] = plain(reply.body[0])
    return found


async def test_disks_and_attachments_read_as_words(call: Call) -> None:
    there = await managed(call)
    assert set(there) == {DISK, ATTACHMENT}
    assert there[DISK][OF_KIND[Kind.DISK].name] == {
        "Id": "d1", "Node": "m1", "Path": "/dev/sdb", "Serial": "S\N{REPLACEMENT CHARACTER}X",
        "Size": 100 * GIB, "Free": 50 * GIB, "State": "online", "Message": "",
        "Volumes": ["data"], "Smart": {
            "health": "passed", "reason": "", "model": "WDC WD30EFRX",
            "read": 1_700_000_000_000_000, "reallocated": 12, "media_errors": 0,
            "wear_percent": 93, "temperature_c": 35, "power_on_h": 48000,
            "warnings": ["its reallocated sectors grew from 4 to 12"],
        },
    }  # fmt: skip
    assert there[ATTACHMENT][OF_KIND[Kind.ATTACHMENT].name] == {
        "Volume": f"{ROOT}/volumes/v1", "Name": "data", "Device": "/dev/vastsky/data",
        "State": "active", "Message": "", "RebuiltBytes": 0, "RebuildBytes": 0,
    }  # fmt: skip


async def test_others_are_there_when_asked_for(call: Call, cluster: FakeCluster) -> None:
    properties = "org.freedesktop.DBus.Properties"
    volume = Place(Kind.VOLUME, "empty").path
    reply = await call("GetAll", "s", [OF_KIND[Kind.VOLUME].name], properties, volume)
    shown = plain(reply.body[0])
    assert (shown["Id"], shown["Attachment"], shown["Scrubbed"]) == ("v2", "", {})
    node = Place(Kind.NODE, "store2").path
    reply = await call("Get", "ss", [OF_KIND[Kind.NODE].name, "State"], properties, node)
    assert plain(reply.body[0]) == "unreachable"
    missing = Place(Kind.VOLUME, "none").path
    reply = await call("GetAll", "s", [OF_KIND[Kind.VOLUME].name], properties, missing)
    assert reply.error_name == "org.vastsky.Vastsky1.Error.NotFound"
    assert set(await managed(call)) == {DISK, ATTACHMENT}


async def test_own_objects_need_no_manager(call: Call, cluster: FakeCluster) -> None:
    cluster.fault = UnreachableError("the manager did not answer")
    assert set(await managed(call)) == {DISK, ATTACHMENT}
    properties = "org.freedesktop.DBus.Properties"
    reply = await call("Get", "ss", [OF_KIND[Kind.DISK].name, "State"], properties, DISK)
    assert plain(reply.body[0]) == "online"


async def test_what_comes_goes_and_changes_is_told(
    cluster: FakeCluster, listener: Listener
) -> None:
    new = msgspec.structs.replace(DISKS[0], id=DiskId("d2"), path="/dev/sdz")
    slow = msgspec.structs.replace(DISKS[0], message="slow")
    cluster.change(disks=(slow, new), volumes=(), connected=False)
    ((path, interfaces),) = await listener.until(ROOT, "InterfacesAdded")
    assert path == Place(Kind.DISK, "d2").path
    assert interfaces[OF_KIND[Kind.DISK].name]["Path"] == "/dev/sdz"
    ((gone, names),) = await listener.until(ROOT, "InterfacesRemoved")
    assert (gone, names) == (ATTACHMENT, [OF_KIND[Kind.ATTACHMENT].name])
    assert listener.of(DISK, "PropertiesChanged") == [
        [OF_KIND[Kind.DISK].name, {"Message": "slow"}, []]
    ]
    assert listener.of(ROOT, "PropertiesChanged") == [[MANAGER.name, {"Connected": False}, []]]


async def test_a_rebuild_tells_its_story(cluster: FakeCluster, listener: Listener) -> None:
    """What somebody sees who watches the bus of the head."""
    for state, done in (("degraded", 0), ("rebuilding", 1), ("rebuilding", 2), ("active", 0)):
        volume = msgspec.structs.replace(
            LOCAL_VOLUME, state=state, rebuilt_bytes=done, rebuild_bytes=3 if done else 0,
            message="" if state == "active" else "without the leg on store2",
        )  # fmt: skip
        cluster.change(volumes=(volume,))
        await asyncio.sleep(0.05)
    story = [changed for _, changed, _ in await listener.until(ATTACHMENT, "PropertiesChanged", 4)]
    assert story == [
        {"State": "degraded", "Message": "without the leg on store2"},
        {"State": "rebuilding", "RebuiltBytes": 1, "RebuildBytes": 3},
        {"RebuiltBytes": 2},
        {"State": "active", "Message": "", "RebuiltBytes": 0, "RebuildBytes": 0},
    ]


async def test_changes_come_in_flocks(
    cluster: FakeCluster, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "PAUSE_S", 0.2)
    began_s = time.monotonic()
    for done in range(1, 60):
        volume = msgspec.structs.replace(LOCAL_VOLUME, rebuilt_bytes=done)
        cluster.change(volumes=(volume,))
        await asyncio.sleep(0.01)
    await listener.until_told(ATTACHMENT, {"RebuiltBytes": 59})
    most = 2 + (time.monotonic() - began_s) / 0.2
    assert len(listener.of(ATTACHMENT, "PropertiesChanged")) <= most < 59


async def test_a_job_is_told_from_its_beginning_to_its_end(
    call: Call, cluster: FakeCluster, listener: Listener
) -> None:
    cluster.steps = [
        *(job(done_bytes=n, total_bytes=4, started_by="root on m1") for n in range(4)), DONE,
    ]  # fmt: skip
    reply = await call("CreateVolume", "sta{sv}", ["data", GIB, {}])
    assert reply.body == [JOB]
    (added,) = await listener.until(ROOT, "InterfacesAdded")
    assert added[0] == JOB
    told = added[1][OF_KIND[Kind.JOB].name]
    assert (told["Operation"], told["State"], told["Progress"]) == ("create", "running", 0.0)
    assert told["Objects"] == [f"{ROOT}/volumes/v1"]
    assert await listener.until(JOB, "Completed") == [[True, "", "created", ""]]
    changes = [body[1] for body in listener.of(JOB, "PropertiesChanged")]
    progress = [each["Progress"] for each in changes if "Progress" in each]
    assert progress == [0.25, 0.5, 0.75, 1.0]
    assert listener.told(JOB)["State"] == "done"
    order = [member for path, member, _ in listener.heard if path == JOB]
    assert order[-1] == "Completed"
    assert JOB in await managed(call)


async def test_a_failed_job_says_why(
    call: Call, cluster: FakeCluster, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "KEPT_S", 0.05)
    cluster.steps = [job(JobKind.DETACH, state=JobState.FAILED, message="in use by a\0b",
                         error_code="Busy", hint="unmount it")]  # fmt: skip
    await call("Detach", "a{sv}", [{}], OF_KIND[Kind.ATTACHMENT].name, ATTACHMENT)
    completed = [False, "Busy", "in use by a\ufffdb", "unmount it"]
    assert await listener.until(JOB, "Completed") == [completed]
    assert (listener.told(JOB)["Error"], listener.told(JOB)["Hint"]) == ("Busy", "unmount it")
    await listener.until(ROOT, "InterfacesRemoved")  # after a while
    assert JOB not in await managed(call)


async def test_a_job_outlives_the_managers_absence(
    call: Call, cluster: FakeCluster, listener: Listener
) -> None:
    cluster.steps = [job()]
    await call("CreateVolume", "sta{sv}", ["data", GIB, {}])
    cluster.fault = UnreachableError("the manager did not answer")
    await asyncio.sleep(0.1)
    assert (await managed(call))[JOB][OF_KIND[Kind.JOB].name]["State"] == "running"
    cluster.steps = [DONE]
    cluster.fault = None
    await listener.until(JOB, "Completed")


async def test_a_job_that_the_manager_forgot_has_ended(
    call: Call, cluster: FakeCluster, listener: Listener
) -> None:
    cluster.steps = [job()]
    await call("CreateVolume", "sta{sv}", ["data", GIB, {}])
    cluster.fault = NotFoundError("there is no job j1", hint="look elsewhere")
    ((success, name, _, hint),) = await listener.until(JOB, "Completed")
    assert (success, name, hint) == (False, "NotFound", "look elsewhere")
    await listener.until(ROOT, "InterfacesRemoved")


async def test_waiting_for_an_own_job_asks_the_manager_no_more(
    call: Call, cluster: FakeCluster, listener: Listener
) -> None:
    cluster.steps = [job(total_bytes=4), job(done_bytes=2, total_bytes=4), DONE]
    await call("CreateVolume", "sta{sv}", ["data", GIB, {}])
    interface = OF_KIND[Kind.JOB].name
    seen = {"seen": Variant("a{sv}", record_out(job()))}
    first = await call("Wait", "da{sv}", [5.0, seen], interface, JOB)
    assert record_in(Job, first.body[0]) != job()
    last = await call("Wait", "da{sv}", [5.0, {}], interface, JOB)
    assert record_in(Job, last.body[0]) == DONE
    asked = [each for each in cluster.asked if isinstance(each, api.ShowJob)]
    assert all(each.seen is not None and each.wait_s == 30.0 for each in asked)
    for wait_s in (-1.0, float("nan")):
        at_once = await call("Wait", "da{sv}", [wait_s, {}], interface, JOB)
        assert record_in(Job, at_once.body[0]) == DONE
    at_once = await call("Wait", "da{sv}", [0.0, {}], interface, JOB)
    assert record_in(Job, at_once.body[0]) == DONE


async def test_own_jobs_are_bounded(
    call: Call, cluster: FakeCluster, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that ended makes room; running ones stay, and then no more are shown."""
    monkeypatch.setattr(jobs, "OWN_MAX", 2)
    shown: dict[str, Job] = {}
    monkeypatch.setattr(cluster, "ask", lambda request: _jobs(shown, request))
    for number, state in enumerate((JobState.DONE, JobState.RUNNING, JobState.RUNNING), 1):
        shown["next"] = shown[f"j{number}"] = job(name=f"j{number}", state=state)
        await call("CreateVolume", "sta{sv}", ["data", GIB, {}])
        await asyncio.sleep(0.05)
    there = {path.rpartition("/")[2] for path in await managed(call) if "/jobs/" in path}
    assert there == {"j2", "j3"}
    shown["next"] = shown["j4"] = job(name="j4")
    reply = await call("CreateVolume", "sta{sv}", ["data", GIB, {}])
    assert reply.body == [Place(Kind.JOB, "j4").path]
    assert reply.body[0] not in await managed(call)


async def _jobs(shown: dict[str, Job], request: Any) -> Any:
    match request:
        case api.CreateVolume():
            return api.JobStarted(job=shown["next"])
        case api.ShowJob():
            await asyncio.sleep(0.02)
            return answers.JobList(jobs=(shown[request.job],))
    return answers.JobList(jobs=())


async def test_rebuilds_of_what_is_attached_here_are_own_jobs(
    call: Call, cluster: FakeCluster, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_LOOK_S", 0.0)  # while an attachment is not well
    mine = job(JobKind.REBUILD)
    cluster.steps = [mine]
    elsewhere = msgspec.structs.replace(mine, id=JobId("j2"), subject="v9")
    attach = msgspec.structs.replace(job(JobKind.ATTACH), id=JobId("j3"))
    cluster.running = (elsewhere, attach, mine)
    cluster.change(volumes=(msgspec.structs.replace(LOCAL_VOLUME, state="rebuilding"),))
    ((path, told),) = await listener.until(ROOT, "InterfacesAdded")
    assert (path, told[OF_KIND[Kind.JOB].name]["Operation"]) == (JOB, "rebuild")


async def test_what_was_started_here_is_shown_by_the_next_vastskyd(
    bus_address: str, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FIRST_LOOK_S", 0.0)
    mine = job(JobKind.ATTACH, started_by="uid 1000 on m1")
    cluster.steps = [mine]
    cluster.running = (
        msgspec.structs.replace(mine, id=JobId("j2"), started_by="root on m11"),
        mine,
    )
    server = await serve(cluster, bus_address)
    bus = await MessageBus(bus_address).connect()
    try:
        async with asyncio.timeout(5):
            while JOB not in (shown := await _managed_by(bus)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        told = shown[JOB][OF_KIND[Kind.JOB].name]
        assert told["StartedBy"] == "uid 1000 on m1"
        assert told["Started"] == 1_700_000_000_000_000
        assert Place(Kind.JOB, "j2").path not in shown
    finally:
        bus.disconnect()  # type: ignore[no-untyped-call]
        await server.close()


async def _managed_by(bus: MessageBus) -> dict[str, Any]:
    reply = await bus.call(
        Message(
            destination=BUS_NAME, path=ROOT, interface=MANAGED, member="GetManagedObjects",
        )
    )  # fmt: skip
    assert reply is not None
    found: dict[str, Any] = plain(reply.body[0])
    return found
