"""What the maintainer scripts do to a host, which is a directory here: above all, what keeps the
package from being removed while its host serves the cluster. In a guest tests/demo removes it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
SCRIPT = PACKAGING / "refuse-removal"
PRERM = PACKAGING / "debian/vastskyd.prerm"
POSTINST = PACKAGING / "debian/vastskyd.postinst"
POSTRM = PACKAGING / "debian/vastskyd.postrm"
SPEC = PACKAGING / "rpm/vastskyd.spec"
UNIT = "vastsky-export@{}.service loaded active running Vastsky export server for head {}\n"


@dataclass(frozen=True)
class Host:
    top: Path

    def __post_init__(self) -> None:
        for directory in ("run/systemd/system", "dev/vastsky/by-id", "usr/bin"):
            (self.top / directory).mkdir(parents=True)
        (self.top / "dev/dm-0").touch()
        self._script("usr/bin/systemctl", '#!/bin/sh\ncat "$0.said"\n')
        self.export_to()
        self._script("refuse-removal", self._here(SCRIPT.read_text()))
        self._script("prerm", self._here(PRERM.read_text()))

    def _here(self, text: str) -> str:
        for known in ("/dev/", "/run/"):
            text = text.replace(f" {known}", f" {self.top}{known}")
        return text.replace("/usr/libexec/vastskyd", str(self.top))

    def _script(self, name: str, text: str) -> None:
        (self.top / name).write_text(text)
        (self.top / name).chmod(0o755)

    def attach(self, name: str) -> None:
        for link in (name, f"by-id/{name}"):
            (self.top / "dev/vastsky" / link).symlink_to(self.top / "dev/dm-0")

    def export_to(self, *heads: str) -> None:
        said = "".join(UNIT.format(head, head) for head in heads)
        (self.top / "usr/bin/systemctl.said").write_text(said)

    def prerm(self, *words: str, **more: str) -> tuple[int, str]:
        env = {"PATH": f"{self.top}/usr/bin:{os.environ['PATH']}", **more}
        done = subprocess.run(
            [self.top / "prerm", *words],
            env=env, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert not done.stdout
        return done.returncode, done.stderr.replace(str(self.top), "")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_that_serves_nothing_lets_go_of_it(host: Host) -> None:
    assert host.prerm("remove") == (0, "")


def test_attached_volumes_keep_it(host: Host) -> None:
    host.attach("data")
    host.attach("more")
    code, said = host.prerm("remove")
    assert code == 1
    assert said.splitlines() == [
        "vastskyd is not removed: this host is in use by its cluster.",
        "  volume data is attached here, as /dev/vastsky/data",
        "    next: unmount it, then vastskyctl volume detach data",
        "  volume more is attached here, as /dev/vastsky/more",
        "    next: unmount it, then vastskyctl volume detach more",
    ]


def test_heads_that_use_its_disks_keep_it(host: Host) -> None:
    host.export_to("head1", "head-2.lan")
    code, said = host.prerm("remove", "in-favour", "other", "1.0")
    assert code == 1
    assert "that head1 uses (vastsky-export@head1.service)" in said
    assert "that head-2.lan uses (vastsky-export@head-2.lan.service)" in said
    assert said.count("next: vastskyctl disk list, then vastskyctl disk retire") == 2


@pytest.mark.parametrize(
    "words", ["upgrade 0.3.0", "deconfigure in-favour other 1.0", "failed-upgrade 0.1"]
)
def test_an_upgrade_is_never_refused(host: Host, words: str) -> None:
    host.attach("data")
    host.export_to("head1")
    assert host.prerm(*words.split()) == (0, "")


def test_another_hosts_files_are_removed_whatever_runs_here(host: Host) -> None:
    host.attach("data")
    assert host.prerm("remove", DPKG_ROOT="/srv/image") == (0, "")
    (host.top / "run/systemd/system").rmdir()
    assert host.prerm("remove") == (0, "")


def test_a_link_that_leads_nowhere_is_no_volume(host: Host) -> None:
    host.attach("data")
    (host.top / "dev/dm-0").unlink()
    assert host.prerm("remove") == (0, "")


def test_rpm_asks_the_same_before_it_removes_the_last_one() -> None:
    preun = SPEC.read_text().partition("\n%preun\n")[2].partition("\n\n")[0]
    assert preun.splitlines() == [
        "if [ $1 -eq 0 ]; then",
        "    %{_libexecdir}/vastskyd/refuse-removal || exit 1",
        "fi",
        "%systemd_preun vastskyd.service",
    ]


CALLED = ("rm", "udevadm", "systemd-sysusers", "busctl", "modprobe")


def called(host: Host, script: Path, *words: str, **more: str) -> list[str]:
    """What the maintainer's script asks of the host, which is running systemd."""
    log = host.top / "called"
    log.write_text("")
    for name in CALLED:
        host._script(f"usr/bin/{name}", f'#!/bin/sh\necho "{name} $*" >>{log}\n')
    host._script("script", host._here(script.read_text()))
    env = {"PATH": f"{host.top}/usr/bin:{os.environ['PATH']}", **more}
    subprocess.run([host.top / "script", *words], env=env, timeout=30, check=True)
    return log.read_text().splitlines()


def test_purging_an_image_leaves_the_host_that_makes_it_alone(host: Host) -> None:
    image = "/srv/image"
    assert called(host, POSTRM, "remove") == ["udevadm control --reload"]
    assert called(host, POSTRM, "purge") == ["rm -rf /etc/vastsky /var/lib/vastsky"]
    assert called(host, POSTRM, "remove", DPKG_ROOT=image) == []
    assert called(host, POSTRM, "purge", DPKG_ROOT=image) == [
        f"rm -rf {image}/etc/vastsky {image}/var/lib/vastsky"
    ]


def test_installing_into_an_image_leaves_the_host_that_makes_it_alone(host: Host) -> None:
    image = "/srv/image"
    made = called(host, POSTINST, "configure", DPKG_ROOT=image)
    assert made == [f"systemd-sysusers --root={image} vastskyd.conf"]
    here = called(host, POSTINST, "configure", "0.1.0")
    assert here[0] == "systemd-sysusers vastskyd.conf"
    assert [each.split()[0] for each in here[1:]] == ["udevadm", "udevadm", "busctl", "modprobe"]
    (host.top / "run/systemd/system").rmdir()
    assert called(host, POSTINST, "configure") == ["systemd-sysusers vastskyd.conf"]


@pytest.mark.parametrize(
    "words", ["abort-upgrade 0.3.0", "abort-remove", "abort-deconfigure in-favour other 1.0"]
)
def test_what_was_begun_and_not_done_changes_nothing(host: Host, words: str) -> None:
    assert called(host, POSTINST, *words.split()) == []
    assert called(host, POSTRM, "upgrade", "0.3.0") == []
    assert called(host, POSTRM, "failed-upgrade", "0.1.0", "0.2.0") == []
