"""The real polkitd, on a private bus and with nothing but our policy file and a local rule: in a
mount namespace of its own, so that it sees neither the machine's rules nor they it."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_agent import PERSON
from tests.cli.test_terminal import Terminal
from tests.dbus.fake_cluster import FakeCluster
from tests.dbus.private_bus import private_bus
from tests.dbus.somebody_else import NOBODY, call_as_nobody, needs_root, reachable_directory
from tests.dbus.who_is_asked import what_nobody_is_asked
from vastskyd.cli.agent import PROGRAM as PKTTYAGENT
from vastskyd.core import api
from vastskyd.dbus.interfaces import DISK, MANAGER, VOLUME
from vastskyd.dbus.paths import BUS_NAME, ROOT, Kind, Place
from vastskyd.dbus.server import serve

PROJECT = Path(__file__).resolve().parents[2]
ACTIONS = PROJECT / "packaging/org.vastsky.vastsky1.policy"
POLKITD = ("/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd")
DATA, OTHER = (Place(Kind.VOLUME, name).path for name in ("data", "empty"))
CANDIDATE = Place(Kind.DISK, "store2:/dev/sdc").path
START_S = 10.0
# polkit has what comes after the session's own agent asked in login sessions only.
OUTSIDE_OF_SESSIONS = """#!/bin/bash
[[ ${{@: -1}} = --fallback ]] && exec {} "${{@:1:$#-1}}"
"""
# What an administrator may write: this user attaches and detaches this volume, and no more.
RULE = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.vastsky.vastsky1.attach-volume" && subject.user == "nobody"
        && action.lookup("name") == "data")
        return polkit.Result.YES;
});
"""


@pytest.fixture
def bus_with_polkit() -> Iterator[str]:
    program = next((each for each in POLKITD if os.access(each, os.X_OK)), None)
    if program is None or shutil.which("unshare") is None:
        pytest.skip("polkitd is missing: install the package polkitd")
    with reachable_directory() as directory:
        for name in ("etc/rules.d", "share/actions", "share/rules.d"):
            (directory / name).mkdir(parents=True)
        shutil.copy(ACTIONS, directory / "share/actions")
        (directory / "etc/rules.d/50-vastsky.rules").write_text(RULE)
        with private_bus(directory) as address, _polkitd(program, directory, address):
            yield address


def _polkitd(program: str, directory: Path, address: str) -> "Polkitd":
    mounts = "".join(
        f"mount --bind {directory / here} {there} && "
        for here, there in (("etc", "/etc/polkit-1"), ("share", "/usr/share/polkit-1"))
    )
    command = ["unshare", "--mount", "sh", "-c", f"{mounts} exec {program} --no-debug"]
    return Polkitd(command, {"PATH": os.environ["PATH"], "DBUS_SYSTEM_BUS_ADDRESS": address})


class Polkitd:
    """Runs as long as it is entered."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._environment = environment
        self._process = subprocess.Popen(command, env=environment)

    def __enter__(self) -> "Polkitd":
        end_s = time.monotonic() + START_S
        ask = ["busctl", "status", "org.freedesktop.PolicyKit1"]
        while subprocess.run(
            ask, env=self._environment, capture_output=True, check=False
        ).returncode:
            if time.monotonic() > end_s or self._process.poll() is not None:
                self.__exit__()
                pytest.fail("polkitd did not start")
            time.sleep(0.05)
        return self

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command, env=self._environment, capture_output=True, timeout=START_S, check=False
        )

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)


@needs_root
async def test_a_rule_lets_a_user_do_what_it_says_and_no_more(
    bus_with_polkit: str, cluster: FakeCluster
) -> None:
    server = await serve(cluster, bus_with_polkit)
    try:
        allowed = await call_as_nobody(
            bus_with_polkit,
            [
                (DATA, VOLUME.name, "Attach", ["s", "a{sv}"]),
                (DATA, VOLUME.name, "Detach", ["a{sv}"]),
                (DATA, VOLUME.name, "Delete", ["a{sv}"]),
                (DATA, VOLUME.name, "Scrub", ["a{sv}"]),
            ],
        )
        other = await call_as_nobody(
            bus_with_polkit, [(OTHER, VOLUME.name, "Attach", ["s", "a{sv}"])]
        )
    finally:
        await server.close()
    denied = f"{BUS_NAME}.Error.DeniedCanObtain"
    said = {name.rpartition(".")[2]: answer for name, answer in allowed.items()}
    assert said == {"Attach": "ok", "Detach": "ok", "Delete": denied, "Scrub": denied}
    assert list(other.values()) == [denied]
    changes = cluster.changes()
    assert [type(each) for each in changes] == [api.AttachVolume, api.DetachVolume]
    for each in changes:
        assert isinstance(each, api.Act)
        assert each.asked_by == "uid 65534 on m1"


@needs_root
async def test_a_dialogue_says_what_is_at_stake_and_may_be_closed(
    bus_with_polkit: str, cluster: FakeCluster
) -> None:
    server = await serve(cluster, bus_with_polkit)
    try:
        asked = await what_nobody_is_asked(
            bus_with_polkit,
            [
                (DATA, VOLUME.name, "Delete", "", [], []),
                (CANDIDATE, DISK.name, "Enrol", "", [], ["wipe"]),
                (DATA, VOLUME.name, "Scrub", "", [], []),
                (ROOT, MANAGER.name, "CreateVolume", "st", ["$(object)", 1], []),
                (ROOT, MANAGER.name, "SetCopiesApart", "s", ["disk"], []),
                (DATA, VOLUME.name, "Attach", "s", ["m1"], []),
            ],
        )
    finally:
        await server.close()
    closed = f"{BUS_NAME}.Error.DeniedDismissed"
    assert [(each.action, each.message, each.error) for each in asked] == [
        ("destroy-data", "destroy data on the volume or disk data", closed),
        ("destroy-data", "destroy data on the volume or disk store2:/dev/sdc", closed),
        ("change-volume", "change or scrub volume data", closed),
        ("create-volume", "create volume $(object)", closed),
        ("change-cluster", "change how far apart the cluster keeps the copies of volumes", closed),
        ("", "", "ok"),
    ]
    assert [type(each) for each in cluster.changes()] == [api.AttachVolume]


@needs_root
async def test_vastskyctl_has_it_asked_on_the_terminal(
    bus_with_polkit: str, cluster: FakeCluster
) -> None:
    server = await serve(cluster, bus_with_polkit)
    try:
        status, said = await asyncio.to_thread(_delete_on_a_terminal, bus_with_polkit)
    finally:
        await server.close()
    assert "AUTHENTICATING FOR org.vastsky.vastsky1.destroy-data" in said
    assert "Authentication is required to destroy data on the volume or disk data" in said
    assert status == 130
    assert not cluster.changes()


def _delete_on_a_terminal(address: str) -> tuple[int, str]:
    """By somebody who thinks better of it when asked for the password."""
    with reachable_directory() as directory:
        agent = directory / "pkttyagent"
        agent.write_text(OUTSIDE_OF_SESSIONS.format(PKTTYAGENT))
        agent.chmod(0o755)
        person = PERSON.format(agent=str(agent), uid=NOBODY, register_s=START_S)
        with Terminal(
            "volume", "delete", "data", "--yes", program=[sys.executable, "-c", person],
            more={"DBUS_SYSTEM_BUS_ADDRESS": address},
        ) as terminal:  # fmt: skip
            terminal.read_until("Password: ")
            terminal.until_silent()
            terminal.write("\x03")
            status = terminal.finish()
            assert terminal.echoes
            return status, terminal.said
