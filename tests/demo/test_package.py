"""The built packages on a stock Debian host: installed, upgraded, removed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.guest import Guest
from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

AUTOPKGTESTS = Path(__file__).resolve().parents[2] / "packaging/debian/tests"
NAMES = "vastskyd vastsky-client python3-vastskyd vastskyd-doc"


@pytest.fixture(scope="module")
def guest(debs: tuple[Path, ...]) -> Iterator[Guest]:
    with Lab() as lab:
        lab.up(["host"])
        lab.install(debs)
        yield lab["host"]


def autopkgtest(guest: Guest, name: str, timeout_s: float) -> None:
    guest.put(f"/root/{name}", (AUTOPKGTESTS / name).read_bytes(), 0o755)
    guest.run(f"/root/{name}", timeout_s)


def test_units_and_rules_are_well_formed_and_vastskyd_answers(guest: Guest) -> None:
    autopkgtest(guest, "smoke", 90)


def test_nothing_was_compiled_for_one_python_only(guest: Guest) -> None:
    listed = guest.run(f"dpkg -L {NAMES}").stdout
    assert "/usr/lib/python3/dist-packages/vastskyd/__init__.py" in listed
    assert "/usr/lib/python3.1" not in listed


DENIED, UNREACHABLE = 6, 5
RULE = """
polkit.addRule(function(action, subject) {
    if (action.id == "org.vastsky.vastsky1.manage-cluster" && subject.user == "nobody")
        return polkit.Result.YES;
});
"""


def test_polkit_says_who_besides_root_may(guest: Guest) -> None:
    """A wrong token, so that nothing comes of it: what counts is who gets as far as that."""
    join = "vastskyctl join nonsense"
    asked = f"runuser -u nobody -- {join}"
    assert guest.run("runuser -u nobody -- vastskyctl status --local", 30).exit == 0
    assert guest.run(asked, 30, check=False).exit == DENIED
    assert guest.run(join, 30, check=False).exit not in (0, DENIED)
    rule = "/etc/polkit-1/rules.d/50-vastsky-test.rules"
    guest.put(rule, RULE.encode())
    guest.run("systemctl restart polkit")
    assert guest.run(asked, 30, check=False).exit not in (0, DENIED)
    guest.run(f"rm {rule}; systemctl stop polkit; systemctl mask --runtime polkit")
    try:
        said = guest.run(asked, 30, check=False)
        assert said.exit == DENIED
        assert guest.run(join, 30, check=False).exit not in (0, DENIED)
    finally:
        guest.run("systemctl unmask --runtime polkit")


def test_the_bus_starts_vastskyd_where_it_is_enabled(guest: Guest) -> None:
    guest.run("systemctl stop vastskyd")
    guest.run("vastskyctl status --local", 60)
    guest.run("systemctl is-active vastskyd")
    guest.run("systemctl disable --now vastskyd")
    assert guest.run("vastskyctl status --local", 60, check=False).exit == UNREACHABLE
    guest.run("systemctl enable --now vastskyd", 60)


WRONG = "/etc/vastsky/vastskyd.toml.d/wrong.toml"


def test_a_wrong_configuration_is_refused_and_nothing_else_ends(guest: Guest) -> None:
    guest.run("systemctl reload vastskyd", 30)
    running = guest.run("systemctl show -P MainPID vastskyd").stdout
    guest.put(WRONG, b"prot = 1\n")
    assert guest.run("systemctl reload vastskyd", 30, check=False).exit != 0
    assert guest.run("systemctl show -P MainPID vastskyd").stdout == running
    guest.run("vastskyctl status --local")
    said = guest.run("journalctl -q -o cat -u vastskyd -n 20").stdout
    assert f"{WRONG}:1: there is no option prot; did you mean port?" in said
    guest.run("systemctl restart vastskyd", 60, check=False)
    eventually_failed = "until [ $(systemctl is-active vastskyd) = failed ]; do sleep 0.2; done"
    guest.run(eventually_failed, 60)
    assert guest.run("systemctl show -P NRestarts vastskyd").stdout.strip() == "0"
    guest.run(f"rm {WRONG}; systemctl start vastskyd", 60)


def test_it_comes_back_to_a_bus_that_was_away(guest: Guest) -> None:
    running = guest.run("systemctl show -P MainPID vastskyd").stdout
    guest.run("systemctl restart dbus.socket dbus.service", 60)
    guest.run("until vastskyctl status --local; do sleep 0.5; done", 60)
    assert guest.run("systemctl show -P MainPID vastskyd").stdout == running


BYSTANDER = "vastsky-export@bystander.service"


def start_bystander(guest: Guest) -> None:
    """What looks like a server that a head is served by."""
    unit = "[Service]\nExecStart=/usr/bin/sleep 600\n"
    guest.put(f"/run/systemd/system/{BYSTANDER}", unit.encode())
    guest.run(f"systemctl daemon-reload && systemctl start {BYSTANDER}")


def test_an_upgrade_restarts_vastskyd_and_nothing_else(
    guest: Guest, debs: tuple[Path, ...]
) -> None:
    start_bystander(guest)
    before = guest.run("systemctl show -P MainPID vastskyd vastsky-export@bystander").stdout.split()
    files = " ".join(f"/root/{deb.name}" for deb in debs)
    guest.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i {files}", timeout_s=120)
    after = guest.run("systemctl show -P MainPID vastskyd vastsky-export@bystander").stdout.split()
    assert after[0] != before[0]
    assert after[1] == before[1] != "0"
    others = [f"/root/{deb.name}" for deb in debs if not deb.name.startswith("vastskyd_")]
    guest.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i {' '.join(others)}", timeout_s=120)
    assert guest.run("systemctl show -P MainPID vastskyd").stdout.split() == after[:1]
    guest.run(f"systemctl stop {BYSTANDER}")


SETTING = "/etc/vastsky/vastskyd.toml"


def test_an_upgrade_keeps_what_was_changed_in_the_settings(
    guest: Guest, debs: tuple[Path, ...]
) -> None:
    guest.run(f"sed -i 's/^#log_level = .*/log_level = \"debug\"/' {SETTING}")
    changed = guest.run(f"sha256sum {SETTING}").stdout
    files = " ".join(f"/root/{deb.name}" for deb in debs)
    guest.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i {files}", timeout_s=120)
    assert guest.run(f"sha256sum {SETTING}").stdout == changed


def test_a_cluster_of_one_host_is_upgraded_while_its_volume_is_used(guest: Guest) -> None:
    autopkgtest(guest, "cluster", 600)


def test_what_is_in_use_is_not_removed(guest: Guest) -> None:
    start_bystander(guest)
    for how in ("--remove", "--purge"):
        done = guest.run(
            f"DEBIAN_FRONTEND=noninteractive dpkg {how} vastskyd 2>&1", timeout_s=120, check=False
        )
        assert done.exit != 0
        assert f"that bystander uses ({BYSTANDER})" in done.stdout
        guest.run("systemctl is-active vastskyd && vastskyctl status --local", 30)
    assert " ok installed" in guest.run("dpkg -s vastskyd").stdout
    guest.run(f"systemctl stop {BYSTANDER}")


def test_removing_keeps_the_state(guest: Guest) -> None:
    guest.run("DEBIAN_FRONTEND=noninteractive dpkg --remove vastskyd", timeout_s=120)
    guest.run(f"test -s /var/lib/vastsky/manager.db && test -s {SETTING}")
    assert guest.run("systemctl is-active vastskyd", check=False).exit != 0


def test_purging_leaves_nothing_but_what_is_on_the_disks(
    guest: Guest, debs: tuple[Path, ...]
) -> None:
    files = " ".join(f"/root/{deb.name}" for deb in debs)
    guest.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i {files}", timeout_s=120)
    guest.run("truncate -s 256M /root/disk.img")
    disk = guest.run("losetup --find --show /root/disk.img").stdout.strip()
    offered = f"until vastskyctl disk list --all | grep -qw {disk}; do sleep 1; done"
    guest.run(f"{offered}; vastskyctl disk enrol {disk}", timeout_s=120)
    guest.run("systemctl stop vastskyd && sync", timeout_s=60)
    written = guest.run("sha256sum /root/disk.img", timeout_s=60).stdout
    guest.run(f"DEBIAN_FRONTEND=noninteractive dpkg --purge {NAMES}", timeout_s=120)
    assert guest.run("sha256sum /root/disk.img", timeout_s=60).stdout == written
    left = guest.run(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /root \\) -prune -o"
        " -iname '*vastsky*' -not -path '*vastsky-lab*' -print",
        timeout_s=60,
    ).stdout
    assert left == ""
