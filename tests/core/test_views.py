"""What people ask to see is told in one look at the records, however many disks there are: whoever
may look may ask, and all that the manager does waits for the answer."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.core.test_turns import cluster, extent_id, turn
from vastskyd.core.api import ListDisks
from vastskyd.core.facts import Facts
from vastskyd.core.ids import DiskId, ExtentId
from vastskyd.core.model import ExtentState, LegState
from vastskyd.core.turn import Turn
from vastskyd.core.units import MIB
from vastskyd.roles.views import list_disks, show_status

DISKS = 50


class Counted(dict[ExtentId, Any]):
    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()


def many_disks() -> tuple[Turn, Counted]:
    it = turn(cluster((LegState.IN_SYNC,) * 2), Facts())
    for number in range(DISKS):
        disk = msgspec.structs.replace(
            it.draft.disks[DiskId("d0")], id=DiskId(f"e{number}"), path=f"/dev/{number}"
        )
        it.draft.put(disk)
    released = msgspec.structs.replace(
        it.draft.extents[extent_id(0)], id=ExtentId("f" * 16), disk=DiskId("e7"),
        length_bytes=MIB, state=ExtentState.RELEASED,
    )  # fmt: skip
    it.draft.put(released)
    extents = Counted(it.draft.extents)
    it.draft.extents = extents
    return it, extents


@pytest.mark.parametrize("show", [lambda it: list_disks(it, ListDisks()), show_status])
def test_the_extents_are_looked_at_once(show: Callable[[Turn], object]) -> None:
    it, extents = many_disks()
    show(it)
    assert extents.looks <= 1


def test_what_is_free_and_what_is_wiped() -> None:
    it, _ = many_disks()
    views = {view.id or view.path: view for view in list_disks(it, ListDisks(limit=500)).disks}
    area = 59 * MIB
    assert (views["d0"].free_bytes, views["e3"].free_bytes) == (area - 22 * MIB, area)
    assert (views["e7"].free_bytes, views["e7"].message) == (area - MIB, "wiping freed extents")
    assert views["d0"].message == ""
    assert show_status(it).free_bytes == sum(view.free_bytes for view in views.values())
