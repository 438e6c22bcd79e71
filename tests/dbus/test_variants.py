"""Records survive the bus's types; what does not fit is refused by name."""

import typing

import pytest
from dbus_next.signature import Variant
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from tests.dbus.fake_cluster import EVENTS, NODES, STATUS, VOLUMES, job
from vastskyd.core import api
from vastskyd.core.errors import InvalidError
from vastskyd.core.model import Job, PointInTime, Record
from vastskyd.dbus.interfaces import INTERFACES, JOB, carrier
from vastskyd.dbus.records import all_records
from vastskyd.dbus.table import ANSWERS
from vastskyd.dbus.variants import members, nothing, plain, record_in, record_out, signature


@pytest.mark.parametrize("record", [STATUS, *VOLUMES, *EVENTS, job(), api.Done()])
def test_there_and_back(record: Record) -> None:
    assert record_in(type(record), record_out(record)) == record


def test_types_follow_from_the_declaration() -> None:
    written = record_out(VOLUMES[1])
    assert written["size_bytes"].signature == "t"
    assert written["copies"].signature == "x"
    assert written["layout"].signature == "s"
    assert written["segments"].signature == "aa{sv}"  # though it is empty
    assert "attachment" not in written
    assert type(written["layout"].value) is str


def test_every_request_and_answer_has_dbus_types() -> None:
    for request, answer in ANSWERS.items():
        for record in (request, answer):
            for name, member in members(record).items():
                assert signature(member.type, name)


def test_seconds_of_which_nobody_says_what_they_are_have_no_type() -> None:
    with pytest.raises(TypeError, match="waited_s"):
        signature(inspect.type_info(float), "waited_s")


def test_points_in_time_are_microseconds_and_durations_seconds() -> None:
    written = record_out(job(started_s=1764485601.1234567))
    assert written["started"] == Variant("t", 1764485601123457)
    assert written["ended"] == Variant("t", 0)  # it runs
    assert "started_s" not in written
    (away,) = [record_out(node) for node in NODES if node.state == "unreachable"]
    assert away["unreachable_s"] == Variant("d", 300.5)


def test_no_record_has_a_point_in_time_as_seconds() -> None:
    for record in all_records():
        fields = inspect.type_info(record).fields  # type: ignore[attr-defined]
        assert [each.name for each in members(record).values()] == [each.name for each in fields]
        for name, member in members(record).items():
            is_point = member.type == inspect.type_info(PointInTime)
            assert (signature(member.type, name) == "t") == (is_point or name.endswith("_bytes"))
            assert name == (member.name.removesuffix("_s") if is_point else member.name)


@given(st.integers(0, 4_102_444_800_000_000))
def test_a_microsecond_is_not_lost(time_us: int) -> None:
    """Until the year 2100."""
    seen = record_in(Job, record_out(job()) | {"started": Variant("t", time_us)})
    assert record_out(seen)["started"].value == time_us


@pytest.mark.parametrize("time_s", [-0.5, -3600.0])
def test_before_1970_nothing_is_known(time_s: float) -> None:
    """Of a host whose clock is wrong; an answer that cannot be sent would say less."""
    assert record_out(job(started_s=time_s))["started"] == Variant("t", 0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"started": Variant("d", 1.5)}, "^started: .*whole number"),
        ({"started": Variant("b", True)}, "^started: .*whole number"),
        ({"started": Variant("s", "today")}, "^started: .*whole number"),
        ({"started": Variant("x", -1)}, "^started: .*whole number"),
        ({"started_s": Variant("d", 1.5)}, "started_s"),
    ],
)
def test_a_time_that_is_none_is_refused(wrong: dict[str, Variant], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        record_in(Job, record_out(job()) | wrong, strict=True)


def test_what_a_record_lacks_is_said_by_the_name_it_has_here() -> None:
    written = record_out(job())
    del written["started"]
    for strict in (True, False):
        with pytest.raises(InvalidError, match=r"\bstarted$"):
            record_in(Job, written, strict=strict)


def test_fixed_tuples_are_structs() -> None:
    assert signature(inspect.type_info(tuple[tuple[int, int], ...])) == "a(xx)"


def test_reading_takes_what_a_newer_peer_adds() -> None:
    written = record_out(job()) | {"colour": Variant("s", "blue")}
    assert record_in(Job, written) == job()
    with pytest.raises(InvalidError, match="colour"):
        record_in(Job, written, strict=True)


SENT = sorted(ANSWERS, key=lambda kind: kind.__name__)


@given(st.text(st.characters(), max_size=20))
def test_any_text_can_be_sent(text: str) -> None:
    written = record_out(job(message=text))
    sent = written["message"].value
    sent.encode()  # no lone surrogates
    assert "\0" not in sent


def test_every_request_can_be_carried() -> None:
    for request in SENT:
        interface, method = carrier(request)
        assert method in interface.methods
        assert method.request is request


@given(st.data())
def test_requests_survive_the_call(data: st.DataObject) -> None:
    request_type = data.draw(st.sampled_from(SENT))
    hints = typing.get_type_hints(request_type)
    sent = [name for name in hints if name not in ("asked_by", "idempotency_key")]
    values = {name: data.draw(_values(hints[name], name)) for name in sent}
    request = request_type(**values)
    _, method = carrier(request_type)
    asked = method.parse(method.call_body(request), method.name_of(request))
    assert asked.request == request
    assert not asked.silent


def test_who_asked_is_not_the_callers_to_say() -> None:
    for method in (method for interface in INTERFACES for method in interface.methods):
        known = {name for name, _ in (*method.takes, *method.known_options)}
        assert "asked_by" not in known
        with pytest.raises(InvalidError, match="no option 'asked_by'"):
            method.parse([*("" for _ in method.argument_names), {"asked_by": Variant("s", "x")}])


def test_a_property_that_has_nothing_to_show_shows_its_type() -> None:
    for interface in INTERFACES:
        for shown in interface.properties:
            kind = interface.kind(shown)
            Variant(kind, nothing(kind))  # else dbus-next says SignatureBodyMismatchError


def _values(hint: typing.Any, name: str) -> st.SearchStrategy[typing.Any]:
    letters = st.text("abc:/-é", max_size=8)
    if name == "node":
        return st.text("abc-é", max_size=8)  # what stands before a colon
    if name == "seen":
        return st.sampled_from([None, job(), job(done_bytes=2**60)])
    if hint is int:
        return st.integers(0, 2**63 - 1)
    if hint is float:
        return st.floats(0, 1e6)
    if hint is str or getattr(hint, "__supertype__", None) is str:
        return letters
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return st.lists(_values(inner, name), max_size=3).map(tuple)
    return st.from_type(hint)


def test_a_job_shows_its_times_as_its_record_does() -> None:
    seen = job(started_s=1764485601.1234567)
    shown, written = JOB.values(seen), record_out(seen)
    for name, member in (
        ("Started", "started"), ("Ended", "ended"), ("ExpectedEnd", "expected_end"),
    ):  # fmt: skip
        assert shown[name] == written[member]


def test_plain_unwraps_at_any_depth() -> None:
    assert plain({"a": Variant("av", [Variant("s", "x")])}) == {"a": ["x"]}


def test_a_word_that_is_none_is_told_with_those_that_are() -> None:
    for request, values, said in (
        (api.SetCopiesApart, {"copies_apart": "floor"}, "it is one of host, disk"),
        (api.CreateToken, {"roles": ["storage", "boss"]}, "it is one of manager, storage, head"),
    ):
        with pytest.raises(InvalidError) as refused:
            record_in(request, values, strict=True)
        assert refused.value.hint == said
    with pytest.raises(InvalidError) as refused:
        record_in(api.SetCopiesApart, {"copies_apart": 3}, strict=True)
    assert refused.value.hint == "it is one of host, disk"
