"""Paths name objects, and nothing else does."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.dbus.paths import ROOT, Kind, Place, decode, encode

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.sampled_from(Kind), names)
def test_every_name_has_a_path_of_its_own(kind: Kind, name: str) -> None:
    path = Place(kind, name).path
    assert re.fullmatch(r"(/[A-Za-z0-9_]+)+", path)
    assert Place.parse(path) == Place(kind, name)


@given(st.text("abAF0129_", max_size=12))
def test_a_name_has_one_path_only(element: str) -> None:
    name = decode(element)
    assert name is None or encode(name) == element


def test_ids_stand_as_they_are() -> None:
    assert Place(Kind.VOLUME, "0a1b").path == f"{ROOT}/volumes/0a1b"


@pytest.mark.parametrize(
    "path",
    ["/", ROOT, f"{ROOT}/volumes", f"{ROOT}/volumes/", f"{ROOT}/snapshots/a", "/org/volumes/a",
     f"{ROOT}/volumes/a/b", f"{ROOT}/volumes/a_zz", f"{ROOT}/volumes/_ff", f"{ROOT}/volumes/_61"],
)  # fmt: skip
def test_others_name_none(path: str) -> None:
    assert Place.parse(path) is None
