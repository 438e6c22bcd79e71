"""Tables and statuses as Linux 6.12 prints them."""

from vastskyd.kernel import dm_table
from vastskyd.kernel.dm_ioctl import Target
from vastskyd.ports import PathCondition

A, F = PathCondition.ACTIVE, PathCondition.FAILED


def multipath(parameters: str) -> tuple[Target, ...]:
    return (Target(0, 131072, "multipath", parameters),)


def test_a_leg_reads_back_as_written() -> None:
    for numbers in (("43:0",), ("43:0", "43:32")):
        table = dm_table.leg(numbers, 1 << 26)
        assert dm_table.read_leg(table) == dm_table.LegTable(numbers, holds=True)


def test_what_the_kernel_makes_of_a_leg_is_the_same() -> None:
    one = multipath(
        "4 queue_if_no_path retain_attached_hw_handler queue_mode bio"
        " 0 1 1 round-robin 0 1 1 253:0 1 "
    )
    assert dm_table.same(dm_table.leg(("253:0",), 1 << 26), one)
    assert not dm_table.same(dm_table.leg(("253:0",), 1 << 25), one)
    assert not dm_table.same(dm_table.leg(("253:1",), 1 << 26), one)
    assert not dm_table.same(dm_table.leg(("253:0", "253:1"), 1 << 26), one)


def test_a_released_leg_does_not_hold() -> None:
    table = multipath("2 queue_mode bio 0 1 1 round-robin 0 1 1 43:0 1000 ")
    assert dm_table.read_leg(table) == dm_table.LegTable(("43:0",), holds=False)
    assert not dm_table.same(dm_table.leg(("43:0",), 1 << 26), table)


def test_other_tables_are_no_legs() -> None:
    assert dm_table.read_leg(dm_table.error(4096)) is None
    assert dm_table.read_leg(()) is None
    assert dm_table.read_leg_status(dm_table.error(4096)) == ()


def test_status_of_paths() -> None:
    one = multipath("2 0 0 0 1 1 A 0 1 0 43:0 A 0 ")
    assert dm_table.read_leg_status(one) == (("43:0", A),)
    two = multipath("2 0 0 0 1 1 E 0 2 1 43:0 F 1 0 43:32 A 0 3 ")
    assert dm_table.read_leg_status(two) == (("43:0", F), ("43:32", A))


def test_linear_ranges_follow_each_other() -> None:
    table = dm_table.linear((("8:0", 1 << 20, 1 << 20), ("8:16", 0, 512)))
    assert [t.parameters for t in table] == ["8:0 2048", "8:16 0"]
    assert [t.start_sectors for t in table] == [0, 2048]
    assert dm_table.size_bytes(table) == (1 << 20) + 512
