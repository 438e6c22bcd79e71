"""vastskyd.toml(5) says what the code does: every setting, its default, limits and effect."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from vastskyd.config.settings import EFFECTS, RIGHT, Config
from vastskyd.config.written import written

PAGE = Path(__file__).parents[2] / "docs" / "man" / "vastskyd.toml.5.md"
# A number that stands in words of its own, not in an example of a value.
NUMBER = re.compile(r'(?<![\w.:"])\d+(?:\.\d+)?(?![\w.:])')


@dataclass(frozen=True)
class Documented:
    default: str
    effect: str
    text: str


def documented() -> dict[str, Documented]:
    """The definitions below "SETTINGS", with the tables that their headings name."""
    section = PAGE.read_text().partition("# SETTINGS\n")[2].partition("\n# ")[0]
    table = ""
    found = {}
    for block in section.split("\n\n"):
        if heading := re.fullmatch(r"## \[(\w+)\]", block.strip()):
            table = heading[1] + "."
        elif entry := re.match(r"\*\*(\w+)\*\*(?: = \*(.+?)\*)? \((\w+)\)\n: {3}(.*)", block, re.S):
            key, default, effect, text = entry.groups()
            assert table + key not in found
            found[table + key] = Documented(default or "", effect, text)
        else:
            assert ":   " not in block, f"not understood: {block}"
    return found


def test_every_setting_is_documented_and_there_is_no_other() -> None:
    assert set(documented()) == set(EFFECTS)


@pytest.mark.parametrize("key", EFFECTS)
def test_a_setting_is_documented_as_it_is(key: str) -> None:
    entry = documented()[key]
    default = Config().value_of(key)
    assert entry.default == ("" if default in (None, ()) else written(default))
    assert entry.effect == EFFECTS[key]
    limits = RIGHT[key].partition(", as in")[0]
    for word in NUMBER.findall(limits) + re.findall(r'"[A-Za-z0-9]+"', limits):
        assert re.search(rf'(?<![\w"]){word}(?![\w"])', entry.text), f"{key} does not name {word}"


def test_every_effect_is_explained() -> None:
    explained = PAGE.read_text().partition("# WHEN A CHANGE TAKES EFFECT\n")[2].partition("\n# ")[0]
    assert set(re.findall(r"^\*\*(\w+)\*\*$", explained, re.M)) == set(EFFECTS.values())
