"""A host by its credentials and certificates: over real TLS, without a kernel."""

import asyncio
import logging
import stat
from pathlib import Path

import msgspec
import pytest

from tests.fakes.addresses import FakeAddresses
from tests.kernel.calls_here import CallsHere
from tests.wire.lab import HOST, M1, NOW_S, S1, Lab, soon, until
from tests.wire.test_join import manager_of, token_for
from vastskyd.config.settings import Config
from vastskyd.core.errors import DamagedError, InvalidError, NotFoundError
from vastskyd.core.model import Role
from vastskyd.roles import daemon, founding
from vastskyd.roles.credentials import ADDRESSES, JOIN_TOKEN, NODE_KEY, Credentials
from vastskyd.roles.daemon import Host
from vastskyd.store import identity as identities
from vastskyd.store.identity import Identity
from vastskyd.wire.ca import NodeKey, key_pem


class Booting(Host):
    """One that has joined, and does no more."""

    async def _live(self, identity: Identity) -> None:
        del identity


def given(directory: Path, **named: str) -> Credentials:
    directory.mkdir()
    names = {"token": JOIN_TOKEN, "addresses": ADDRESSES, "key": NODE_KEY}
    for name, content in named.items():
        (directory / names[name]).write_text(content + "\n")
    return Credentials(directory)


def config(directory: Path) -> Config:
    return Config(state_dir=str(directory / "state"), runtime_dir=str(directory / "run"))


async def test_a_host_joins_by_its_credentials_at_first_boot(lab: Lab, tmp_path: Path) -> None:
    manager, registrar = await manager_of(lab)
    token = token_for(lab, manager).encode()
    credentials = given(tmp_path / "credentials", token=token, addresses=f"{HOST}, 127.0.0.9")
    await soon(Booting(config(tmp_path), CallsHere(), credentials).run())
    ((request, _),) = registrar.seen
    assert request.addresses == (HOST, "127.0.0.9")
    joined = identities.load(tmp_path / "state")
    assert joined is not None
    assert (joined.manager, joined.roles) == (M1, (Role.STORAGE,))
    # It has joined: the token counts no more, whatever it says.
    again = given(tmp_path / "again", token="junk")
    await soon(Booting(config(tmp_path), CallsHere(), again).run())
    assert len(registrar.seen) == 1


async def test_a_host_that_comes_up_before_the_manager_tries_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemon, "_JOIN_AGAIN_S", 0.05)
    manager, registrar = await manager_of(lab)
    port = manager.hub.port
    await manager.hub.stop()
    token = token_for(lab, manager, port=port).encode()
    host = Booting(
        config(tmp_path), CallsHere(), given(tmp_path / "c", token=token, addresses=HOST)
    )
    booting = asyncio.create_task(host.run())
    await until(lambda: "tried again" in caplog.text)
    await lab.node(M1, port=port, on_join=registrar.on_join)
    await soon(booting)
    assert identities.load(tmp_path / "state") is not None
    assert caplog.text.count("tried again") == 1


async def test_a_host_whose_address_comes_later_joins_once_it_is_there(
    lab: Lab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(daemon, "_JOIN_AGAIN_S", 0.05)
    manager, registrar = await manager_of(lab)
    token = token_for(lab, manager).encode()
    here = FakeAddresses("10.0.0.7")
    credentials = given(tmp_path / "c", token=token, addresses="10.0.0.7, 10.0.1.7")
    booting = asyncio.create_task(
        Booting(config(tmp_path), CallsHere(), credentials, addresses=here).run()
    )
    await until(lambda: "tried again" in caplog.text)
    await asyncio.sleep(0.2)
    assert caplog.messages.count(
        "join: this host has no address 10.0.1.7; tried again (it has 10.0.0.7; give --address"
        " once per data network, the same order on every host, or write addresses = [...] in"
        " /etc/vastsky/vastskyd.toml)"
    ) == 1  # fmt: skip
    assert not registrar.seen
    here.own = ("10.0.0.7", "10.0.1.7")
    await soon(booting)
    ((request, _),) = registrar.seen
    assert request.addresses == ("10.0.0.7", "10.0.1.7")


async def test_who_is_there_to_ask_is_refused_at_once(lab: Lab, tmp_path: Path) -> None:
    manager, registrar = await manager_of(lab)
    token = token_for(lab, manager).encode()
    host = Booting(config(tmp_path), CallsHere(), addresses=FakeAddresses("10.0.0.7"))
    with pytest.raises(NotFoundError, match=r"this host has no address 10\.0\.0\.9"):
        await host.join(token, ("10.0.0.9",), "", "", ())
    other = token_for(lab, manager, addresses=("10.0.0.1",)).encode()
    with pytest.raises(InvalidError, match=r"127\.0\.0\.1 leads other hosts to themselves"):
        await host.join(other, ("127.0.0.1",), "", "", ())
    assert not registrar.seen
    assert identities.load(tmp_path / "state") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"expires_s": NOW_S - 5}, "expired"), ({"secret": "other"}, "not valid")],
    ids=["expired", "wrong"],
)
async def test_a_token_that_will_never_do_is_not_tried_again(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, object],
    said: str,
) -> None:  # fmt: skip
    manager, registrar = await manager_of(lab)
    token = token_for(lab, manager, **changes).encode()
    host = Booting(
        config(tmp_path), CallsHere(), given(tmp_path / "c", token=token, addresses=HOST)
    )
    booting = asyncio.create_task(host.run())
    await until(lambda: any(r.levelno == logging.ERROR for r in caplog.records))
    assert said in caplog.text
    await asyncio.sleep(0.1)
    assert len(registrar.seen) <= 1
    # A person can still join it by hand.
    good = token_for(lab, manager).encode()
    await soon(host.join(good, (HOST,), "", "", ()))
    await soon(booting)


async def test_a_key_that_is_a_credential_lies_on_no_disk(lab: Lab, tmp_path: Path) -> None:
    manager, registrar = await manager_of(lab)
    key = NodeKey.create()
    credentials = given(
        tmp_path / "c", token=token_for(lab, manager).encode(), addresses=HOST,
        key=key_pem(key.key),
    )  # fmt: skip
    settings = config(tmp_path)
    await soon(Booting(settings, CallsHere(), credentials).run())
    assert registrar.seen
    assert not list((tmp_path / "state").rglob("server-key.pem"))
    in_use = founding.tls_in_use(settings, credentials)
    assert in_use == tmp_path / "run" / "tls"
    assert NodeKey.load(in_use).key.public_key() == key.key.public_key()
    assert stat.S_IMODE((in_use / "server-key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(in_use.stat().st_mode) == 0o700
    # All of it works: QEMU's names, and the kernel's client.
    assert (in_use / "client-key.pem").resolve() == in_use / "server-key.pem"
    node = await lab.node(S1, directory=lab.enrol(S1))
    assert await node.hub.probe(M1, (HOST,), manager.hub.port)


def test_a_key_of_another_certificate_is_refused(lab_directory: Path, tmp_path: Path) -> None:
    settings = msgspec.structs.replace(config(tmp_path), state_dir=str(lab_directory))
    other = given(tmp_path / "c", key=key_pem(NodeKey.create().key))
    with pytest.raises(DamagedError, match="another key"):
        founding.tls_in_use(settings, other)
    assert founding.tls_in_use(settings, Credentials(None)) == lab_directory / "tls"


@pytest.mark.parametrize("junk", [b"junk", b"\xff\xfe\0", b""], ids=repr)
def test_a_certificate_that_is_none_is_said_to_be_so(
    lab_directory: Path, tmp_path: Path, junk: bytes
) -> None:
    settings = msgspec.structs.replace(config(tmp_path), state_dir=str(lab_directory))
    key = given(tmp_path / "c", key=(lab_directory / "tls/server-key.pem").read_text())
    (lab_directory / "tls/server-cert.pem").write_bytes(junk)
    with pytest.raises(DamagedError):
        founding.tls_in_use(settings, key)


def test_units_find_the_certificate_at_one_place_wherever_the_key_is(
    lab_directory: Path, tmp_path: Path
) -> None:
    kept = lab_directory / "tls"
    settings = msgspec.structs.replace(config(tmp_path), state_dir=str(lab_directory))
    key = (kept / "server-key.pem").read_text()
    place = tmp_path / "run" / "tls"
    for credentials in (Credentials(None), given(tmp_path / "c", key=key), Credentials(None)):
        in_use = founding.tls_in_use(settings, credentials)
        assert place.resolve() == in_use
        assert (place / "server-key.pem").read_text() == key
        # A key in memory is not written through the link, nor one on disk removed with it.
        assert (kept / "server-key.pem").exists()
        assert place.is_symlink() == (credentials.directory is None)


@pytest.fixture
async def lab_directory(lab: Lab) -> Path:
    directory = lab.enrol(S1)
    state = lab.directory / "kept"
    state.mkdir()
    return directory.rename(state / "tls").parent


async def test_a_reload_rereads_certificates_and_keeps_sessions(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    state = tmp_path / "state"
    state.mkdir()
    tls = lab.enrol(M1).rename(state / "tls")
    manager, storage = await lab.node(M1, directory=tls), await lab.node(S1)
    storage.hub.keep(M1, (HOST,), manager.hub.port)
    await until(lambda: S1 in manager.hub.connected())
    host = Host(config(tmp_path), CallsHere())
    host._hub = manager.hub

    async def shown_serial() -> int:
        raw = await lab.raw(manager, directory=lab.enrol(S1))
        return int(raw.writer.get_extra_info("peercert")["serialNumber"], 16)

    before = await shown_serial()
    key = NodeKey.load(tls)
    key.save(tls, lab.ca.issue(key.csr_pem(), M1, (HOST,), NOW_S), lab.ca.certificate_pem)
    assert await shown_serial() == before
    host.reconfigure(config(tmp_path))
    after = await shown_serial()
    assert after != before
    assert "certificates reread" in caplog.messages
    (tls / "server-cert.pem").write_text("junk")
    host.reconfigure(config(tmp_path))
    assert await shown_serial() == after
    assert any(m.startswith("the certificates were not reread") for m in caplog.messages)
    assert storage.changes == [(M1, True)]
