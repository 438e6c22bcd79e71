"""A cluster is made: what the first host becomes."""

import ipaddress
from pathlib import Path

import pytest

from tests.kernel.calls_here import CallsHere
from vastskyd.config.settings import Config
from vastskyd.core.api import InitCluster
from vastskyd.core.errors import BusyError, InvalidError
from vastskyd.core.model import Apart, Role
from vastskyd.core.reaching import EXPORT_PORT_FIRST
from vastskyd.core.state import load
from vastskyd.kernel import addresses
from vastskyd.kernel.addresses import of_default_route
from vastskyd.kernel.clock import SystemClock
from vastskyd.ports import DmDevice
from vastskyd.roles import daemon, founding
from vastskyd.roles.credentials import Credentials
from vastskyd.store.identity import Identity
from vastskyd.store.sqlite import SqliteStore

ROUTE = "10.20.30.40"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=str(tmp_path / "state"))


@pytest.fixture
def routed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(founding, "of_default_route", lambda: (ROUTE,))


def single(**members: object) -> InitCluster:
    return InitCluster(name="", node="n1", single=True, **members)  # type: ignore[arg-type]


def found(config: Config, request: InitCluster) -> Identity:
    return founding.found(config, SystemClock(), request, Credentials(None))


def copies_apart(config: Config) -> Apart:
    store = SqliteStore(founding.database(config))
    try:
        return load(store.load()).the_cluster().copies_apart
    finally:
        store.close()


@pytest.mark.usefixtures("routed")
def test_a_single_host_has_all_roles_and_the_address_of_its_default_route(config: Config) -> None:
    made = found(config, single())
    assert (made.roles, made.addresses) == (tuple(Role), (ROUTE,))
    assert copies_apart(config) is Apart.DISK


@pytest.mark.usefixtures("routed")
def test_an_address_that_is_given_goes_before(config: Config) -> None:
    made = found(config, single(addresses=("10.0.0.1", "10.0.1.1")))
    assert made.addresses == ("10.0.0.1", "10.0.1.1")


def test_without_a_default_route_an_address_is_to_be_given(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(founding, "of_default_route", tuple)
    with pytest.raises(InvalidError, match="no data address") as refused:
        found(config, single())
    assert "--address" in refused.value.hint
    assert found(config, single(addresses=("127.0.0.1",)))


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "ff02::1", "host1"])
def test_an_address_that_no_host_has_is_refused(config: Config, address: str) -> None:
    with pytest.raises(InvalidError, match=f"{address}.* is no"):
        found(config, single(addresses=("10.0.0.1", address)))
    assert not founding.database(config).exists()


def test_a_host_that_speaks_at_a_port_of_exports_has_its_own_elsewhere(tmp_path: Path) -> None:
    config = Config(state_dir=str(tmp_path / "state"), port=EXPORT_PORT_FIRST)
    found(config, single(addresses=("10.0.0.1",)))
    store = SqliteStore(founding.database(config))
    try:
        (node,) = load(store.load()).nodes.values()
    finally:
        store.close()
    assert (node.port, node.export_port) == (EXPORT_PORT_FIRST, EXPORT_PORT_FIRST + 1)


@pytest.mark.usefixtures("routed")
def test_a_single_host_with_fewer_roles_is_none(config: Config) -> None:
    with pytest.raises(InvalidError, match="a single host has all roles"):
        found(config, single(roles=(Role.MANAGER, Role.HEAD)))


@pytest.mark.usefixtures("routed")
def test_another_first_host_is_told_its_addresses_and_keeps_copies_on_hosts(
    config: Config,
) -> None:
    with pytest.raises(InvalidError, match="no data address"):
        found(config, InitCluster(name="", node="n1"))
    found(config, InitCluster(name="", node="n1", addresses=("10.0.0.1",)))
    assert copies_apart(config) is Apart.HOST


def test_the_default_route_by_the_real_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    found = of_default_route()
    assert len(found) <= 1
    for address in found:
        assert not ipaddress.ip_address(address).is_loopback
    monkeypatch.setattr(addresses, "_ELSEWHERE", ())
    assert of_default_route() == ()


def test_an_address_that_is_given_twice_is_refused(config: Config) -> None:
    with pytest.raises(InvalidError, match="there twice"):
        found(config, single(addresses=("::1", "0:0::1")))
    assert not founding.database(config).exists()


class Devices:
    """HostKernel, as far as a host without a cluster asks it."""

    def __init__(self, *names: str) -> None:
        self.dm = self
        self._names = names

    async def devices(self) -> tuple[DmDevice, ...]:
        return tuple(DmDevice(name, "VASTSKY-x", "/dev/dm-0", 1, 0, ()) for name in self._names)

    def close(self) -> None:
        pass


@pytest.mark.usefixtures("routed")
async def test_a_host_with_anothers_volumes_founds_no_cluster(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take them down under whoever uses them: its state directory may just be lost."""
    there = Devices("vastsky-extent-00000000000000e1", "vastsky-volume-data")
    monkeypatch.setattr(daemon, "HostKernel", lambda *_: there)
    host = daemon.Host(config, CallsHere())
    with pytest.raises(BusyError, match="attached here: vastsky-volume-data") as refused:
        await host.init(single())
    assert "state directory" in refused.value.hint
    with pytest.raises(BusyError):
        await host.join("", (), "", "", ())
    assert not founding.database(config).exists()
