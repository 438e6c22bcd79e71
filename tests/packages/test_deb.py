"""The Debian packages as they are built: what lintian says, what is in which, and what they do to a
host that is upgraded. What they do when they are installed is shown in guests, by tests/demo."""

import gzip
import io
import re
import subprocess
import tarfile
import tomllib
from itertools import combinations
from pathlib import Path

import pytest

from tests.packages.built import Package, documents, documents_named, read_deb, tool
from vastskyd.dbus.interfaces import INTERFACES
from vastskyd.dbus.manual_words import WORDS

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SPLIT = "0.2.0~"
"""Since then there are four; before there was one that had it all."""

# Debian 12's lintian does not know Debian 13's policy, and asks for what 13's no longer does.
OUTGROWN = ("newer-standards-version", "package-supports-alternative-init-but-no-init.d-script")


@pytest.fixture(scope="module")
def packages(
    debs: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Package]:
    work = tmp_path_factory.mktemp("control")
    found = [read_deb(deb, work) for deb in debs]
    return {package.name: package for package in found}


def test_lintian_finds_nothing(debs: tuple[Path, ...]) -> None:
    (changes,) = debs[0].parent.glob(f"vastskyd_{VERSION}_*.changes")
    assert ".dsc" in changes.read_text(), "the source is to be looked at as well"
    options = ("--pedantic", "--display-info", "--display-experimental", "--no-cfg")
    found = tool("lintian", *options, changes, may_fail=True).splitlines()
    version = re.findall(r"(\d+)\.(\d+)", tool("lintian", "--version"))[0]
    if tuple(map(int, version)) < (2, 118):
        found = [line for line in found if not any(tag in line for tag in OUTGROWN)]
    assert found == []


def test_nothing_is_overridden() -> None:
    assert [*ROOT.glob("packaging/**/*lintian-overrides*")] == []


def test_each_file_is_in_one_package(packages: dict[str, Package]) -> None:
    for one, other in combinations(packages.values(), 2):
        assert not one.files & other.files, f"{one.name} and {other.name}"


def test_what_is_in_which(packages: dict[str, Package]) -> None:
    where = {file: name for name, package in packages.items() for file in package.files}
    daemon = (
        "/usr/bin/vastskyd",
        "/usr/share/locale/de/LC_MESSAGES/vastskyd.mo",
        "/etc/vastsky/vastskyd.toml",
        "/usr/lib/systemd/system/vastskyd.service",
        "/usr/lib/systemd/system/vastsky-export@.service",
        "/usr/lib/udev/rules.d/56-vastsky.rules",
        "/usr/lib/modules-load.d/vastskyd.conf",
        "/usr/lib/sysusers.d/vastskyd.conf",
        "/usr/lib/tmpfiles.d/vastskyd.conf",
        "/usr/share/dbus-1/interfaces/org.vastsky.Vastsky1.xml",
        "/usr/share/dbus-1/system-services/org.vastsky.Vastsky1.service",
        "/usr/share/dbus-1/system.d/org.vastsky.Vastsky1.conf",
        "/usr/share/polkit-1/actions/org.vastsky.vastsky1.policy",
        "/usr/share/man/man5/org.vastsky.Vastsky1.5.gz",
        "/usr/share/man/man5/vastskyd.toml.5.gz",
        "/usr/share/man/man8/vastskyd.8.gz",
    )
    client = (
        "/usr/bin/vastskyctl",
        "/usr/share/bash-completion/completions/vastskyctl",
        "/usr/share/fish/vendor_completions.d/vastskyctl.fish",
        "/usr/share/man/man1/vastskyctl.1.gz",
        "/usr/share/zsh/vendor-completions/_vastskyctl",
    )
    assert {where.get(file) for file in daemon} == {"vastskyd"}
    assert {where.get(file) for file in client} == {"vastsky-client"}
    sources = {path.relative_to(ROOT) for path in (ROOT / "vastskyd").rglob("*.py")}
    modules = {f"/usr/lib/python3/dist-packages/{path}" for path in sources}
    assert modules <= packages["python3-vastskyd"].files
    pages = {"README.md", *(path.name for path in (ROOT / "docs").glob("*.md"))}
    place = "/usr/share/doc/vastskyd"
    assert documents(packages["vastsky-client"]) == {f"{place}/json.md"}
    assert documents(packages["vastskyd-doc"]) == {
        f"{place}/{name}" for name in pages - {"json.md"}
    }


def test_documents_that_man_pages_name_are_there(packages: dict[str, Package]) -> None:
    """With vastskyd itself come vastsky-client's; the others' package is named."""
    assert len(documents_named()) >= 2
    for file, package in documents_named().items():
        assert file in packages[package or "vastsky-client"].files, file


def test_the_man_page_of_the_interface_has_all_of_it(debs: tuple[Path, ...]) -> None:
    """As groff will read it: markup that was misread is missing here."""
    (daemon,) = (deb for deb in debs if deb.name.startswith("vastskyd_"))
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", daemon], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        found = archive.extractfile("./usr/share/man/man5/org.vastsky.Vastsky1.5.gz")
        assert found is not None
        page = gzip.decompress(found.read()).decode()
    assert re.search(r'^\.TH "?org\.vastsky\.Vastsky1"? "?5"?', page, re.M | re.I)
    members = [each.name for interface in INTERFACES for each in interface.methods]
    members += [each.name for interface in INTERFACES for each in interface.signals]
    members += [each.name for interface in INTERFACES for each in interface.properties]
    for name in members:
        assert rf"\fB{name}\fP" in page, name
    for name in WORDS:
        assert rf"\fB{name}\fP" in page.replace(r"\_", "_").replace(r"\&.", "."), name


def test_what_another_package_had_is_taken_over_from_it(packages: dict[str, Package]) -> None:
    for name in packages.keys() - {"vastskyd"}:
        fields = packages[name].fields
        assert fields["Breaks"] == fields["Replaces"] == f"vastskyd (<< {SPLIT})"


def test_one_version_is_installed_of_all(packages: dict[str, Package]) -> None:
    exactly = f"(= {VERSION})"
    daemon = packages["vastskyd"].fields["Depends"]
    assert f"python3-vastskyd {exactly}" in daemon
    assert f"vastsky-client {exactly}" in daemon
    assert f"python3-vastskyd {exactly}" in packages["vastsky-client"].fields["Depends"]


def test_only_vastskyd_is_ever_started_or_stopped(packages: dict[str, Package]) -> None:
    """The export units are the data path, and no upgrade may touch them."""
    for package in packages.values():
        touched = set(re.findall(r"[\w@.-]+\.(?:service|target|socket|slice)\b", package.scripts))
        assert touched == ({"vastskyd.service"} if package.name == "vastskyd" else set())
    script = packages["vastskyd"].scripts
    assert "_dh_action=restart" in script
    assert re.findall(r"deb-systemd-invoke (\S+) '?([\w.@-]+)", script) == [
        ("$_dh_action", "vastskyd.service"),
        ("stop", "vastskyd.service"),
    ]


def test_what_is_in_use_is_not_removed(packages: dict[str, Package]) -> None:
    """It is asked before vastskyd is stopped."""
    asked, _, after = packages["vastskyd"].scripts.partition("/usr/libexec/vastskyd/refuse-removal")
    assert "deb-systemd-invoke stop" in after
    assert "deb-systemd-invoke stop" not in asked
    assert "/usr/libexec/vastskyd/refuse-removal" in packages["vastskyd"].files


def test_the_settings_are_the_administrators(packages: dict[str, Package]) -> None:
    changed = {name: package.configuration for name, package in packages.items()}
    assert changed.pop("vastskyd") == {"/etc/vastsky/vastskyd.toml"}
    assert not any(changed.values())
