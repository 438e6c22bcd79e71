"""When a disk is slow."""

from vastskyd.core.pace import Activity, is_slow, request_s
from vastskyd.kernel.disks import parse_diskstats

# Of a Linux 6.12 host: a disk, and a partition, which has the same fields.
DISKSTATS = """\
 259       0 nvme0n1 1203 12 98046 1432 812 44 61200 20881 3 1888 22333 7 0 812 4 95 16
 259       1 nvme0n1p1 33 0 2112 21 0 0 0 0 0 12 21 0 0 0 0 0 0
"""


def test_the_kernels_counts() -> None:
    counts = parse_diskstats(DISKSTATS)
    assert counts["nvme0n1"] == Activity(done=2015, took_s=22.313, waiting=3)
    assert counts["nvme0n1p1"] == Activity(done=33, took_s=0.021, waiting=0)


def test_the_average_of_what_was_done_between_two_looks() -> None:
    before, after = Activity(100, 5.0, 0), Activity(104, 11.0, 2)
    assert request_s(before, after, 4.0) == 1.5


def test_a_disk_that_answers_nothing_takes_as_long_as_it_is_looked_at() -> None:
    assert request_s(Activity(7, 1.0, 1), Activity(7, 1.0, 3), 4.0) == 4.0


def test_an_idle_disk_is_neither_slow_nor_well() -> None:
    assert request_s(Activity(7, 1.0, 0), Activity(7, 1.0, 0), 4.0) is None
    assert request_s(Activity(7, 1.0, 0), Activity(7, 1.0, 1), 4.0) is None
    assert is_slow(True, None)
    assert not is_slow(False, None)


def test_between_slow_and_well_it_stays_what_it_was() -> None:
    assert [is_slow(False, s) for s in (0.4, 0.7, 1.0)] == [False, False, True]
    assert [is_slow(True, s) for s in (0.4, 0.7, 1.0)] == [False, True, True]
