"""A cluster is made: what the first host becomes."""

from pathlib import Path

import msgspec
import pytest

from tests.fakes.addresses import FakeAddresses
from tests.kernel.calls_here import CallsHere
from vastskyd.config.settings import Config
from vastskyd.core.api import InitCluster
from vastskyd.core.errors import BusyError, InvalidError, NotFoundError
from vastskyd.core.model import Apart, Role
from vastskyd.core.reaching import EXPORT_PORT_FIRST
from vastskyd.core.state import load
from vastskyd.kernel.clock import SystemClock
from vastskyd.ports import DmDevice
from vastskyd.roles import daemon, founding
from vastskyd.roles.credentials import Credentials
from vastskyd.store.identity import Identity
from vastskyd.store.sqlite import SqliteStore

ROUTE = "10.20.30.40"
HERE = FakeAddresses("10.0.0.1", "169.254.7.7", ROUTE, "10.0.1.1", "fe80::1", routed=ROUTE)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=str(tmp_path / "state"))


def single(**members: object) -> InitCluster:
    return InitCluster(name="", node="n1", single=True, **members)  # type: ignore[arg-type]


def found(config: Config, request: InitCluster, here: FakeAddresses = HERE) -> Identity:
    return founding.found(config, SystemClock(), request, Credentials(None), here)


def copies_apart(config: Config) -> Apart:
    store = SqliteStore(founding.database(config))
    try:
        return load(store.load()).the_cluster().copies_apart
    finally:
        store.close()


def test_a_single_host_has_all_roles_and_the_address_of_its_default_route(config: Config) -> None:
    made = found(config, single())
    assert (made.roles, made.addresses) == (tuple(Role), (ROUTE,))
    assert copies_apart(config) is Apart.DISK


def test_an_address_that_is_given_goes_before(config: Config) -> None:
    made = found(config, single(addresses=("10.0.0.1", "10.0.1.1")))
    assert made.addresses == ("10.0.0.1", "10.0.1.1")


def test_without_a_default_route_an_address_is_to_be_given(config: Config) -> None:
    two = FakeAddresses("10.0.0.1", "10.0.1.1")
    with pytest.raises(InvalidError, match="no data address") as refused:
        found(config, single(), two)
    assert refused.value.hint.startswith("it has 10.0.0.1, 10.0.1.1; give --address")
    assert found(config, single(addresses=("127.0.0.1",)), two)


def test_without_a_default_route_the_only_address_is_taken(config: Config) -> None:
    made = found(config, single(), FakeAddresses("169.254.7.7", "10.0.0.1", "fe80::1"))
    assert made.addresses == ("10.0.0.1",)


def test_a_host_without_a_network_is_told_so(config: Config) -> None:
    with pytest.raises(InvalidError, match="no data address") as refused:
        found(config, single(), FakeAddresses("fe80::1"))
    assert refused.value.hint.startswith("it has none in any network: bring that up first;")
    assert "127.0.0.1 does for a host" in refused.value.hint


@pytest.mark.parametrize("alone", [True, False])
def test_an_address_that_the_host_has_not_got_is_refused(config: Config, alone: bool) -> None:
    for given in (config, msgspec.structs.replace(config, addresses=("10.0.0.1", "10.0.0.9"))):
        wanted = () if given.addresses else ("10.0.0.1", "10.0.0.9")
        request = InitCluster(name="", node="n1", single=alone, addresses=wanted)
        with pytest.raises(
            NotFoundError, match=r"this host has no address 10\.0\.0\.9$"
        ) as refused:
            found(given, request)
        assert refused.value.hint == (
            f"it has 10.0.0.1, {ROUTE}, 10.0.1.1; give --address once per data network, the same"
            " order on every host, or write addresses = [...] in /etc/vastsky/vastskyd.toml"
        )
    assert not config.state_path.exists()


def test_of_several_that_it_has_not_got_all_are_told(config: Config) -> None:
    with pytest.raises(NotFoundError, match=r"no address 10\.0\.0\.8 and no 10\.0\.0\.9$"):
        found(config, single(addresses=("10.0.0.8", "10.0.0.1", "10.0.0.9")))


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


def test_a_single_host_with_fewer_roles_is_none(config: Config) -> None:
    with pytest.raises(InvalidError, match="a single host has all roles"):
        found(config, single(roles=(Role.MANAGER, Role.HEAD)))


def test_another_first_host_is_told_its_addresses_and_keeps_copies_on_hosts(
    config: Config,
) -> None:
    with pytest.raises(InvalidError, match="no data address"):
        found(config, InitCluster(name="", node="n1"))
    found(config, InitCluster(name="", node="n1", addresses=("10.0.0.1",)))
    assert copies_apart(config) is Apart.HOST


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


async def test_a_host_with_anothers_volumes_founds_no_cluster(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take them down under whoever uses them: its state directory may just be lost."""
    there = Devices("vastsky-extent-00000000000000e1", "vastsky-volume-data")
    monkeypatch.setattr(daemon, "HostKernel", lambda *_: there)
    host = daemon.Host(config, CallsHere(), addresses=HERE)
    with pytest.raises(BusyError, match="attached here: vastsky-volume-data") as refused:
        await host.init(single())
    assert "state directory" in refused.value.hint
    with pytest.raises(BusyError):
        await host.join("", (), "", "", ())
    assert not founding.database(config).exists()
