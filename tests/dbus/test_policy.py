"""What is shipped for the bus, and for polkit: everybody may call, root owns the name, and each
action that is asked about is one that polkit knows."""

import configparser
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.private_bus import private_bus
from tests.dbus.somebody_else import Call, call_as_nobody, needs_root, reachable_directory
from vastskyd.core import api
from vastskyd.dbus.actions import Action
from vastskyd.dbus.interfaces import INTERFACES, OF_KIND
from vastskyd.dbus.paths import BUS_NAME, ROOT, Place
from vastskyd.dbus.server import serve

PROJECT = Path(__file__).resolve().parents[2]
POLICY = PROJECT / "packaging/org.vastsky.Vastsky1.conf"
ACTIONS = PROJECT / "packaging/org.vastsky.vastsky1.policy"
NAMES = {
    "nodes": "m1",
    "disks": "store2:/dev/sdc",
    "volumes": "v1",
    "attachments": "v1",
    "jobs": "j1",
}


@pytest.fixture
def strict_bus() -> Iterator[str]:
    """With our policy, in a directory that other users can reach, as pytest's own are not."""
    with reachable_directory() as directory, private_bus(directory, POLICY) as address:
        yield address


@needs_root
async def test_others_may_look_and_without_polkit_no_more(
    strict_bus: str, cluster: FakeCluster
) -> None:
    """On a real bus, with what is shipped for it: nothing that changes reaches the manager."""
    server = await serve(cluster, strict_bus)
    calls: list[Call] = []
    changing = set()
    for interface in INTERFACES:
        kinds = [kind for kind, known in OF_KIND.items() if known is interface]
        path = Place(kinds[0], NAMES[kinds[0]]).path if kinds else ROOT
        for method in interface.methods:
            calls.append((path, interface.name, method.name, [kind for _, kind in method.takes]))
            if method.action is not None:
                changing.add(f"{interface.name}.{method.name}")
    try:
        answers = await call_as_nobody(strict_bus, calls)
    finally:
        await server.close()
    assert len(answers) == len(calls)
    denied = {name for name, answer in answers.items() if answer == f"{BUS_NAME}.Error.Denied"}
    assert denied == changing
    assert not any(isinstance(each, api.Act) for each in cluster.asked)
    assert all(answer == "ok" for name, answer in answers.items() if name not in changing
               and not name.endswith((".GetDisk", ".GetVolume", ".GetJob"))), answers  # fmt: skip


def test_root_alone_owns_the_name() -> None:
    owners = [p.attrib for p in ET.parse(POLICY).getroot() if p.find("allow[@own]") is not None]
    assert owners == [{"user": "root"}]


def test_polkit_knows_each_action_and_no_other() -> None:
    root = ET.parse(ACTIONS).getroot()
    assert {action.get("id") for action in root.findall("action")} == {a.id for a in Action}
    used = {method.action for interface in INTERFACES for method in interface.methods} - {None}
    assert used == set(Action)
    for text in (*root.iter("description"), *root.iter("message")):
        assert text.get("gettext-domain") == "vastskyd"
        assert text.text
    for grant in ("allow_any", "allow_inactive", "allow_active"):
        said = {element.text for element in root.iter(grant)}
        assert said <= {"auth_admin", "auth_admin_keep"}, "nobody may without a password or a rule"


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\$\(([^)]*)\)", text))


@pytest.mark.parametrize("catalogue", sorted((PROJECT / "po").glob("*.po")), ids=lambda po: po.stem)
def test_what_people_are_asked_is_translated(catalogue: Path) -> None:
    root = ET.parse(ACTIONS).getroot()
    texts = {text.text for text in (*root.iter("description"), *root.iter("message"))}
    said = re.findall(r'^msgid "(.+)"\nmsgstr "(.+)"$', catalogue.read_text(), re.M)
    assert {original for original, _ in said} == texts
    for original, translated in said:
        assert placeholders(original) == placeholders(translated)
    assert "fuzzy" not in catalogue.read_text()


def test_data_is_destroyed_by_a_fresh_password_only() -> None:
    root = ET.parse(ACTIONS).getroot()
    for action in (Action.DESTROY_DATA, Action.FAILOVER_VOLUME, Action.MANAGE_CLUSTER,
                   Action.CHANGE_CLUSTER):  # fmt: skip
        defaults = root.find(f"action[@id='{action.id}']/defaults/allow_active")
        assert defaults is not None
        assert defaults.text == "auth_admin"


def test_the_bus_starts_what_systemd_knows_by_that_name() -> None:
    activation = configparser.ConfigParser()
    activation.read(PROJECT / "packaging/org.vastsky.Vastsky1.service")
    asked = activation["D-BUS Service"]
    assert asked["Name"] == BUS_NAME
    unit = (PROJECT / "units/vastskyd.service").read_text()
    assert f"Alias={asked['SystemdService']}\n" in unit
