"""rules.d by the real udev: whose disks these are, and what a volume is called."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.loops import loop_device
from tests.kernel.udevd import OURS, Udevd, private_udevd
from vastskyd.core.ids import VolumeId
from vastskyd.core.names import VolumeDeviceName, volume_dm_name
from vastskyd.core.ondisk_layout import SLOT_MAGIC, SLOT_OFFSETS_BYTES
from vastskyd.core.units import MIB

SIZE = 96 * MIB


@pytest.fixture(scope="module")
def udevd() -> Udevd:
    return private_udevd()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    with loop_device(tmp_path, SIZE) as device:
        yield device


def put(disk: str, offset_bytes: int, content: bytes) -> None:
    with open(disk, "r+b") as file:
        file.seek(offset_bytes)
        file.write(content)


def is_marked(told: dict[str, str]) -> bool:
    return told.get("VASTSKY_MEMBER") == "1"


def test_the_rules_are_well_formed(udevd: Udevd) -> None:
    udevd.verify()


def test_an_empty_disk_is_nobodys(udevd: Udevd, disk: str) -> None:
    told = udevd.properties(disk)
    assert told["DEVNAME"] == disk
    assert not is_marked(told)
    assert "ID_FS_TYPE" not in told


@pytest.mark.parametrize("offset_bytes", SLOT_OFFSETS_BYTES)
def test_a_disk_with_either_slot_is_ours(udevd: Udevd, disk: str, offset_bytes: int) -> None:
    put(disk, offset_bytes, SLOT_MAGIC)
    told = udevd.properties(disk)
    assert is_marked(told)
    assert (told["ID_FS_TYPE"], told["ID_FS_USAGE"]) == ("vastsky_member", "raid")
    assert told["UDISKS_IGNORE"] == "1"
    # Its lasting names stay: vastskyd finds it by them.
    assert told["DEVLINKS"]


def test_something_like_our_mark_is_none(udevd: Udevd, disk: str) -> None:
    put(disk, SLOT_OFFSETS_BYTES[0], SLOT_MAGIC[:-1] + b"!")
    put(disk, SLOT_OFFSETS_BYTES[1] - 1, SLOT_MAGIC)
    assert not is_marked(udevd.properties(disk))


def test_what_was_put_there_since_goes_first(udevd: Udevd, disk: str) -> None:
    """Somebody made a file system of a disk that was ours, and its slots are still there."""
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True, timeout=30)
    put(disk, SLOT_OFFSETS_BYTES[0], SLOT_MAGIC)
    told = udevd.properties(disk)
    assert told["ID_FS_TYPE"] == "ext4"
    assert not is_marked(told)


def test_a_disk_with_a_partition_table_is_not_ours(udevd: Udevd, disk: str) -> None:
    put(disk, SLOT_OFFSETS_BYTES[0], SLOT_MAGIC)
    put(disk, 446, bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") * 2)
    put(disk, 510, b"\x55\xaa")
    told = udevd.properties(disk)
    assert told["ID_PART_TABLE_TYPE"] == "dos"
    assert not is_marked(told)


VOLUME = VolumeId("0123456789abcdef01234567")
UUID = VolumeDeviceName(VOLUME, 12).dm_uuid()


def links(udevd: Udevd, disk: str, directory: Path, name: str, uuid: str) -> set[str]:
    """Of a device-mapper device so called, for which the disk stands in."""
    text = (OURS / "56-vastsky.rules").read_text()
    assert 'KERNEL=="dm-*"' in text
    (directory / "56.rules").write_text(text.replace('KERNEL=="dm-*"', 'KERNEL=="loop*"'))
    named = f'SUBSYSTEM=="block", ENV{{DM_NAME}}="{name}", ENV{{DM_UUID}}="{uuid}"\n'
    (directory / "55.rules").write_text(named)
    told = udevd.properties(disk, directory)
    assert ":systemd:" in told["TAGS"]
    return {link for link in told.get("DEVLINKS", "").split() if "vastsky" in link}


def test_a_volume_has_links_by_its_name_and_by_its_id(
    udevd: Udevd, disk: str, tmp_path: Path
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    assert links(udevd, disk, rules, volume_dm_name("data-1.x_y"), UUID) == {
        "/dev/vastsky/data-1.x_y",
        f"/dev/vastsky/by-id/{VOLUME}",
        f"/dev/disk/by-id/vastsky-{VOLUME}",
    }


def test_a_volumes_partition_has_links_by_the_volumes_id(
    udevd: Udevd, disk: str, tmp_path: Path
) -> None:
    """A name would not do: there may be a volume data-part1."""
    rules = tmp_path / "rules"
    rules.mkdir()
    assert links(udevd, disk, rules, "vastsky-volume-data-part11", f"part11-{UUID}") == {
        f"/dev/vastsky/by-id/{VOLUME}-part11",
        f"/dev/disk/by-id/vastsky-{VOLUME}-part11",
    }


def test_an_internal_device_has_no_links_and_is_left_alone(
    udevd: Udevd, disk: str, tmp_path: Path
) -> None:
    rules = tmp_path / "rules"
    rules.mkdir()
    for uuid in (f"VASTSKY-LEG-{VOLUME}-0-00000000000000e1-1", "VASTSKY-EXTENT-00000000000000e1"):
        assert links(udevd, disk, rules, "vastsky-leg-e1", uuid) == set()
        told = udevd.properties(disk, rules)
        assert (told["SYSTEMD_READY"], told["DM_UDEV_DISABLE_OTHER_RULES_FLAG"]) == ("0", "1")
