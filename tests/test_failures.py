"""docs/failures.md has a line for each test of the fault matrix, and a test for each line."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_ROW = re.compile(r"^\| ([a-z0-9-]+) \|", re.MULTILINE)


def _tests() -> set[str]:
    found = set()
    for path in (ROOT / "tests/cluster").glob("test_matrix_*_lab.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(node.name.removeprefix("test_").replace("_", "-"))
    return found


def test_the_fault_matrix_is_told_as_it_is_tested() -> None:
    found = _ROW.findall((ROOT / "docs/failures.md").read_text())
    rows = [row for row in found if row != "case"]
    assert sorted(rows) == sorted(_tests())
