"""The head's next steps, without a kernel: which legs it goes on with, and in what order a stack
that is over comes down."""

from dataclasses import dataclass, replace

import msgspec
import pytest

from vastskyd.core.documents import (
    Endpoint,
    LegCondition,
    LegSpec,
    SegmentSpec,
    VolumeCondition,
    VolumeSpec,
)
from vastskyd.core.guards import extent_length
from vastskyd.core.ids import ExtentId, NodeId, VolumeId
from vastskyd.core.layout import Plan, plan_volume
from vastskyd.core.model import Encryption, Layout, LegState
from vastskyd.core.names import LegName, volume_dm_name
from vastskyd.core.sight import (
    SeenArray,
    SeenLeg,
    SeenMember,
    SeenPath,
    SeenVolume,
    Sight,
    Trouble,
)
from vastskyd.core.steps import (
    AddMember,
    AssembleArray,
    BreakLeg,
    Connect,
    CreateArray,
    EndWriters,
    FailMember,
    MakeWritable,
    MapLeg,
    MapVolume,
    ReleaseLeg,
    RemoveMember,
    RemoveWreck,
    Step,
    StopArray,
    UnmapVolume,
)
from vastskyd.core.teardown import plan_teardown, plan_wrecks
from vastskyd.core.units import MIB

VOLUME = VolumeId("a" * 24)
EPOCH = 3
SIZE = 16 * MIB
AWAY = Trouble(broken=False, message="no path for 5 s or longer")
IN, JOIN, BEHIND = LegState.IN_SYNC, LegState.JOINING, LegState.BEHIND


def extent(number: int) -> ExtentId:
    return ExtentId(f"{number:016x}")


def device(number: int) -> str:
    return f"/dev/dm-{number}"


def path(number: int) -> str:
    return f"nbd{number}"


@dataclass(frozen=True)
class Stack:
    """One segment's stack on a head. `used` are the legs in the array, `dead` those whose path is
    gone, `there` the legs that are mapped (None: all of them), `leaving` the one that another was
    put in the place of; then there is one more than `copies`."""

    states: tuple[LegState, ...]
    used: tuple[int, ...] | None = None
    dead: tuple[int, ...] = ()
    there: tuple[int, ...] | None = None
    array: bool = True
    exposed: bool = True
    read_only: bool = False
    epoch: int = EPOCH
    initialised: bool = True
    waited: bool = True
    faulty: tuple[int, ...] = ()
    released: tuple[int, ...] = ()
    filling: tuple[int, ...] = ()
    leaving: int | None = None
    copies: int | None = None
    places: int = 0
    syncing: bool = False
    frozen: bool = False

    def spec(self) -> VolumeSpec:
        legs = tuple(
            LegSpec(
                extent=extent(number),
                node=NodeId(f"s{number}"),
                state=state,
                local=False,
                endpoints=(Endpoint(network=0, address=f"10.0.0.{number}", port=10810),),
                export_name="x",
                length_bytes=extent_length(SIZE, with_array=True),
                leaving=number == self.leaving,
            )
            for number, state in enumerate(self.states)
        )
        segment = SegmentSpec(index=0, length_bytes=SIZE, initialised=self.initialised, legs=legs)
        return VolumeSpec(
            id=VOLUME, name="v", size_bytes=SIZE, copies=self.copies or len(self.states),
            layout=Layout.RAID1, epoch=EPOCH, attached=True, encryption=Encryption.NONE,
            segments=(segment,),
        )  # fmt: skip

    def sight(self) -> Sight:
        numbers = range(len(self.states))
        there = tuple(numbers) if self.there is None else self.there
        used = there if self.used is None else self.used
        legs = {
            extent(number): SeenLeg(
                LegName(VOLUME, 0, extent(number), self.epoch),
                device(number),
                (path(number),),
                frozenset({path(number)} if number in self.dead else ()),
                holds=number not in self.released,
            )
            for number in there
        }
        members = {
            f"dm-{n}": SeenMember(
                f"dm-{n}", n not in (*self.faulty, *self.filling), n in self.faulty
            )
            for n in used
        }
        places = self.places or self.copies or len(self.states)
        total = SIZE if self.syncing else 0
        array = SeenArray(
            "/dev/md9", VOLUME, 0, members, True, self.read_only, places, 0, total,
            frozen=self.frozen,
        )  # fmt: skip
        volume = SeenVolume(volume_dm_name("v"), "/dev/dm-99", VOLUME, self.epoch, 1)
        return Sight(
            legs,
            {(VOLUME, 0): array} if self.array else {},
            {VOLUME: volume} if self.exposed else {},
            tuple(
                SeenPath(f"/dev/{path(n)}", extent(n), self.epoch, 0, n not in self.dead)
                for n in there
            ),
        )

    def plan(self) -> Plan:
        trouble = {extent(number): AWAY for number in self.dead}
        return plan_volume(self.spec(), self.sight(), trouble, (), waited=self.waited)

    def steps(self) -> list[Step]:
        """Without the attempts to connect what is away."""
        return [step for step in self.plan().steps if not isinstance(step, Connect)]


def dropped(stack: Stack) -> list[str]:
    return [step.leg for step in stack.steps() if isinstance(step, FailMember)]


# --- the quorum rule --------------------------------------------------------------------------


def test_a_head_drops_a_leg_by_itself_only_while_a_write_quorum_is_left() -> None:
    assert dropped(Stack((IN, IN), dead=(1,))) == []
    assert dropped(Stack((IN, IN, IN), dead=(1,))) == [device(1)]
    assert dropped(Stack((IN, IN, IN), used=(0, 1), dead=(1,))) == []
    assert dropped(Stack((IN, IN, IN, IN), used=(0, 1, 2), dead=(2,))) == []


def test_what_waits_is_not_released_below_the_write_quorum() -> None:
    """A release alone would have md drop the leg."""
    released = [s for s in Stack((IN, IN), dead=(1,)).steps() if isinstance(s, ReleaseLeg)]
    assert released == []


def test_a_head_drops_the_leg_once_the_smaller_set_is_committed() -> None:
    assert dropped(Stack((IN, BEHIND), dead=(1,))) == [device(1)]


def test_what_is_held_is_let_go_before_md_is_asked_to_clear_away() -> None:
    """md waits for all that is under way before it lets a faulty member go; so while another leg
    holds I/O it is not asked at all."""
    states = (IN, BEHIND, BEHIND)
    steps = Stack(states, dead=(1, 2), faulty=(1,)).steps()
    assert steps[:2] == [
        ReleaseLeg(LegName(VOLUME, 0, extent(2), EPOCH)),
        FailMember("/dev/md9", device(2)),
    ]
    waiting = Stack((IN, IN, BEHIND), dead=(1, 2), faulty=(2,)).steps()
    assert not [step for step in waiting if isinstance(step, RemoveMember)]
    alone = Stack((IN, IN, BEHIND), dead=(2,), faulty=(2,)).steps()
    assert RemoveMember("/dev/md9", device(2)) in alone


def released(stack: Stack) -> list[str]:
    return [step.name.extent for step in stack.steps() if isinstance(step, ReleaseLeg)]


def conditions(stack: Stack) -> list[LegCondition]:
    fact = stack.plan().fact
    assert fact is not None
    return [leg.condition for leg in fact.segments[0].legs]


OUT, HELD, ACTIVE = LegCondition.OUT, LegCondition.HELD, LegCondition.ACTIVE


def test_md_is_not_told_of_a_leg_while_it_waits_for_another() -> None:
    """It keeps its lock while it waits for a superblock: the leg is out as soon as it is let go
    of, and md is told once nothing is held."""
    two = Stack((IN, IN, IN), dead=(1, 2))
    assert (released(two), dropped(two)) == ([extent(1)], [])
    one_cut = replace(two, released=(1,))
    assert (released(one_cut), dropped(one_cut)) == ([], [])
    assert conditions(one_cut) == [ACTIVE, OUT, HELD]
    committed = replace(one_cut, states=(IN, BEHIND, BEHIND))
    assert (released(committed), dropped(committed)) == ([extent(2)], [device(2)])
    both_cut = replace(committed, released=(1, 2))
    assert (released(both_cut), dropped(both_cut)) == ([], [device(1)])


def test_a_leg_that_works_gets_errors_if_md_cannot_be_told() -> None:
    """One that the volume has no more of: md would go on to use it."""
    stack = Stack((IN, IN, BEHIND), dead=(0,))
    spec = stack.spec()
    (segment,) = spec.segments
    spec = msgspec.structs.replace(
        spec, copies=2, segments=(msgspec.structs.replace(segment, legs=segment.legs[:2]),)
    )
    trouble = {extent(0): AWAY}
    steps = plan_volume(spec, stack.sight(), trouble, (), waited=True).steps
    assert BreakLeg(LegName(VOLUME, 0, extent(2), EPOCH)) in steps
    assert not any(isinstance(step, FailMember) for step in steps)


def test_what_was_let_go_of_gets_no_path_before_md_has_heard_of_it() -> None:
    """Else md would use it beside the set that the manager committed without it."""
    stack = Stack((IN, BEHIND, IN), dead=(1,), released=(1,))
    live = SeenPath("/dev/nbd77", extent(1), EPOCH, 0, alive=True)

    def mapped(stack: Stack) -> list[ExtentId]:
        sight = replace(stack.sight(), paths=(*stack.sight().paths, live))
        steps = plan_volume(stack.spec(), sight, {}, (), waited=True).steps
        return [step.name.extent for step in steps if isinstance(step, MapLeg)]

    assert mapped(stack) == []
    assert mapped(replace(stack, used=(0, 2))) == [extent(1)]


def test_a_leg_that_is_all_md_has_is_not_cut_off() -> None:
    assert conditions(Stack((IN, IN), used=(0,), dead=(0,), released=(0,)))[0] is HELD
    assert conditions(Stack((IN, IN), dead=(0, 1), released=(0, 1))) == [HELD, HELD]


def test_a_leg_that_joins_counts_for_writes() -> None:
    assert dropped(Stack((IN, JOIN), dead=(1,))) == []
    assert dropped(Stack((IN, IN, JOIN), dead=(2,))) == [device(2)]
    assert dropped(Stack((IN, IN, IN, JOIN), used=(0, 1, 3), dead=(3,))) == []


@pytest.mark.parametrize(
    ("states", "there", "assembled"),
    [
        ((IN, IN, IN), (0,), False),
        ((IN, IN, IN), (0, 2), True),
        ((IN, IN), (1,), True),
        ((IN, IN, IN, IN, IN), (0, 1), False),
        ((IN, BEHIND, IN), (1, 2), True),
        ((IN, BEHIND, BEHIND), (1, 2), False),
    ],
)
def test_an_array_is_assembled_from_a_recovery_quorum(
    states: tuple[LegState, ...], there: tuple[int, ...], assembled: bool
) -> None:
    stack = Stack(states, there=there, array=False, exposed=False)
    found = [step for step in stack.steps() if isinstance(step, AssembleArray | CreateArray)]
    committed = tuple(device(n) for n in there if states[n] is IN)
    assert found == ([AssembleArray(VOLUME, 0, committed)] if assembled else [])


def test_legs_that_may_still_come_are_waited_for() -> None:
    stack = Stack((IN, IN), there=(1,), array=False, exposed=False, waited=False)
    assert not any(isinstance(step, AssembleArray) for step in stack.steps())


def test_what_was_written_to_is_never_created_anew() -> None:
    """mdadm would take the legs for equal, whatever is on them."""
    stack = Stack((IN, IN), array=False, exposed=False)
    assert any(isinstance(step, AssembleArray) for step in stack.steps())
    assert not any(isinstance(step, CreateArray) for step in stack.steps())
    new = replace(stack, initialised=False)
    assert any(isinstance(step, CreateArray) for step in new.steps())


def test_nobody_writes_before_the_set_is_what_the_array_has() -> None:
    """The leg that was not there may have a history of its own."""
    stack = Stack((IN, IN, IN), there=(0, 1), exposed=False, read_only=True)
    plan = stack.plan()
    assert not any(isinstance(step, MakeWritable | MapVolume) for step in plan.steps)
    assert plan.fact is not None
    assert plan.fact.condition is VolumeCondition.ASSEMBLING
    assert "waiting for the manager" in plan.fact.message
    smaller = replace(stack, states=(IN, IN, BEHIND))
    assert any(isinstance(step, MakeWritable) for step in smaller.steps())


def test_nobody_writes_before_the_creation_is_recorded() -> None:
    stack = Stack((IN, IN), exposed=False, initialised=False)
    assert not any(isinstance(step, MakeWritable | MapVolume) for step in stack.steps())


def test_a_leg_that_was_away_is_given_back_only_once_it_is_out_of_the_set() -> None:
    back = Stack((IN, IN), used=(0,))
    assert not any(isinstance(step, AddMember) for step in back.steps())
    behind = replace(back, states=(IN, BEHIND))
    (added,) = [step for step in behind.steps() if isinstance(step, AddMember)]
    assert added.leg == device(1)


# --- epochs and fencing -----------------------------------------------------------------------


def test_a_stack_of_an_older_epoch_is_taken_down_before_anything_else() -> None:
    stack = Stack((IN, IN), epoch=EPOCH - 1)
    plan = stack.plan()
    assert [type(step) for step in plan.steps] == [BreakLeg, BreakLeg, EndWriters, UnmapVolume]
    assert plan.fact is not None
    assert plan.fact.condition is VolumeCondition.ASSEMBLING


def test_writers_end_before_what_is_held_fails() -> None:
    """What works is broken first: md is not to go on with it alone. When what is held fails, md
    calls those writes done, and nobody may hear of it."""
    stack = Stack((IN, IN), dead=(0,))
    steps = plan_teardown(VOLUME, stack.sight(), {}, force=True)
    broken = [step.name.extent for step in steps if isinstance(step, BreakLeg)]
    assert broken == [extent(1), extent(0)]
    assert [type(step) for step in steps] == [BreakLeg, EndWriters, BreakLeg, UnmapVolume]
    assert steps[-1] == UnmapVolume(volume_dm_name("v"), True)


def test_a_detach_ends_nobody_and_breaks_nothing() -> None:
    sight = Stack((IN, IN)).sight()
    assert plan_teardown(VOLUME, sight, {}, force=False) == (
        UnmapVolume(volume_dm_name("v"), False),
    )


def test_a_volume_that_was_broken_off_is_taken_apart_below() -> None:
    sight = Stack((IN, IN)).sight()
    off = {VOLUME: replace(sight.volumes[VOLUME], broken_off=True)}
    steps = plan_teardown(VOLUME, replace(sight, volumes=off), {}, force=True)
    assert isinstance(steps[-1], StopArray)


def test_a_wreck_goes_when_its_last_user_has() -> None:
    wreck = SeenVolume("vastsky-wreck", "/dev/dm-7", VOLUME, 2, 0, broken_off=True)
    assert plan_wrecks(Sight(wrecks=(wreck,))) == {VOLUME: (RemoveWreck("vastsky-wreck"),)}
    assert plan_wrecks(Sight(wrecks=(replace(wreck, open_count=1),))) == {}


def test_a_leg_that_md_gave_up_is_not_armed_before_md_has_let_go_of_it() -> None:
    """While another leg is held, md does not let go: armed and released in turn, without end."""
    held = Stack((IN, BEHIND), dead=(0,), faulty=(1,))
    assert held.steps() == [ReleaseLeg(held.sight().legs[extent(1)].name)]
    assert replace(held, released=(1,)).steps() == []
    mended = replace(held, dead=(), released=(1,))
    assert mended.steps() == [RemoveMember("/dev/md9", device(1))]
