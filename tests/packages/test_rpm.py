"""The RPM packages, as far as they can be judged without Fedora: docs/packaging.md says what is
left."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.packages.built import Package, documents, installed, read_deb, read_rpm, tool

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "packaging/rpm/vastskyd.spec"
# Debian 12's rpmlint compares programs with the numbers of sections; the test below does it right.
WRONG = "no-manual-page-for-binary"


@pytest.fixture(scope="module")
def ours(rpms: tuple[Path, ...]) -> dict[str, Package]:
    found = [read_rpm(rpm) for rpm in rpms]
    return {package.name: package for package in found}


@pytest.fixture(scope="module")
def debians(debs: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    work = tmp_path_factory.mktemp("control")
    found = [read_deb(deb, work) for deb in debs]
    return {package.name: package for package in found}


def test_rpmlint_finds_nothing(rpms: tuple[Path, ...]) -> None:
    sources = rpms[0].parent.glob("*.src.rpm")
    config = SPEC.with_name("rpmlint-outside-fedora.toml")
    said = tool("rpmlint", "--config", config, *rpms, *sources, SPEC, may_fail=True)
    assert "5 packages and 1 specfiles checked" in said
    found = re.findall(r"^\S+ [EW]: .*$", said, re.M)
    if said.count("rpmlint: 2.4."):
        found = [line for line in found if WRONG not in line]
    assert found == []


def test_each_program_has_a_man_page(ours: dict[str, Package]) -> None:
    for package in ours.values():
        for program in (file for file in package.files if file.startswith("/usr/bin/")):
            page = re.compile(rf"/usr/share/man/man[18]/{Path(program).name}\.[18]\.gz")
            assert any(page.fullmatch(file) for file in package.files), program


def test_the_files_are_those_of_the_debian_packages(
    ours: dict[str, Package], debians: dict[str, Package]
) -> None:
    assert ours.keys() == debians.keys()
    for name, package in ours.items():
        assert installed(package) == installed(debians[name]), name
    for name in ("vastsky-client", "vastskyd-doc"):
        assert documents(ours[name]) == documents(debians[name])


def test_the_settings_are_the_administrators(
    ours: dict[str, Package], debians: dict[str, Package]
) -> None:
    for name, package in ours.items():
        assert package.configuration == debians[name].configuration
    assert "%config(noreplace) %{_sysconfdir}/vastsky/vastskyd.toml" in SPEC.read_text()


def test_only_vastskyd_is_ever_started_or_stopped(ours: dict[str, Package]) -> None:
    for package in ours.values():
        touched = set(re.findall(r"[\w@.-]+\.(?:service|target|socket|slice)\b", package.scripts))
        assert touched == ({"vastskyd.service"} if package.name == "vastskyd" else set())
    assert "mark-restart-system-units vastskyd.service" in ours["vastskyd"].scripts


def test_what_is_in_use_is_not_removed(ours: dict[str, Package]) -> None:
    """It is asked before vastskyd is stopped."""
    asked, _, after = ours["vastskyd"].scripts.partition("/usr/libexec/vastskyd/refuse-removal")
    assert "remove-system-units" in after
    assert "remove-system-units" not in asked
    assert "/usr/libexec/vastskyd/refuse-removal" in ours["vastskyd"].files


def test_python_packages_are_asked_for_as_the_project_says(ours: dict[str, Package]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = re.findall(r"dist\((\S+)\) >= ([\d.]+)", ours["python3-vastskyd"].fields["Requires"])
    assert {f"{name}>={version}" for name, version in asked} == set(project["dependencies"])


def test_programs_are_asked_for_as_documented(
    ours: dict[str, Package], debians: dict[str, Package]
) -> None:
    """docs/dependencies.md names each in both distributions."""
    text = (ROOT / "docs/dependencies.md").read_text()
    section = text.partition("## Programs, at run time\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", section, re.M)[1:]
    strengths = {"recommended": "Recommends", "suggested": "Suggests"}
    assert len(rows) > 5
    for in_debian, in_fedora, why in rows:
        field = strengths.get(why.partition(":")[0])
        for names, found, by_default in (
            (in_debian, debians["vastskyd"], "Depends"),
            (in_fedora, ours["vastskyd"], "Requires"),
        ):
            for name in names.split(", "):
                plain = name.strip("`")
                pattern = rf"(?<![\w./-]){re.escape(plain)}(?![\w/-])"
                assert re.search(pattern, found.fields[field or by_default]), name


def test_it_has_the_version_of_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    spec = SPEC.read_text()
    assert re.findall(r"^Version: +(\S+)$", spec, re.M) == [project["version"]]
    newest = re.search(r"^%changelog\n\* .* - (\S+)-\d+$", spec, re.M)
    assert newest is not None
    assert newest[1] == project["version"]
