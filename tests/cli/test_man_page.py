"""vastskyctl(1) names every command with all of its options and the type of its JSON."""

import re
from pathlib import Path

import click
import pytest

from tests.cli.test_commands import _command, _commands
from tests.cli.test_json_doc import PRINTED
from vastskyd.cli import exits
from vastskyd.cli.main import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "man" / "vastskyctl.1.md"
TEXT = PAGE.read_text().replace("\\", "")
MANUAL = [
    "NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT",
    "FILES", "EXAMPLES", "SEE ALSO",
]  # fmt: skip
# Explained once, below "OPTIONS".
EVERYWHERE = {"--json", "--no-wait", "--dry-run", "--idempotency-key", "--watch", "--help"}


def section(title: str) -> str:
    return TEXT.partition(f"\n# {title}\n")[2].partition("\n# ")[0]


def documented() -> dict[str, str]:
    """The definition of each command."""
    found = {}
    for entry in re.findall(r"^\*\*[a-z].*?(?=\n\n\*\*|\Z)", section("COMMANDS"), re.M | re.S):
        name = re.match(r"\*\*([a-z ]+)\*\*", entry)
        assert name is not None, entry
        found[name[1]] = entry
    return found


def test_every_command_is_there_and_no_other() -> None:
    assert set(documented()) == {" ".join(path) for path in _commands(main)}


@pytest.mark.parametrize("path", _commands(main), ids=" ".join)
def test_a_command_is_documented_as_it_is(path: tuple[str, ...]) -> None:
    entry = documented()[" ".join(path)]
    usage, _, text = entry.partition("\n:")
    options = {
        next(name for name in param.opts if name.startswith("--"))
        for param in _command(path).params
        if isinstance(param, click.Option)
    }
    assert set(re.findall(r"\*\*(--[\w-]+)", usage)) == options - EVERYWHERE
    assert set(re.findall(r"\*([A-Z][a-z]+[A-Za-z]*)\*", text)) == PRINTED.get(
        " ".join(path), set()
    )


def test_options_of_many_commands_are_explained_once() -> None:
    assert set(
        re.findall(r"^.*\*\*(--[\w-]+)\*\*(?: \*[A-Z]+\*)?$", section("OPTIONS"), re.M)
    ) == EVERYWHERE | {name for param in main.params for name in param.opts}


@pytest.mark.parametrize("path", _commands(main), ids=" ".join)
def test_a_short_option_is_told_where_the_long_one_is(path: tuple[str, ...]) -> None:
    shorts = {
        name
        for param in _command(path).params
        if isinstance(param, click.Option)
        for name in param.opts
        if not name.startswith("--")
    }
    entry = documented()[" ".join(path)]
    assert set(re.findall(r"\*\*(-\w)\*\*", entry)) == shorts


@pytest.mark.parametrize("path", _commands(main), ids=" ".join)
def test_a_value_is_called_as_in_the_help(path: tuple[str, ...]) -> None:
    entry = documented()[" ".join(path)]
    for param in _command(path).params:
        if not isinstance(param, click.Option) or param.is_flag:
            continue
        if isinstance(param.type, click.Choice):
            continue  # its words stand there
        (long,) = (name for name in param.opts if name.startswith("--"))
        text = section("OPTIONS") if long in EVERYWHERE else entry
        assert param.metavar, long
        assert f"**{long}** *{param.metavar}*" in text


def test_each_exit_status_is_told() -> None:
    told = {int(code) for code in re.findall(r"^\*\*(\d+)\*\*$", section("EXIT STATUS"), re.M)}
    assert told == {exits.OK, exits.FAILED, exits.INTERRUPTED, *exits._CODES.values()}


def test_its_sections_are_those_that_a_manual_has() -> None:
    titles = re.findall(r"^# (.+)$", TEXT, re.M)
    assert [title for title in titles if title in MANUAL] == MANUAL


def test_what_can_be_watched_is_named() -> None:
    said = section("OPTIONS").partition("**--watch**")[2].partition("\n\n")[0]
    watched = {
        " ".join(path)
        for path in _commands(main)
        if any("--watch" in param.opts for param in _command(path).params)
    }
    lists = {name for name in watched if name.endswith(" list")}
    assert set(re.findall(r"\*\*([a-z ]+)\*\*", said)) == watched - lists
    assert "the lists" in said
