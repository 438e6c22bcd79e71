"""One mutant: a promise's mechanism switched off by a change of a few words in one file."""

import ast
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mutant:
    """`off` says what no longer holds. `changes` are (old text, new text); each old text stands in
    the file exactly once. `tests` are expected to notice, the quickest first; `lab`: they need
    guests, and `narrow` says what of the contract suites to run there.
    """

    name: str
    off: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]
    lab: bool = False
    narrow: str = ""

    def stale(self, root: Path) -> str:
        """Why it cannot be applied to the tree any more; empty if it can."""
        text = (root / self.file).read_text()
        for old, _ in self.changes:
            if (count := text.count(old)) != 1:
                return f"{self.file} has this {count} times: {old!r}"
        try:
            ast.parse(self._changed(text))
        except SyntaxError as error:
            return f"{self.file}: no Python any more: {error}"
        for test in self.tests:
            if missing := _missing(root, test):
                return missing
        return ""

    def apply(self, root: Path) -> None:
        path = root / self.file
        path.write_text(self._changed(path.read_text()))

    def _changed(self, text: str) -> str:
        for old, new in self.changes:
            text = text.replace(old, new)
        return text


def _missing(root: Path, test: str) -> str:
    file, _, name = test.partition("::")
    path = root / file
    if not path.exists():
        return f"there is no {file}"
    function = name.partition("[")[0]
    if function and f"def {function}(" not in path.read_text():
        return f"there is no test {test}"
    return ""


def mutant(name: str, off: str, file: str, change: tuple[str, str], *tests: str) -> Mutant:
    return Mutant(name, off, file, (change,), tests)
