"""The built package on a stock Debian host: installed, upgraded, removed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.guest import Guest
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

SMOKE = Path(__file__).resolve().parents[2] / "packaging/debian/tests/smoke"


@pytest.fixture(scope="module")
def guest(deb: Path) -> Iterator[Guest]:
    with Lab() as lab:
        lab.up(["host"])
        lab.install(deb)
        yield lab["host"]


def test_units_and_rules_are_well_formed_and_vastskyd_answers(guest: Guest) -> None:
    guest.put("/root/smoke", SMOKE.read_bytes(), 0o755)
    guest.run("/root/smoke", timeout_s=90)


def test_nothing_was_compiled_for_one_python_only(guest: Guest) -> None:
    listed = guest.run("dpkg -L vastskyd").stdout
    assert "/usr/lib/python3/dist-packages/vastskyd/__init__.py" in listed
    assert "/usr/lib/python3.1" not in listed


def test_an_upgrade_restarts_vastskyd_and_nothing_else(guest: Guest, deb: Path) -> None:
    unit = "[Service]\nExecStart=/usr/bin/sleep 600\n"
    guest.put("/run/systemd/system/vastsky-export@bystander.service", unit.encode())
    guest.run("systemctl daemon-reload && systemctl start vastsky-export@bystander.service")
    before = guest.run("systemctl show -P MainPID vastskyd vastsky-export@bystander").stdout.split()
    guest.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i /root/{deb.name}", timeout_s=120)
    after = guest.run("systemctl show -P MainPID vastskyd vastsky-export@bystander").stdout.split()
    assert after[0] != before[0]
    assert after[1] == before[1] != "0"
    guest.run("systemctl stop vastsky-export@bystander.service")


def test_purging_leaves_nothing(guest: Guest) -> None:
    guest.run("DEBIAN_FRONTEND=noninteractive dpkg --purge vastskyd", timeout_s=120)
    left = guest.run(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /root \\) -prune -o"
        " -iname '*vastsky*' -not -path '*vastsky-lab*' -print",
        timeout_s=60,
    ).stdout
    assert left == ""
