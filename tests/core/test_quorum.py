"""Promise 1, as a model: one head, one manager, documents and reports on their way between them,
and the real rules on both sides. All orders of events are tried, to a bound.

A write is one that the head acknowledges: it is then on every leg that md writes to. `whole` are
the legs that have all acknowledged writes. The promise: whichever legs a recovery finds, a recovery
quorum of the committed set has a whole leg among them, and the newest history wins.
"""

import itertools
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vastskyd.core.documents import LegCondition, LegFact, SegmentFact
from vastskyd.core.ids import ExtentId
from vastskyd.core.model import Leg, LegState, Segment
from vastskyd.core.quorum import (
    given_up,
    grown,
    may_acknowledge,
    recovery_quorum,
    shrunk,
    write_quorum,
)

ACTIVE, HELD, OUT, FILLING = (
    LegCondition.ACTIVE,
    LegCondition.HELD,
    LegCondition.OUT,
    LegCondition.RECOVERING,
)
IN, JOIN, BEHIND = LegState.IN_SYNC, LegState.JOINING, LegState.BEHIND
IN_FLIGHT_MAX = 2

States = tuple[LegState, ...]
Conditions = tuple[LegCondition, ...]


@dataclass(frozen=True)
class Model:
    """`revision`, `seen` and those of `documents` and `reports` count documents; they are kept
    relative to the head's, so that the space is finite.

    `down`: no array. `exposed`: the volume is there, and written to. `newest` are the legs whose
    superblocks have the newest history: recovery begins with one of these if it finds one.
    """

    committed: States
    revision: int
    document: States
    seen: int
    documents: tuple[tuple[int, States], ...]
    reports: tuple[tuple[int, Conditions], ...]
    heard: tuple[int, Conditions] | None
    legs: Conditions
    down: bool
    exposed: bool
    whole: tuple[bool, ...]
    newest: tuple[bool, ...]


def start(states: States) -> Model:
    """All legs in the array, but those that are behind."""
    legs = tuple(OUT if state is BEHIND else ACTIVE for state in states)
    whole = tuple(state is not BEHIND for state in states)
    return Model(states, 0, states, 0, (), (), None, legs, False, True, whole, whole)


def starts(n: int) -> list[Model]:
    """Every set there may be. A leg that is behind may be whole again, and not yet known to be."""
    found = [
        start(states) for states in itertools.product((IN, JOIN, BEHIND), repeat=n) if IN in states
    ]
    every = (True,) * n
    return found + [
        replace(model, legs=(ACTIVE,) * n, whole=every, newest=every)
        for model in found
        if BEHIND in model.committed
    ]


def name(index: int) -> ExtentId:
    return ExtentId(f"{index:016x}")


def segment(states: States) -> Segment:
    legs = tuple(Leg(extent=name(i), state=state) for i, state in enumerate(states))
    return Segment(index=0, length_bytes=1 << 20, legs=legs, initialised=True)


def fact(conditions: Conditions) -> SegmentFact:
    legs = tuple(LegFact(extent=name(i), condition=c) for i, c in enumerate(conditions))
    return SegmentFact(index=0, created=True, legs=legs)


def indices(states: States, *wanted: LegState) -> list[int]:
    return [i for i, state in enumerate(states) if state in wanted]


def with_item(items: tuple, index: int, item: object) -> tuple:  # type: ignore[type-arg]
    return (*items[:index], item, *items[index + 1 :])


def head_may_go_on_with(model: Model, legs: list[int]) -> bool:
    in_sync = [name(i) for i in indices(model.document, IN)]
    joining = [name(i) for i in indices(model.document, JOIN)]
    return may_acknowledge(in_sync, joining, [name(i) for i in legs])


# --- what may happen next ---------------------------------------------------------------------


def head_steps(model: Model) -> Iterator[Model]:
    if model.down:
        yield from assemblies(model)
        return
    n = len(model.legs)
    in_array = [i for i in range(n) if model.legs[i] in (ACTIVE, HELD)]
    for i in range(n):
        condition = model.legs[i]
        if condition is ACTIVE:
            yield replace(model, legs=with_item(model.legs, i, HELD))
        if condition is HELD:
            yield replace(model, legs=with_item(model.legs, i, ACTIVE))
            rest = [j for j in in_array if j != i]
            in_set = model.document[i] in (IN, JOIN)
            # md never drops the last one, and records on the others that it dropped this.
            if any(model.legs[j] is ACTIVE for j in rest) and (
                not in_set or head_may_go_on_with(model, rest)
            ):
                newest = tuple(
                    j in rest and (model.newest[j] or model.legs[j] is ACTIVE) for j in range(n)
                )
                yield replace(model, legs=with_item(model.legs, i, OUT), newest=newest)
        if condition is OUT and model.document[i] is BEHIND and model.exposed:
            yield replace(model, legs=with_item(model.legs, i, FILLING))
        if condition is FILLING:
            yield replace(model, legs=with_item(model.legs, i, OUT))
            if any(model.legs[j] is ACTIVE for j in range(n)):
                yield replace(
                    model,
                    legs=with_item(model.legs, i, ACTIVE),
                    whole=with_item(model.whole, i, True),
                    newest=with_item(model.newest, i, True),
                )
    if model.exposed and HELD not in model.legs and ACTIVE in model.legs:
        written = tuple(condition is ACTIVE for condition in model.legs)
        yield replace(model, whole=written, newest=written)
    if not model.exposed:
        committed = indices(model.document, IN, JOIN)
        if all(i in in_array for i in committed) and ACTIVE in model.legs:
            yield replace(model, exposed=True)
    if len(model.reports) < IN_FLIGHT_MAX:
        yield replace(model, reports=(*model.reports, (model.seen, model.legs)))
    yield replace(model, down=True, exposed=False, legs=(OUT,) * n)


def assemblies(model: Model) -> Iterator[Model]:
    """Any recovery quorum of the set that the head knows. md keeps the newest, and whoever it
    finds up to date with it."""
    in_sync = indices(model.document, IN)
    need = recovery_quorum(len(in_sync))
    for count in range(need, len(in_sync) + 1):
        for found in itertools.combinations(in_sync, count):
            best = [i for i in found if model.newest[i]] or list(found)
            legs = tuple(ACTIVE if i in best else OUT for i in range(len(model.legs)))
            yield replace(model, down=False, legs=legs)


def messages(model: Model) -> Iterator[Model]:
    if model.documents:
        (revision, states), *rest = model.documents
        yield replace(model, documents=tuple(rest), document=states, seen=revision)
    if model.reports:
        report, *others = model.reports
        yield replace(model, reports=tuple(others))  # lost
        yield decide(replace(model, reports=tuple(others), heard=report))


def decide(model: Model) -> Model:
    """The manager's turn, as core.recovery has it: a smaller set by any report, a larger one by a
    report that knows the newest document."""
    if model.heard is None:
        return model
    seen, conditions = model.heard
    now = segment(model.committed)
    changes = shrunk(now, fact(conditions))
    if not changes and seen == model.revision:
        changes = grown(now, fact(conditions))
    if not changes:
        return model
    committed = tuple(changes.get(name(i), state) for i, state in enumerate(model.committed))
    revision = model.revision + 1
    # Those still on their way are overtaken, or not: the newest alone is enough, and so is each.
    documents = (*model.documents, (revision, committed))[-IN_FLIGHT_MAX:]
    return replace(model, committed=committed, revision=revision, documents=documents)


def steps(model: Model) -> Iterator[Model]:
    yield from head_steps(model)
    yield from messages(model)
    yield decide(model)


def reboot(model: Model) -> Model:
    """A new session: what is on its way is lost, and the head has the newest document."""
    return replace(
        model,
        documents=(),
        reports=(),
        heard=None,
        document=model.committed,
        seen=model.revision,
    )


def relative(model: Model) -> Model:
    base = model.seen
    heard = None
    if model.heard is not None:
        heard = (max(model.heard[0] - base, -IN_FLIGHT_MAX - 1), model.heard[1])
    return replace(
        model,
        revision=model.revision - base,
        seen=0,
        documents=tuple((r - base, s) for r, s in model.documents),
        reports=tuple((max(r - base, -IN_FLIGHT_MAX - 1), c) for r, c in model.reports),
        heard=heard,
    )


def check(model: Model) -> None:
    """Every recovery quorum of the committed set has a leg that is whole and in the newest
    history; and no leg in that history lacks anything."""
    in_sync = indices(model.committed, IN)
    assert in_sync, "nothing is committed"
    need = recovery_quorum(len(in_sync))
    for found in itertools.combinations(in_sync, need):
        best = [i for i in found if model.newest[i]] or list(found)
        assert all(model.whole[i] for i in best), f"{found} recovers {best}: {model}"


def follow(model: Model) -> Iterator[Model]:
    for after in steps(model):
        yield after
        if after.down:
            yield reboot(after)


def explore(first: Model, states_max: int) -> int:
    """Breadth first, so that the first violation is a shortest one."""
    parents: dict[Model, Model | None] = {first: None}
    queue = deque([first])
    while queue and len(parents) < states_max:
        model = queue.popleft()
        for found in follow(model):
            after = relative(found)
            if after in parents:
                continue
            parents[after] = model
            try:
                check(after)
            except AssertionError as error:
                path = [str(after)]
                at: Model | None = model
                while at is not None:
                    path.append(str(at))
                    at = parents[at]
                raise AssertionError(f"{error}\n" + "\n".join(reversed(path))) from error
            queue.append(after)
    return len(parents)


@pytest.mark.parametrize(("n", "states_max"), [(1, 60_000), (2, 4_000), (3, 700)])
def test_orders_from_every_set(n: int, states_max: int) -> None:
    for first in starts(n):
        explore(first, states_max)


def test_many_orders_with_three() -> None:
    explore(start((IN, IN, IN)), 25_000)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_long_walks(n: int) -> None:
    for seed in range(12):
        rng = random.Random(seed)
        model = rng.choice(starts(n))
        for _ in range(600):
            model = relative(rng.choice(list(follow(model))))
            check(model)


@settings(max_examples=80, deadline=None)
@given(st.integers(2, 5), st.lists(st.integers(0, 1 << 16), max_size=120))
def test_walks_that_hypothesis_can_shorten(n: int, choices: list[int]) -> None:
    model = start((IN,) * n)
    for choice in choices:
        found = list(follow(model))
        model = relative(found[choice % len(found)])
        check(model)


@pytest.mark.parametrize("n", range(1, 8))
def test_write_and_recovery_quorums_meet(n: int) -> None:
    assert write_quorum(n) + recovery_quorum(n) == n + 1


def test_a_step_into_the_set_is_one_step() -> None:
    conditions = (ACTIVE, ACTIVE)
    assert grown(segment((IN, BEHIND)), fact(conditions)) == {name(1): JOIN}
    assert grown(segment((IN, JOIN)), fact(conditions)) == {name(1): IN}


def test_a_committed_leg_that_md_fills_again_leaves_the_set() -> None:
    """By its superblock it lacks something: nobody may wait for it to be whole."""
    assert shrunk(segment((IN, IN)), fact((ACTIVE, FILLING))) == {name(1): BEHIND}
    assert shrunk(segment((IN, JOIN)), fact((ACTIVE, FILLING))) == {name(1): BEHIND}
    assert shrunk(segment((IN, BEHIND)), fact((ACTIVE, FILLING))) == {}


def test_a_leg_out_of_the_set_is_given_up_for_io_errors_only() -> None:
    legs = (
        LegFact(extent=name(0), condition=HELD, broken=True),
        LegFact(extent=name(1), condition=OUT, broken=True),
        LegFact(extent=name(2), condition=OUT, message="no path for 5 s or longer"),
    )
    seen = SegmentFact(index=0, created=True, legs=legs)
    assert given_up(segment((IN, BEHIND, BEHIND)), seen) == {name(1): LegState.FAILED}
