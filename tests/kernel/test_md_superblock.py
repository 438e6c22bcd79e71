"""md's superblock, as mdadm 4.4 and Linux 6.12 wrote it on the second of three legs."""

from hypothesis import given
from hypothesis import strategies as st

from vastskyd.kernel import md_superblock
from vastskyd.ports import Superblock

CAPTURED = bytes.fromhex(
    "fc4e2ba90100000001000000000000000123456789abcdef0123456700000005616e793a762d350000000000"
    "00000000000000000000000000000000000000006481016b0000000001000000000000000080000000000000"
    "0000000003000000080000000000000000000000000000000000000000000000000000000000000000200000"
    "000000000080000000000000080000000000000000000000000000000100000000000000acc9e6f964e379ef"
    "a74f363d81c3635000000800100000006581016b000000000200000000000000000000000000000010c038f4"
    "800000000000000000000000000000000000000000000000000000000000000000000000000001000200ffff"
)
CAPTURED = CAPTURED.ljust(512, b"\xff").ljust(4096, b"\0")
ROLES_AT = 256
UUID = "0123456789abcdef0123456700000005"


def with_role(role: int) -> bytes:
    at = ROLES_AT + 2
    return CAPTURED[:at] + role.to_bytes(2, "little") + CAPTURED[at + 2 :]


def test_a_member() -> None:
    assert md_superblock.parse(CAPTURED) == Superblock(UUID, events=2, in_array=True)


def test_spare_faulty_and_journal_are_not_in_the_array() -> None:
    for role in (0xFFFF, 0xFFFE, 0xFFFD):
        assert md_superblock.parse(with_role(role)) == Superblock(UUID, 2, in_array=False)


def test_none() -> None:
    assert md_superblock.parse(bytes(4096)) is None
    assert md_superblock.parse(b"") is None
    assert md_superblock.parse(CAPTURED[:200]) is None


@given(st.binary(max_size=600))
def test_anything_may_stand_there(content: bytes) -> None:
    md_superblock.parse(content)
    md_superblock.parse(CAPTURED[:8] + content)
