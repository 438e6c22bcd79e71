"""What systemd makes of the lines for /etc/fstab that the documents give."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from vastskyd.cli.here import leave, take

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = "/usr/lib/systemd/system-generators/systemd-fstab-generator"
PAGES = ("docs/man/vastsky-attach.7.md", "docs/operations.md")
LINES = sorted(
    {
        line.strip()
        for page in PAGES
        for line in (ROOT / page).read_text().splitlines()
        if re.match(r" *(/dev/vastsky/data) .*_netdev", line)
    }
)


def generated(tmp_path: Path, line: str) -> Path:
    places = [tmp_path / each for each in ("normal", "early", "late")]
    for place in places:
        place.mkdir()
    (tmp_path / "fstab").write_text(line + "\n")
    environment = os.environ | {"SYSTEMD_FSTAB": str(tmp_path / "fstab"), "SYSTEMD_IN_INITRD": "0"}
    subprocess.run([GENERATOR, *places], env=environment, check=True, timeout=30)
    return places[0]


def test_there_are_lines() -> None:
    assert len(LINES) == 2


@pytest.mark.parametrize("line", LINES)
def test_a_mount_is_a_remote_one_and_the_boot_does_not_need_it(tmp_path: Path, line: str) -> None:
    made = generated(tmp_path, line)
    assert (made / "remote-fs.target.wants" / "srv-data.mount").is_symlink()
    assert not (made / "remote-fs.target.requires").exists()
    assert not (made / "local-fs.target.requires").exists()
    assert "What=/dev/vastsky/data\n" in (made / "srv-data.mount").read_text()


@pytest.mark.parametrize("line", [line for line in LINES if "vastsky-attach@" in line])
def test_a_mount_comes_after_its_volume_and_follows_it(tmp_path: Path, line: str) -> None:
    made = generated(tmp_path, line)
    unit = (made / "srv-data.mount").read_text()
    assert "Requires=vastsky-attach@data.service\n" in unit
    assert "After=vastsky-attach@data.service\n" in unit
    assert (made / "dev-vastsky-data.device.wants" / "srv-data.mount").is_symlink()


def test_a_name_with_a_dash_is_written_as_the_page_says(tmp_path: Path) -> None:
    (line,) = [line for line in LINES if "wanted-by" in line]
    dashed = line.replace("/dev/vastsky/data", "/dev/vastsky/my-data").replace(
        "dev-vastsky-data", r"dev-vastsky-my\x2ddata"
    )
    made = generated(tmp_path, dashed.replace("@data.", "@my-data."))
    assert (made / r"dev-vastsky-my\x2ddata.device.wants" / "srv-data.mount").is_symlink()
    assert "Requires=vastsky-attach@my-data.service\n" in (made / "srv-data.mount").read_text()


def test_units_run_what_the_program_knows() -> None:
    """Options of ExecStart= and ExecStop= are those of the commands."""
    text = (ROOT / "units/vastsky-attach@.service").read_text()
    for key, command in (("ExecStart", take), ("ExecStop", leave)):
        found = re.search(
            rf"^{key}=/usr/bin/vastskyctl volume (\w+) --within (\d+)s %i$", text, re.M
        )
        assert found is not None
        assert found[1] == command.name
        limit = re.search(rf"^Timeout{key.removeprefix('Exec')}Sec=(\d+)$", text, re.M)
        assert limit is not None
        assert int(found[2]) < int(limit[1])
