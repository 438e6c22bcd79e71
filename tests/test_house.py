"""The house rules, as tests."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import vastskyd

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent
TOOL_LIMIT_S = 600
LINES_MAX = 600
MODULES = sorted((ROOT / "vastskyd").rglob("*.py"))


def check(*command: str) -> None:
    """Fails with what the tool says, and nothing else."""
    done = subprocess.run(
        [TOOLS / command[0], *command[1:]],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TOOL_LIMIT_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stdout.strip() or f"exit {done.returncode}, and no word"
        pytest.fail(f"{' '.join(command)}:\n{said}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", "--output-format=concise", ".")


def test_code_is_formatted() -> None:
    check("ruff", "format", "--check", ".")


def test_types_are_right() -> None:
    check("mypy")


def test_imports_go_down() -> None:
    check("lint-imports")


def test_no_module_is_two() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in MODULES}
    long = [f"{path.relative_to(ROOT)}: {n} lines" for path, n in sizes.items() if n > LINES_MAX]
    assert not long, f"past {LINES_MAX} lines a module is two: {long}"


def test_shell_scripts_can_be_read() -> None:
    autopkgtests = ("packaging/debian/tests/smoke", "packaging/debian/tests/cluster")
    others = (".ci/run", "tests/vagrant/with-libvirt")
    packaged = ("packaging/install-system-files", "packaging/refuse-removal")
    for script in ("run", *others, *packaged, *autopkgtests):
        subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_package_has_the_version_of_the_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changelog = (ROOT / "packaging/debian/changelog").read_text()
    newest = re.match(r"vastskyd \((.+?)\)", changelog)
    assert newest is not None
    assert newest[1] == project["version"] == vastskyd.__version__


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(each for extra in extras for each in extra)]
    explained = (ROOT / "docs/dependencies.md").read_text()
    names = [re.split(r"[<>=!~\[; ]", each)[0] for each in wanted]
    missing = [name for name in names if f"`{name}`" not in explained]
    assert not missing, f"docs/dependencies.md does not say why: {missing}"
