"""The kernel's contract suites once more, in a guest of the lab: against Linux itself."""

import io
import os
import tarfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.lab.guest import Disk, Guest, Result
from tests.lab.lab import Lab

ROOT = Path(__file__).parents[2]
SHIPPED = (
    "vastskyd",
    "tests/__init__.py",
    "tests/contract",
    "tests/exports",
    "pyproject.toml",
    "rules.d",
    "units",
    "packaging",
)
# All pure Python: this host's copies serve the guest's newer Python as well.
RUNNER = ("pytest", "pytest-asyncio", "pluggy", "iniconfig", "packaging")
# By guest: each has one core, and they are to end at about the same time.
SUITES = {
    "store1": ("contract/test_md.py", "contract/test_disks.py", "contract/test_udev.py"),
    "store2": (
        "contract/test_dm.py",
        "contract/test_md_resize.py",
        "contract/test_nbd.py",
        "contract/test_flushes.py",
        "contract/test_smart.py",
        "contract/test_exports.py",
        "exports/test_systemd_lab.py",
    ),
}
TIMEOUT_S = 900
# Some of these suites, or tests in them, for who tries something out.
ONLY = tuple(os.environ.get("VASTSKY_CONTRACT_ONLY", "").split())


def shipment() -> bytes:
    def without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name else member

    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in SHIPPED:
            archive.add(ROOT / name, name, filter=without_caches)
        for name in RUNNER:
            runner = distribution(name)
            for file in runner.files or ():
                if "__pycache__" not in file.parts and ".." not in file.parts:
                    archive.add(str(runner.locate_file(file)), f"site/{file}")
    return content.getvalue()


@pytest.mark.lab
def test_on_a_real_kernel() -> None:
    suites = {"store1": ONLY} if ONLY else SUITES
    with Lab() as lab:
        lab.up({name: [Disk("d1"), Disk("d2"), Disk("d3")] for name in suites})
        content = shipment()
        done = lab.each(lambda guest: run_suites(guest, content, suites[guest.name]), suites)
    for result in done.values():
        print(result.stdout)
    for result in done.values():
        assert result.exit == 0, result.stdout + result.stderr
        assert " passed" in result.stdout
        assert "skipped" not in result.stdout


def run_suites(guest: Guest, content: bytes, suites: tuple[str, ...]) -> Result:
    guest.put("/root/contract.tar", content)
    guest.run(
        "mkdir /root/contract && cd /root/contract && tar xf ../contract.tar"
        # As postinst does it: rules that name a user are read when there is one.
        " && systemd-sysusers packaging/sysusers.d/vastskyd.conf"
        " && systemd-tmpfiles --create packaging/tmpfiles.d/vastskyd.conf"
        " && cp rules.d/*.rules /etc/udev/rules.d/ && udevadm control --reload",
        timeout_s=60,
    )
    return guest.run(
        "cd /root/contract && PYTHONPATH=site VASTSKY_CONTRACT_WORLD=lab"
        " python3 -m pytest -p no:cacheprovider -q --tb=short --durations=8"
        f" --override-ini=addopts= {' '.join(f'tests/{name}' for name in suites)} 2>&1"
        " | tail -n 100; exit ${PIPESTATUS[0]}",
        timeout_s=TIMEOUT_S,
        check=False,
    )
