"""The events that vastskyd(8) names are those that there are, with their severity."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PAGE = TOP / "docs/man/vastskyd.8.md"


def told() -> Iterator[tuple[str, str]]:
    """Of "**a**, **b** (info), **c** (error)": the kinds, each with what follows."""
    section = PAGE.read_text().partition("\n# EVENTS\n")[2].partition("\n# ")[0]
    for line in re.findall(r"^\*\*.*$", section, re.M):
        waiting = []
        for kind, severity in re.findall(r"\*\*([a-z-]+)\*\*(?: \(([a-z]+)\))?", line):
            waiting.append(kind)
            if severity:
                yield from ((each, severity) for each in waiting)
                waiting = []


def raised() -> Iterator[tuple[str, str]]:
    for module in (TOP / "vastskyd").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="event"),
                    args=[ast.Attribute(attr=severity), kind, *_],
                ):
                    words = (each for each in ast.walk(kind) if isinstance(each, ast.Constant))
                    yield from ((str(each.value), severity.lower()) for each in words)


def test_each_event_is_told_and_no_other() -> None:
    found = list(told())
    assert len(found) == len(set(found))
    assert set(found) == set(raised())
