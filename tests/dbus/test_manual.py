"""org.vastsky.Vastsky1(5) is the table, and all that it names is there."""

import re
from pathlib import Path

from vastskyd.core.errors import BY_CODE
from vastskyd.dbus.actions import Action
from vastskyd.dbus.interfaces import INTERFACES
from vastskyd.dbus.manual import manual
from vastskyd.dbus.manual_words import EXAMPLES, PLACES, WORDS
from vastskyd.dbus.paths import Kind
from vastskyd.dbus.record_words import RECORDS
from vastskyd.dbus.records import all_records
from vastskyd.dbus.variants import members

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "man/org.vastsky.Vastsky1.5.md"


def section(title: str) -> str:
    _, there, after = PAGE.read_text().partition(f"\n# {title}\n")
    assert there, title
    return after.partition("\n# ")[0]


def terms(text: str) -> list[str]:
    """What is defined there."""
    return re.findall(r"^\*\*([^*]+)\*\*[^\n]*\n:   \S", text, re.M)


def test_what_is_shipped_is_the_table() -> None:
    assert PAGE.read_text() == manual(), "python3 -m vastskyd.dbus.manual writes it"


def test_each_member_is_described() -> None:
    for interface in INTERFACES:
        text = section(f"THE {interface.short.upper()} INTERFACE")
        methods, signals, properties = (
            [each.name for each in interface.methods],
            [each.name for each in interface.signals],
            [each.name for each in interface.properties],
        )
        assert terms(text) == [*methods, *signals, *properties]
        for method in interface.methods:
            assert re.search(rf"^      +{method.name}\(", text, re.M)
            if method.action:
                assert method.action.id in text


def test_it_says_how_each_property_changes() -> None:
    for interface in INTERFACES:
        text = section(f"THE {interface.short.upper()} INTERFACE").partition("## Properties")[2]
        for item, shown in zip(text.strip().split("\n\n"), interface.properties, strict=True):
            said = " ".join(item.split())
            told = "No signal" if interface.short in ("Node", "Volume") else "PropertiesChanged"
            assert said.endswith(f"{told} tells." if shown.changes else "Constant.")


def test_each_argument_and_option_is_explained_and_no_other() -> None:
    known = {
        name
        for interface in INTERFACES
        for method in interface.methods
        for name, _ in (*method.takes, *method.known_options)
    }
    assert set(WORDS) == known
    plain = [term.replace("\\", "") for term in terms(section("ARGUMENTS AND OPTIONS"))]
    assert plain == list(WORDS)


def test_each_kind_of_object_error_and_action_is_there() -> None:
    assert set(PLACES) == {"", *Kind}
    assert [name.rpartition(".")[2] for name in terms(section("ERRORS"))] == list(BY_CODE)
    assert terms(section("WHO MAY CALL")) == [action.id for action in Action]


def test_each_record_is_described_as_in_json() -> None:
    text = (DOCS / "json.md").read_text()
    assert {record.__name__ for record in all_records()} == set(RECORDS)
    for record in all_records():
        _, there, after = text.partition(f"\n### {record.__name__}\n")
        assert there, record
        intro, _, table = after.partition("\n### ")[0].partition("| member |")
        words = RECORDS[record.__name__]
        assert plain(intro).strip() == words.purpose
        rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", table, re.M)
        assert [(name, plain(said)) for name, said in rows] == list(words.members.items())
        _, there, described = section("RECORDS").partition(f"\n## {record.__name__}\n")
        assert there, record
        names = terms(described.partition("\n## ")[0])
        assert [name.replace("\\", "") for name in names] == list(members(record))
        assert [member.name for member in members(record).values()] == list(words.members)


def plain(markdown: str) -> str:
    return re.sub(r"\[(\w+)\]\(#\w+\)", r"\1", markdown).replace("`", "")


def test_the_examples_are_of_what_there_is() -> None:
    methods = {
        (interface.name, method.name): method
        for interface in INTERFACES
        for method in interface.methods
    }
    calls = re.findall(
        r"busctl (.*)call org\.vastsky\.Vastsky1 \S+ (\S+) (\w+) '(\S+)' (.+)$",
        re.sub(r"\s*\\\n\s*", " ", EXAMPLES),
        re.M,
    )
    assert len(calls) == len(re.findall(r"busctl .*call ", EXAMPLES))
    for told, interface, name, signature, arguments in calls:
        method = methods[interface, name]
        assert signature == method.in_signature
        *_, options = arguments.partition(" ") if len(method.takes) > 1 else ("", "", arguments)
        given = re.findall(r"(\S+) ([a-z]+) \S+", re.sub(r"^(\S+ )*?\d+ (?=\D)", "", options))
        assert all(option in method.known_options for option in given), given
        if name == "Wait":
            (timeout_s,) = re.findall(r"--timeout=(\d+) ", told)
            assert int(timeout_s) > int(arguments.split()[0]), "busctl gives up first"
    (shown,) = re.findall(r"(\S+) State$", EXAMPLES, re.M)
    (found,) = [each for each in INTERFACES if each.name == shown]
    assert any(each.name == "State" for each in found.properties)
