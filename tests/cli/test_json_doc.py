"""docs/json.md says what --json prints: each command's type, each type's members."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from msgspec import inspect

from tests.cli.test_commands import WITHOUT_JSON, _command, _commands
from vastskyd.cli.main import main
from vastskyd.config import view
from vastskyd.core import answers, api
from vastskyd.core.model import Record

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json.md"
TEXT = PAGE.read_text()


def type_word(kind: inspect.Type) -> str:
    """As the page writes it."""
    match kind:
        case inspect.BoolType():
            return "boolean"
        case inspect.IntType():
            return "integer"
        case inspect.FloatType():
            return "number"
        case inspect.Metadata(type=inner):
            return type_word(inner)
        case inspect.StrType():
            return "string"
        case inspect.NoneType():
            return "null"
        case inspect.EnumType(cls=words):
            return "one of " + ", ".join(f"`{word}`" for word in words)
        case inspect.StructType(cls=record):
            return f"[{record.__name__}](#{record.__name__.lower()})"
        case inspect.VarTupleType(item_type=item):
            return f"list of {type_word(item)}"
        case inspect.UnionType(types=kinds):
            return " or ".join(map(type_word, kinds))
    raise TypeError(f"no word for {kind}")


def members(record: type[Record]) -> list[tuple[str, str]]:
    described = inspect.type_info(record)
    assert isinstance(described, inspect.StructType)
    return [(field.name, type_word(field.type)) for field in described.fields]


def with_what_is_inside(record: type[Record]) -> Iterator[type[Record]]:
    def inside(kind: inspect.Type) -> Iterator[type[Record]]:
        match kind:
            case inspect.StructType(cls=found) if issubclass(found, Record):
                yield from with_what_is_inside(found)
            case inspect.VarTupleType(item_type=item):
                yield from inside(item)
            case inspect.UnionType(types=kinds):
                for each in kinds:
                    yield from inside(each)

    yield record
    described = inspect.type_info(record)
    assert isinstance(described, inspect.StructType)
    for field in described.fields:
        yield from inside(field.type)


def named(name: str) -> type[Record]:
    found: type[Record] = next(
        getattr(module, name) for module in (answers, api, view) if hasattr(module, name)
    )
    return found


def promised(command: click.Command) -> set[str]:
    """The types that the command's help names."""
    said = (command.help or "").partition("With --json:")[2]
    names = re.findall(r"\b[A-Z]\w+", said.partition("\n\n")[0])
    assert names, "what does it print?"
    return set(names)


PRINTED = {
    " ".join(path): promised(_command(path)) for path in _commands(main) if path not in WITHOUT_JSON
}
TYPES = {
    record.__name__: record
    for names in PRINTED.values()
    for name in sorted(names)
    for record in with_what_is_inside(named(name))
}


def rows(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def section(title: str) -> str:
    assert f"\n{title}\n" in TEXT, f"docs/json.md lacks {title}"
    level = title.partition(" ")[0]
    return re.split(rf"\n#{{1,{len(level)}}} ", TEXT.partition(f"\n{title}\n")[2])[0]


def test_every_command_is_there_with_its_types() -> None:
    documented = {
        command.strip("`"): set(re.findall(r"\[(\w+)\]", types))
        for command, types in rows(section("## What each command prints"))
    }
    assert documented == PRINTED


def test_every_type_is_there_and_no_other() -> None:
    assert set(re.findall(r"^### (\w+)$", TEXT, re.M)) == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_documented_as_it_is(name: str) -> None:
    expected = members(TYPES[name])
    documented = rows(section(f"### {name}")) if expected else []
    assert [(member.strip("`"), kind) for member, kind, _ in documented] == expected
    assert all(meaning for *_, meaning in documented)
