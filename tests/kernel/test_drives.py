"""What partitions and files lie on, by a tree like the kernel's, and by the kernel's."""

import os
from pathlib import Path

import pytest

from tests.kernel.loops import loop_device
from vastskyd.kernel import drives, sysfs
from vastskyd.kernel.drives import Below, below


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/sys/class/block with a disk of two partitions, and LVM on one of them."""
    disk = tmp_path / "devices" / "sda"
    for part in ("sda1", "sda2"):
        (disk / part).mkdir(parents=True)
        (disk / part / "partition").write_text("1")
    volume = tmp_path / "devices" / "dm-0"
    (volume / "slaves" / "sda2").mkdir(parents=True)
    links = tmp_path / "class"
    links.mkdir()
    for each in (disk, disk / "sda1", disk / "sda2", volume):
        (links / each.name).symlink_to(each)
    monkeypatch.setattr(drives, "_CLASS", links)
    return links


def loop(classes: Path, name: str, file: Path) -> None:
    (classes / name / "loop").mkdir(parents=True)
    (classes / name / "loop" / "backing_file").write_text(f"{file}\n")


def test_a_partition_is_part_of_its_disk(classes: Path) -> None:
    assert below("sda") == Below()
    assert below("sda1") == below("sda2") == Below("sda")


@pytest.mark.parametrize("stands_on", ["sda1", "dm-0"])
def test_a_file_is_on_the_disk_of_its_file_system(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands_on: str
) -> None:
    image = tmp_path / "disk.img"
    image.touch()
    number = os.stat(image).st_dev
    names = {f"{os.major(number)}:{os.minor(number)}": stands_on}
    monkeypatch.setattr(sysfs, "number_name", names.__getitem__)
    loop(classes, "loop0", image)
    assert below("loop0") == Below("sda", str(image))


def test_of_a_file_that_was_removed_or_is_elsewhere_nobody_can_say(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop(classes, "loop0", tmp_path / "gone (deleted)")
    assert below("loop0") == Below("", str(tmp_path / "gone (deleted)"))
    image = tmp_path / "disk.img"
    image.touch()
    monkeypatch.setattr(sysfs, "number_name", lambda number: number)  # as with NFS
    loop(classes, "loop1", image)
    assert below("loop1") == Below("", str(image))


def test_two_files_of_one_directory_are_on_one_drive_by_the_real_kernel(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        loop_device(tmp_path / "a", 64 << 20) as one,
        loop_device(tmp_path / "b", 64 << 20) as two,
    ):
        found = [below(Path(device).name) for device in (one, two)]
    assert [each.file for each in found] == [f"{tmp_path}/{name}/disk" for name in "ab"]
    assert found[0].drive == found[1].drive
