"""Every number of seconds in a record says whether it is a point in time or a duration."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from msgspec import inspect

import vastskyd
from vastskyd.core.model import Duration, PointInTime, Record

SAYS = {"point": inspect.type_info(PointInTime), "duration": inspect.type_info(Duration)}
RATES = ("_kib_s",)


def _below(kind: type[Record]) -> Iterator[type[Record]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def all_records() -> list[type[Record]]:
    """Whatever package they are in."""
    for module in pkgutil.walk_packages(vastskyd.__path__, "vastskyd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = {each for each in _below(Record) if each.__module__.startswith("vastskyd.")}
    return sorted(ours, key=lambda each: (each.__module__, each.__name__))


@pytest.mark.parametrize("record", all_records(), ids=lambda each: each.__name__)
def test_seconds_say_what_they_are(record: type[Record]) -> None:
    described = inspect.type_info(record)
    assert isinstance(described, inspect.StructType)
    for member in described.fields:
        in_seconds = member.name.endswith("_s") and not member.name.endswith(RATES)
        assert (member.type in SAYS.values()) == in_seconds, member.name


def test_the_two_are_told_apart() -> None:
    assert SAYS["point"] != SAYS["duration"]
