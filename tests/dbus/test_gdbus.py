"""A client that is not ours, on a library that is not ours: GLib's, by its gdbus."""

import asyncio
import os
import shutil

import pytest

from tests.dbus.fake_cluster import VOLUMES, FakeCluster
from vastskyd.core import api
from vastskyd.core.errors import NotFoundError
from vastskyd.dbus.paths import BUS_NAME, ROOT
from vastskyd.dbus.server import DbusServer

LIMIT_S = 20


class Gdbus:
    def __init__(self, bus_address: str) -> None:
        self._bus_address = bus_address

    async def call(self, path: str, method: str, *arguments: str) -> tuple[int, str, str]:
        return await self.run(
            "call", "--object-path", path, "--method", method, "--timeout", "10", *arguments
        )

    async def run(self, word: str, *words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *("gdbus", word, "--address", self._bus_address, "--dest", BUS_NAME, *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        said, complained = await asyncio.wait_for(process.communicate(), LIMIT_S)
        return process.returncode or 0, said.decode(), complained.decode()


@pytest.fixture
def gdbus(bus_address: str, server: DbusServer) -> Gdbus:
    if shutil.which("gdbus") is None:
        pytest.fail("gdbus is missing: install the package libglib2.0-bin")
    return Gdbus(bus_address)


async def test_all_objects_of_the_host_are_introspected(gdbus: Gdbus) -> None:
    code, said, complained = await gdbus.run("introspect", "--object-path", ROOT, "--recurse")
    assert (code, complained) == (0, "")
    for name in ("Manager", "Disk", "Attachment"):
        assert f"interface {BUS_NAME}.{name} {{" in said
    assert f"node {ROOT}/disks/d1 {{" in said


async def test_managed_objects_are_of_the_types_that_are_promised(gdbus: Gdbus) -> None:
    method = "org.freedesktop.DBus.ObjectManager.GetManagedObjects"
    code, said, complained = await gdbus.call(ROOT, method)
    assert (code, complained) == (0, "")
    assert f"'{ROOT}/disks/d1': {{" in said
    assert f"'{BUS_NAME}.Disk': {{" in said


async def test_a_volume_is_read_and_deleted(gdbus: Gdbus, cluster: FakeCluster) -> None:
    path = f"{ROOT}/volumes/data"
    properties = "org.freedesktop.DBus.Properties.Get"
    code, said, _ = await gdbus.call(path, properties, f"{BUS_NAME}.Volume", "Size")
    assert (code, said) == (0, f"(<uint64 {VOLUMES[0].size_bytes}>,)\n")
    code, said, _ = await gdbus.call(path, f"{BUS_NAME}.Volume.Delete", "{}")
    assert (code, said) == (0, f"(objectpath '{ROOT}/jobs/j1',)\n")
    assert api.DeleteVolume(volume="data") in cluster.wanted


async def test_errors_have_names_and_words(gdbus: Gdbus, cluster: FakeCluster) -> None:
    method = f"{BUS_NAME}.Volume.Delete"
    code, _, complained = await gdbus.call(f"{ROOT}/volumes/data", method, "{'hurry': <true>}")
    assert code == 1
    assert f"GDBus.Error:{BUS_NAME}.Error.Invalid: " in complained
    assert "hurry" in complained
    assert api.DeleteVolume(volume="data") not in cluster.wanted
    cluster.fault = NotFoundError("there is no volume 'data'")
    code, _, complained = await gdbus.call(f"{ROOT}/volumes/data", method, "@a{sv} {}")
    assert code == 1
    assert f"GDBus.Error:{BUS_NAME}.Error.NotFound: there is no volume 'data'" in complained
