"""What is in built packages, as their own tools say."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

TOOL_LIMIT_S = 300
MAN_PAGES = Path(__file__).resolve().parents[2] / "docs/man"


@dataclass(frozen=True)
class Package:
    """`files`: without directories."""

    name: str
    files: frozenset[str]
    fields: dict[str, str]
    scripts: str
    configuration: frozenset[str]


def tool(*command: str | Path, may_fail: bool = False) -> str:
    """What it prints. It is there, or the test has failed."""
    name = str(command[0])
    if shutil.which(name) is None:
        pytest.fail(f"{name} is not installed: ./run test installs it", pytrace=False)
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TOOL_LIMIT_S,
        check=False,
    )
    if done.returncode != 0 and not may_fail:
        pytest.fail(f"{name}: {done.stderr or done.stdout}", pytrace=False)
    return done.stdout


def read_deb(path: Path, work: Path) -> Package:
    listed = tool("dpkg-deb", "--contents", path).splitlines()
    folder = work / path.stem
    tool("dpkg-deb", "--control", path, folder)
    fields = re.findall(r"^(\S+): (.*)$", tool("dpkg-deb", "--field", path), re.M)
    scripts = [folder / name for name in ("preinst", "postinst", "prerm", "postrm")]
    conffiles = folder / "conffiles"
    return Package(
        name=path.name.partition("_")[0],
        files=frozenset(line.split()[5][1:] for line in listed if not line.startswith("d")),
        fields=dict(fields),
        scripts="".join(each.read_text() for each in scripts if each.exists()),
        configuration=frozenset(conffiles.read_text().split() if conffiles.exists() else ()),
    )


def read_rpm(path: Path) -> Package:
    def ask(*words: str) -> list[str]:
        return tool("rpm", "--query", *words, "--package", path).splitlines()

    kinds = ask("--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]")
    fields = {
        field: ", ".join(ask(f"--{field.lower()}"))
        for field in ("Requires", "Recommends", "Suggests", "Enhances")
    }
    return Package(
        name=path.name.rsplit("-", 2)[0],
        files=frozenset(line.split()[1] for line in kinds if not line.startswith("d")),
        fields=fields,
        scripts="\n".join(ask("--scripts")),
        configuration=frozenset(ask("--configfiles")),
    )


def documents(package: Package) -> frozenset[str]:
    """What is there to read, but man pages, licences and logs of changes, as files."""
    return frozenset(
        file
        for file in package.files
        if file.startswith("/usr/share/doc/") and file.removesuffix(".gz").endswith(".md")
    )


def documents_named() -> dict[str, str]:
    """By man pages: the file of each, and the package that they say has it ("" if they do not)."""
    named = r"\*(/usr/share/doc/[^*]+)\*(?:\s+\(package\s+\*([\w-]+)\*\))?"
    return {
        file: package
        for page in MAN_PAGES.glob("*.md")
        for file, package in re.findall(named, page.read_text())
    }


def installed(package: Package) -> frozenset[str]:
    """The files that both kinds of package have, by Debian's names. Each distribution has its own
    ways to compress, to compile, to record what was installed, and to name licences."""
    return frozenset(
        _by_debian_name(file)
        for file in package.files
        if not file.startswith(("/usr/share/doc/", "/usr/share/licenses/"))
        and "/__pycache__/" not in file
        and ".dist-info/" not in file
    )


def _by_debian_name(file: str) -> str:
    file = re.sub(r"^/usr/lib/python3\.\d+/site-packages/", "/usr/lib/python3/dist-packages/", file)
    file = file.replace("/zsh/site-functions/", "/zsh/vendor-completions/")
    return file.removesuffix(".gz")
