"""The units' sandboxes, as systemd judges them without running them.

What stands open is listed here as well as in the units, so that nothing opens unnoticed.
"""

import json
import subprocess
from pathlib import Path

import pytest

from vastskyd.config.settings import Config
from vastskyd.roles.founding import ca_directory, database, tls_directory
from vastskyd.store import identity
from vastskyd.wire.ca import CA_CERT, DH_PARAMETERS, NODE_CERT, NODE_KEY

UNITS = Path(__file__).resolve().parents[2] / "units"
PACKAGING = UNITS.parent / "packaging"

EXPOSURE_MOST = {
    "vastskyd.service": 35,
    "vastsky-export@.service": 15,
    "vastsky-let-go.service": 28,
    "vastsky-attach@.service": 10,
    "vastsky-file@.service": 35,
}

# Of every service with its user root, the host's file system and network, and sockets.
ANY_OPEN = {
    "PrivateNetwork",
    "RestrictAddressFamilies_AF_INET_INET6",
    "RestrictAddressFamilies_AF_NETLINK",
    "RestrictAddressFamilies_AF_UNIX",
    "RootDirectoryOrRootImage",
    "UserOrDynamicUser",
    "DeviceAllow",
    "PrivateDevices",
    "ProcSubset",
}
DAEMON_OPEN = ANY_OPEN | {
    "CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER",
    "CapabilityBoundingSet_CAP_KILL",
    "CapabilityBoundingSet_CAP_MKNOD",
    "CapabilityBoundingSet_CAP_NET_BIND_SERVICE_BROADCAST_RAW",
    "CapabilityBoundingSet_CAP_SYS_ADMIN",
    "CapabilityBoundingSet_CAP_SYS_NICE_RESOURCE",
    "CapabilityBoundingSet_CAP_SYS_PTRACE",
    "CapabilityBoundingSet_CAP_SYS_RAWIO",
    "IPAddressDeny",
    "PrivateUsers",
    "ProtectKernelTunables",
    "ProtectProc",
}
OPEN = {
    "vastskyd.service": DAEMON_OPEN,
    "vastsky-export@.service": ANY_OPEN | {"UMask"},  # vastskyd's way to the socket is the group
    "vastsky-let-go.service": DAEMON_OPEN | {"PrivateTmp"},  # neither /tmp nor a folder in it
    "vastsky-attach@.service": ANY_OPEN | {"PrivateUsers"},
    # Without mounts of its own, as it says: losetup, for a moment.
    "vastsky-file@.service": ANY_OPEN
    | {
        "CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER",
        "CapabilityBoundingSet_CAP_SYS_ADMIN",
        "PrivateMounts",
        "PrivateTmp",
        "PrivateUsers",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
    },
}


def test_each_unit_is_judged() -> None:
    assert EXPOSURE_MOST.keys() == OPEN.keys() == {path.name for path in UNITS.glob("*.service")}


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("unit", EXPOSURE_MOST)
def test_no_unit_is_more_exposed_than_it_must_be(unit: str) -> None:
    threshold = f"--threshold={EXPOSURE_MOST[unit]}"
    done = analyze("security", "--offline=true", threshold, str(UNITS / unit))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", OPEN)
def test_what_stands_open_is_known(unit: str) -> None:
    done = analyze("security", "--offline=true", "--json=short", str(UNITS / unit))
    found = {e["json_field"].rstrip(")") for e in json.loads(done.stdout) if e["set"] is False}
    assert found <= OPEN[unit]
    assert "CapabilityBoundingSet_CAP_SYS_MODULE" not in found


def _lines(unit: str) -> list[str]:
    text = (UNITS / unit).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith(("#", "["))]


def test_each_capability_of_the_daemon_is_explained() -> None:
    text = (UNITS / "vastskyd.service").read_text()
    before = ""
    for line in text.splitlines():
        if line.startswith("CapabilityBoundingSet="):
            assert before.startswith("# "), line
        before = line


def _values(unit: str, key: str) -> set[str]:
    lines = (line.partition("=") for line in _lines(unit))
    return {word for name, _, words in lines if name == key for word in words.split()}


def test_an_export_server_sees_nothing_of_the_cluster() -> None:
    """It speaks to the network: neither keys nor the manager's records are there for it, nor
    sockets by which root commands the host, nor what is put there after its start."""
    unit = "vastsky-export@.service"
    shut = {path.removeprefix("-") for path in _values(unit, "InaccessiblePaths")}
    assert {path.partition(":")[0] for path in _values(unit, "TemporaryFileSystem")} == {"/run"}
    assert _values(unit, "BindPaths") == {"%t/vastsky/export/%i"}
    assert not _values(unit, "BindReadOnlyPaths")
    kept = (ca_directory, database, tls_directory)
    config = Config()
    hidden = {config.state_path / identity.FILE_NAME, *(each(config) for each in kept)}
    assert all(any(path.is_relative_to(each) for each in shut) for path in hidden)


def test_an_export_server_has_this_hosts_certificate_as_credentials() -> None:
    given = _values("vastsky-export@.service", "LoadCredential")
    place = Config(runtime_dir="%t/vastsky").runtime_path / "tls"
    names = (CA_CERT, NODE_CERT, NODE_KEY, DH_PARAMETERS)
    assert given == {f"{name}:{place / name}" for name in names}


def test_users_and_directories_are_those_of_the_units() -> None:
    user = (PACKAGING / "sysusers.d/vastskyd.conf").read_text().splitlines()[-1].split()[1]
    assert _values("vastsky-export@.service", "User") == {user}
    assert _values("vastskyd.service", "SupplementaryGroups") == {user}
    rules = (UNITS.parent / "rules.d/56-vastsky.rules").read_text()
    assert f'GROUP="{user}"' in rules
    run = Config().runtime_path
    made = (PACKAGING / "tmpfiles.d/vastskyd.conf").read_text()
    found = {line.split()[1] for line in made.splitlines() if not line.startswith("#")}
    assert found == {str(run), str(run / "export")}


@pytest.mark.parametrize("kind", ["sysusers", "tmpfiles"])
def test_systemd_reads_users_and_directories(kind: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    options = ("--create",) if kind == "tmpfiles" else ()
    done = subprocess.run(
        [f"systemd-{kind}", f"--root={tmp_path}", *options, PACKAGING / f"{kind}.d/vastskyd.conf"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if not line.startswith("Creating ")]
    assert (done.returncode, said) == (0, [])


def test_who_takes_over_may_not_do_more_than_the_daemon() -> None:
    allowed = {
        word
        for line in _lines("vastskyd.service")
        if line.startswith("CapabilityBoundingSet=")
        for word in line.partition("=")[2].split()
    }
    (asked,) = [line for line in _lines("vastsky-let-go.service") if line.startswith("CapabilityB")]
    assert set(asked.partition("=")[2].split()) < allowed


def test_a_files_path_is_handed_on_as_it_is() -> None:
    """With a colon systemd replaces no variables: "${x}" may stand in a name."""
    for key in ("ExecStart", "ExecStop"):
        (line,) = [e for e in _lines("vastsky-file@.service") if e.startswith(f"{key}=")]
        assert line.startswith(f"{key}=:/")
        assert line.endswith(" %f")
