"""Every vastskyctl command that is told of, in the documentation or in a hint, can be typed."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.test_commands import _command, _commands
from vastskyd.cli.main import main

TOP = Path(__file__).resolve().parents[2]
PAGES = sorted([TOP / "README.md", TOP / "packaging/vastskyd.toml", *(TOP / "docs").rglob("*.md")])
MODULES = sorted((TOP / "vastskyd").rglob("*.py"))
# What stands for a value of another form than a word's.
FILLED_IN = {"SIZE": "1G", "TIME": "1h"}
OPTIONS = {
    option
    for path in _commands(main)
    for param in (*main.params, *_command(path).params)
    for option in param.opts
} | {"--help", "--version"}
FORMATTED = "x1"  # what an f-string puts in


def in_page(text: str) -> Iterator[str]:
    """Of a page: what is shown as typed, in a block, in a line, or of a man page in bold."""
    text = text.replace("\\-", "-")
    for block in re.findall(r"^```.*?^```", text, re.M | re.S):
        yield from in_block(block)
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    yield from in_block(
        "\n".join(
            line for line in text.splitlines() if line.startswith("    ") and "**" not in line
        )
    )
    for quoted in re.findall(r"`([^`]*)`", text):
        yield from in_block(" ".join(quoted.split()))
    for bold in re.findall(
        r"\*\*(vastskyctl [^*]+)\*\*((?:\s\*[^\n*]+\*|\s\*\*-[^*]+\*\*)*)", text
    ):
        yield " ".join(" ".join(bold).replace("*", "").split())


def in_block(block: str) -> Iterator[str]:
    for line in block.splitlines():
        found = re.search(r"(?<![\w/@-])vastskyctl (?=[a-zA-Z-]).*", line)
        if found is not None:
            typed = re.split(r"\s+[#(&|;]|\s{3,}|[`)]", found[0])[0]
            quotes = [mark for mark in "\"'" if typed.count(mark) % 2]  # of what it stands in
            yield typed.rpartition(quotes[0])[0] if quotes else typed


def in_module(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    passed_over = {part for node in ast.walk(tree) for part in _parts(node)}
    for node in ast.walk(tree):
        if node in passed_over:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else FORMATTED
                for part in node.values
            )
        else:
            continue
        if "\b" in text:  # a command's help: its examples
            yield from in_block(text.partition("\b")[2])
        yield from re.findall(r"[`'](vastskyctl [^`']*)[`']", text)


def _parts(node: ast.AST) -> list[ast.expr]:
    """What is no text of its own: of an f-string, and documentation for those who read the code."""
    if isinstance(node, ast.JoinedStr):
        return node.values
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return [] if "\b" in str(node.value.value) else [node.value]
    return []


def refusal(told: str, *, mentioned: bool) -> str:
    """Why it cannot be typed. `mentioned`: a command's name alone is enough, and so is an
    option's."""
    told = told.replace(f"--role {FORMATTED}", "--role storage")
    words = [FILLED_IN.get(word, word) for word in shlex.split(told)[1:]]
    if words[:1] == ["--no-ask-password"]:
        words = words[1:]
    if words[:1] == ["COMMAND"] or not words:
        return ""
    if words[0].startswith("-"):
        return "" if mentioned and words[0] in OPTIONS else f"there is no option {words[0]}"
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        name, *words = words
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    if mentioned and not words:
        return ""
    try:
        command.make_context(command.name, words)
    except click.exceptions.Exit:  # --help
        return ""
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_documentation_tells_can_be_typed(page: Path) -> None:
    told = list(in_page(page.read_text()))
    assert not [(each, why) for each in told if (why := refusal(each, mentioned=True))], page


@pytest.mark.parametrize(
    "module", [each for each in MODULES if "vastskyctl " in each.read_text()],
    ids=lambda module: str(module.relative_to(TOP)),
)  # fmt: skip
def test_what_a_hint_tells_can_be_typed_as_it_is(module: Path) -> None:
    told = list(in_module(module.read_text()))
    assert not [(each, why) for each in told if (why := refusal(each, mentioned=False))]


def test_they_are_found() -> None:
    assert "vastskyctl job wait j1" in in_page("text `vastskyctl job\nwait j1` text")
    assert "vastskyctl volume set NAME --standby HEAD" in in_page(
        "(**vastskyctl volume set** *NAME* **\\-\\-standby** *HEAD*)."
    )
    assert list(in_page("```\nhost1# vastskyctl status    # how it is\n```")) == [
        "vastskyctl status"
    ]

    assert list(in_module('hint = ("see `vastskyctl node "\n    f"show {x}`")')) == [
        "vastskyctl node show x1"
    ]
    assert refusal("vastskyctl volume attach data", mentioned=True)
    assert refusal("vastskyctl disk retire", mentioned=False)
    assert not refusal("vastskyctl disk retire", mentioned=True)
    assert sum(len(list(in_page(page.read_text()))) for page in PAGES) > 80
