"""Names that people give."""

import pytest

from vastskyd.core.errors import InvalidError
from vastskyd.core.ids import volume_name


@pytest.mark.parametrize("name", ["data", "data-1.x_y", "by-id2", "a" * 64])
def test_a_volumes_name(name: str) -> None:
    assert volume_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "-a", "a/b", "a b", "a" * 65, "by-id"])
def test_what_cannot_stand_in_dev_vastsky(name: str) -> None:
    with pytest.raises(InvalidError):
        volume_name(name)


def test_no_name_is_another_volumes_id() -> None:
    """Whoever deletes by name would delete that one."""
    with pytest.raises(InvalidError, match="that is a volume's id"):
        volume_name("d5d0f0addc9ef37138e67785")
    assert volume_name("d5d0f0addc9ef37138e6778")
    assert volume_name("D5D0F0ADDC9EF37138E67785")
