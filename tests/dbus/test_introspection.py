"""What an object says of itself is what is shipped, and what is so."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from dbus_next.constants import MessageType
from dbus_next.message import Message

from tests.dbus.conftest import Call
from vastskyd.dbus.interfaces import INTERFACES, MANAGER, OF_KIND
from vastskyd.dbus.introspection import shipped_xml
from vastskyd.dbus.paths import ROOT, Kind, Place

SHIPPED = Path(__file__).resolve().parents[2] / "packaging/org.vastsky.Vastsky1.xml"
STANDARD = "org.freedesktop.DBus."
EVERY = "auth.no_user_interaction (b): Of every method: never ask"
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"
OWN = {Kind.DISK: "d1", Kind.ATTACHMENT: "v1", Kind.JOB: "j1"}
FOREIGN = {Kind.NODE: "store2", Kind.VOLUME: "data", Kind.DISK: "store2:/dev/sdc"}


async def introspect(call: Call, path: str) -> ET.Element:
    reply: Message = await call("Introspect", "", [], STANDARD + "Introspectable", path)
    assert reply.message_type is MessageType.METHOD_RETURN, reply.body
    return ET.fromstring(reply.body[0])


def canonical(element: ET.Element) -> str:
    return ET.canonicalize(ET.tostring(element), strip_text=True)


def shipped(name: str) -> ET.Element:
    (found,) = ET.parse(SHIPPED).getroot().findall(f"interface[@name='{name}']")
    return found


def test_what_is_shipped_is_the_table() -> None:
    assert SHIPPED.read_text() == shipped_xml(), "python3 -m vastskyd.dbus.introspection writes it"
    assert [each.get("name") for each in ET.parse(SHIPPED).getroot()] == [
        interface.name for interface in INTERFACES
    ]


def test_all_is_documented() -> None:
    for member in ET.parse(SHIPPED).getroot().iter():
        if member.tag in ("interface", "method", "signal", "property"):
            (said,) = member.findall("annotation[@name='org.gtk.GDBus.DocString']")
            assert said.get("value", "").endswith("."), member.attrib
            for argument in member.findall("arg"):
                (said,) = argument.findall("annotation[@name='org.gtk.GDBus.DocString']")
                assert said.get("value"), (member.attrib, argument.attrib)


def test_a_word_of_several_methods_is_told_as_each_means_it() -> None:
    """Not `of lists this, of clusters that`: whoever reads the XML reads of one method."""
    for method in ET.parse(SHIPPED).getroot().iter("method"):
        for said in method.iter("annotation"):
            assert not re.search(r": Of |^Of ", said.get("value", "").replace(EVERY, "")), (
                method.attrib
            )


def test_each_method_says_who_may_call_it_and_how_it_fails() -> None:
    for interface in INTERFACES:
        for method in interface.methods:
            (said,) = (
                each.findall("annotation[@name='org.gtk.GDBus.DocString']")[0].get("value", "")
                for each in shipped(interface.name).findall(f"method[@name='{method.name}']")
            )
            assert all(kind.code in said.partition("Errors: ")[2] for kind in method.raises)
            assert (method.action is None) == ("polkit: " not in said)
            if method.target:
                assert "NotFound" in said, "its object may be gone"


def test_records_are_described_down_to_their_parts() -> None:
    (listed,) = (
        ET.parse(SHIPPED).getroot().iterfind(".//method[@name='ListVolumes']/arg[@name='volumes']")
    )
    said = listed[0].get("value", "").split("\n")
    for line in (
        "segments (aa{sv}, SegmentView): its parts, in order.",
        "LegView: One copy of a segment.",
        "node (s): the node of its disk.",
        "state (s, one of creating, available): whether it can be attached.",
    ):
        assert line in said


async def test_the_root_is_what_is_shipped(call: Call) -> None:
    live = await introspect(call, ROOT)
    (ours,) = live.findall(f"interface[@name='{MANAGER.name}']")
    assert canonical(ours) == canonical(shipped(MANAGER.name))
    assert live.find(f"interface[@name='{STANDARD}ObjectManager']") is not None


@pytest.mark.parametrize(("kind", "name"), OWN.items())
async def test_own_objects_are_what_is_shipped(call: Call, kind: Kind, name: str) -> None:
    await call("CreateVolume", "sta{sv}", ["data", 1, {}])  # so that there is a job
    live = await introspect(call, Place(kind, name).path)
    (ours,) = live.findall(f"interface[@name='{OF_KIND[kind].name}']")
    assert canonical(ours) == canonical(shipped(OF_KIND[kind].name))


@pytest.mark.parametrize(("kind", "name"), FOREIGN.items())
async def test_others_tell_no_changes_and_say_so(call: Call, kind: Kind, name: str) -> None:
    live = await introspect(call, Place(kind, name).path)
    (ours,) = live.findall(f"interface[@name='{OF_KIND[kind].name}']")
    said = {each.get("value") for each in ours.iterfind(f".//annotation[@name='{EMITS}']")}
    assert said == {"const", "false"}
    theirs = shipped(OF_KIND[kind].name)
    for each in (*ours.iter("annotation"), *theirs.iter("annotation")):
        if each.get("name") == EMITS and each.get("value") == "true":
            each.set("value", "false")
    assert canonical(ours) == canonical(theirs)


async def test_what_is_not_there_has_no_introspection(call: Call) -> None:
    for path, name in (
        (Place(Kind.VOLUME, "none").path, "org.vastsky.Vastsky1.Error.NotFound"),
        (Place(Kind.ATTACHMENT, "none").path, STANDARD + "Error.UnknownObject"),
        (f"{ROOT}/snapshots", STANDARD + "Error.UnknownObject"),
        ("/else", STANDARD + "Error.UnknownObject"),
    ):
        reply = await call("Introspect", "", [], STANDARD + "Introspectable", path)
        assert reply.error_name == name


async def test_own_objects_can_be_found_from_the_root(call: Call) -> None:
    async def below(path: str) -> set[str]:
        inner = [node.get("name") for node in (await introspect(call, path)).findall("node")]
        found = {path}
        for name in inner:
            found |= await below(f"{path.rstrip('/')}/{name}")
        return found

    there = await below("/")
    assert {ROOT, Place(Kind.DISK, "d1").path, Place(Kind.ATTACHMENT, "v1").path} <= there
    assert not any("/volumes/" in path for path in there)
