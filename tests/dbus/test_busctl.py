"""What an administrator has at hand: plain busctl."""

import asyncio
import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest

from tests.dbus.fake_cluster import EVENTS, STATUS, VOLUMES, FakeCluster
from tests.demo.hosts import busctl_answer, busctl_call
from vastskyd.core import answers, api
from vastskyd.dbus.manual_words import EXAMPLES
from vastskyd.dbus.paths import BUS_NAME, ROOT
from vastskyd.dbus.server import DbusServer

DOCS = Path(__file__).resolve().parents[2] / "docs"
# What stands in the examples for what a reader has found out by then.
FILLED_IN = {"0123456789abcdef": "j1", "attachments/ID": "attachments/v1", "TOKEN": '""'}


def examples() -> list[str]:
    """Each as it would be typed."""
    (block,) = re.findall(r"^```\n(busctl.*?)```", (DOCS / "dbus.md").read_text(), re.M | re.S)
    text = re.sub(r"\s*\\\n\s*", " ", f"{EXAMPLES}\n{block}")
    found = re.findall(r"^(?: +[$#] )?((?:busctl|gdbus) .*)$", text, re.M)
    for name, there in FILLED_IN.items():
        found = [line.replace(name, there) for line in found]
    return found


@pytest.fixture
def environment(bus_address: str, server: DbusServer) -> dict[str, str]:
    if shutil.which("busctl") is None:
        pytest.fail("busctl is missing: install the package systemd")
    return {"PATH": os.environ["PATH"], "DBUS_SYSTEM_BUS_ADDRESS": bus_address, "LC_ALL": "C"}


async def shell(command: str, environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, env=environment
    )
    said, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, command
    return said.decode()


async def test_what_the_demo_asks_by_it(environment: dict[str, str]) -> None:
    said = await shell(busctl_call("Status", {}), environment)
    assert busctl_answer("Status", said) == STATUS
    said = await shell(busctl_call("ListVolumes", {"volume": "data"}), environment)
    assert busctl_answer("ListVolumes", said) == answers.VolumeList(volumes=VOLUMES[:1])


async def test_a_time_is_shown_to_the_microsecond(
    environment: dict[str, str], cluster: FakeCluster
) -> None:
    (event,) = cluster.events = (msgspec.structs.replace(EVENTS[0], time_s=1764485601.123457),)
    said = await shell(busctl_call("ListEvents", {}), environment)
    assert '"time":{"type":"t","data":1764485601123457}' in said
    assert busctl_answer("ListEvents", said) == answers.EventList(events=(event,))


async def test_the_tree_shows_the_hosts_own(environment: dict[str, str]) -> None:
    lines = (await shell(f"busctl tree --list {BUS_NAME}", environment)).splitlines()
    assert f"{ROOT}/disks/d1" in lines
    assert f"{ROOT}/attachments/v1" in lines


async def test_properties_read_as_words(environment: dict[str, str], cluster: FakeCluster) -> None:
    where = f"{BUS_NAME} {ROOT}/volumes/data {BUS_NAME}.Volume"
    said = await shell(f"busctl get-property {where} Health Attachment Size", environment)
    assert said.splitlines() == ['s "degraded"', 's "attached"', f"t {VOLUMES[0].size_bytes}"]
    said = await shell(f"busctl introspect {where}", environment)
    assert [line.split()[0] for line in said.splitlines() if "method" in line] == [
        ".Attach", ".Delete", ".Detach", ".Failover", ".Scrub", ".SetStandby",
    ]  # fmt: skip


async def test_a_volume_is_deleted_in_one_line(
    environment: dict[str, str], cluster: FakeCluster
) -> None:
    where = f"{BUS_NAME} {ROOT}/volumes/data {BUS_NAME}.Volume"
    said = await shell(f"busctl call {where} Delete 'a{{sv}}' 0", environment)
    assert said == f'o "{ROOT}/jobs/j1"\n'
    assert api.DeleteVolume(volume="data") in cluster.wanted


@pytest.mark.parametrize("command", examples())
async def test_the_examples_can_be_typed(command: str, environment: dict[str, str]) -> None:
    if "/jobs/" in command:  # as the example before it has begun one
        await shell(examples()[2], environment)
    if " monitor " in command:
        await shell(f"timeout 0.3 {command}; test $? = 124", environment)
    else:
        await shell(command, environment)
