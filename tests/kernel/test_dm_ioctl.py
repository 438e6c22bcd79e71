"""device-mapper's messages, byte by byte."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from vastskyd.kernel import dm_ioctl
from vastskyd.kernel.dm_ioctl import Command, Flag, Target


def test_numbers_are_those_of_the_header() -> None:
    # printed by a C program that includes linux/dm-ioctl.h
    assert dm_ioctl.request_number(Command.DEV_CREATE) == 0xC138FD03
    assert dm_ioctl.request_number(Command.TABLE_STATUS) == 0xC138FD0C
    assert dm_ioctl.request_number(Command.DEV_ARM_POLL) == 0xC138FD10


def test_the_cookie_has_no_semaphore() -> None:
    assert dm_ioctl.cookie(dm_ioctl.INTERNAL) & 0xFFFF == 0
    assert dm_ioctl.cookie(dm_ioctl.INTERNAL) >> 16 == 0x6E
    assert dm_ioctl.cookie(dm_ioctl.PUBLIC) >> 16 == 0x40


def test_a_table_is_aligned_and_linked() -> None:
    table = dm_ioctl.encode_table(
        (Target(0, 2048, "linear", "8:0 0"), Target(2048, 10, "linear", "8:16 4096"))
    )
    first = struct.unpack_from("=QQiI16s", table)
    assert first[:3] == (0, 2048, 0)
    assert first[3] % 8 == 0
    assert table[40:46] == b"8:0 0\0"
    assert struct.unpack_from("=QQ", table, first[3]) == (2048, 10)


@given(st.binary(max_size=2000))
def test_whatever_the_kernel_says_is_decoded(content: bytes) -> None:
    message = dm_ioctl.encode("x", target_count=3, flags=Flag.ACTIVE_PRESENT, content=content)
    assert len(dm_ioctl.decode(bytes(message)).targets) <= 3


def test_a_status_is_decoded() -> None:
    # as drivers/md/dm-ioctl.c lays it out: `next` from the start of the first target
    one = struct.pack("=QQiI16s", 0, 8, 0, 48, b"linear") + b"8:0 0\0\0\0"
    two = struct.pack("=QQiI16s", 8, 8, 0, 96, b"error") + bytes(8)
    message = dm_ioctl.encode("x", target_count=2, content=one + two)
    assert dm_ioctl.decode(bytes(message)).targets == (
        Target(0, 8, "linear", "8:0 0"),
        Target(8, 8, "error", ""),
    )
