"""One host alone, its power cut, a disk of it lost; and then three hosts."""

import pytest

from tests.cluster.alone.single import IMAGE, ONE, OTHERS, Single
from tests.cluster.cluster import Writer, eventually, exposure

pytestmark = pytest.mark.lab


def test_copies_are_on_different_disks_and_that_is_a_note(single: Single) -> None:
    with single.new_volume("three", 16, ONE, copies=3):
        for disks in single.disks_of("three"):
            assert len(set(disks)) == 3
        status = single.status()
        assert (status.health, status.problems) == ("ok", ())
        assert any(f"are on one host, {ONE}" in note for note in status.notes), status.notes


def test_a_disk_of_every_kind_holds_a_copy(single: Single) -> None:
    """Three disks, a partition and a file: five copies."""
    with single.new_volume("five", 8, ONE, copies=5) as device:
        writer = Writer(single[ONE], device, "five").begin()
        writer.goes_on()
        writer.end()
        writer.verify()
        (disks,) = single.disks_of("five")
        assert any(disk.startswith("/dev/loop") for disk in disks), disks
        unit = f"$(systemd-escape --path --template=vastsky-file@.service {IMAGE})"
        assert exposure(single[ONE], unit) <= 3.5
        assert any("part1" in disk or disk.endswith("p1") for disk in disks), disks


def test_the_power_of_the_host_takes_all_copies_at_once(single: Single) -> None:
    """Also the file's disk is there again; what was acknowledged and flushed is on each copy."""
    single.ctl("volume create cut 16M --copies 5 --attach", 90)
    writer = Writer(single[ONE], "/dev/vastsky/cut", "cut").begin()
    writer.goes_on()
    single[ONE].kill()
    writer.lost_power()
    single.power_on(ONE)
    single.attached("cut", 120)
    single.healthy("cut", limit_s=120)
    writer.verify()
    assert single[ONE].run(f"losetup --associated {IMAGE}").stdout
    single.ctl("volume detach cut", 90)
    single.ctl("volume delete cut --yes", 90)
    single.clean()


def test_a_disk_that_is_pulled_is_rebuilt_on_another(single: Single) -> None:
    with single.new_volume("pulled", 16, ONE, copies=3) as device:
        writer = Writer(single[ONE], device, "pulled").begin()
        writer.goes_on()
        lost = single[ONE].disk_link("nvme0")
        single[ONE].unplug_disk("nvme0")
        eventually(
            "it is used no more",
            lambda: all(lost not in disks for disks in single.disks_of("pulled")),
            90,
        )
        single.healthy("pulled", limit_s=120)
        writer.goes_on()
        single[ONE].plug_disk("nvme0")
        eventually("it is back", lambda: not single.status().problems, 120)
        writer.end()
        writer.verify()


def test_it_grows_to_three_hosts_and_one_may_go(single: Single) -> None:
    with single.new_volume("grows", 32, ONE, copies=2) as device:
        writer = Writer(single[ONE], device, "grows").begin()
        writer.goes_on()
        assert {node for nodes in single.nodes_of("grows") for node in nodes} == {ONE}
        single.grow(*OTHERS)
        eventually(
            "the copies are apart",
            lambda: all(len(nodes) == len(set(nodes)) == 2 for nodes in single.nodes_of("grows")),
            240,
        )
        single.healthy("grows", limit_s=120)
        writer.goes_on()
        single.ctl("cluster set --copies-apart host")
        assert not single.status().problems
        holder = next(node for node in single.nodes_of("grows")[0] if node != ONE)
        single[holder].kill()
        writer.goes_on()
        single.power_on(holder)
        single.online()
        single.healthy("grows", limit_s=120)
        writer.end()
        writer.verify()
