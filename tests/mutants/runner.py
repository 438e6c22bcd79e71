"""Applies one mutant to a copy of the tree, and tells what its tests say."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutants.mutant import Mutant
from tests.mutants.witness import REPORT

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 300.0
LAB_LIMIT_S = 2400.0
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "build", "__pycache__", ".hypothesis", ".mypy_cache", ".ruff_cache",
    ".pytest_cache", "*.egg-info",
)  # fmt: skip
_PASSED, _FAILED = 0, 1


class Verdict(StrEnum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    STALE = "STALE"
    CRASHED = "CRASHED"  # no assertion failed, something else did
    LATE = "LATE"


@dataclass(frozen=True)
class Outcome:
    mutant: Mutant
    verdict: Verdict
    said: str
    took_s: float = 0.0


@dataclass(frozen=True)
class _Run:
    status: int | None
    output: str
    took_s: float
    witness: dict[str, str]


def unmutated(mutants: Iterable[Mutant]) -> str:
    """What the tests say of the tree as it is; empty if they pass, and "killed" means anything."""
    mutants = list(mutants)
    narrow = {each.narrow for each in mutants if each.lab}
    for lab in (False, True):
        tests = tuple(dict.fromkeys(t for each in mutants if each.lab == lab for t in each.tests))
        if not tests:
            continue
        done = _in_copy(None, tests, " ".join(sorted(narrow)) if lab else "", lab=lab)
        if done.status != _PASSED:
            return done.output
    return ""


def tried(mutant: Mutant) -> Outcome:
    if why := mutant.stale(ROOT):
        return Outcome(mutant, Verdict.STALE, why)
    done = _in_copy(mutant, mutant.tests, mutant.narrow, lab=mutant.lab)
    seen = done.witness
    if done.status is None:
        return Outcome(mutant, Verdict.LATE, "the tests did not end", done.took_s)
    if done.status == _PASSED:
        return Outcome(mutant, Verdict.SURVIVED, ", ".join(mutant.tests), done.took_s)
    if done.status != _FAILED or not seen:
        return Outcome(mutant, Verdict.CRASHED, done.output[-2000:], done.took_s)
    where = f"{seen['test']} ({seen['where']}: {seen['kind']}: {seen['message']})"
    verdict = Verdict.KILLED if seen["assertion"] else Verdict.CRASHED
    return Outcome(mutant, verdict, where, done.took_s)


def _in_copy(mutant: Mutant | None, tests: tuple[str, ...], narrow: str, *, lab: bool) -> _Run:
    with tempfile.TemporaryDirectory(prefix="vastsky-mutant-") as name:
        tree = Path(name) / "tree"
        shutil.copytree(ROOT, tree, ignore=_LEFT_OUT, symlinks=True)
        if mutant is not None:
            mutant.apply(tree)
        return _pytest(tree, tests, narrow, LAB_LIMIT_S if lab else LIMIT_S)


def _pytest(tree: Path, tests: tuple[str, ...], narrow: str, limit_s: float) -> _Run:
    witness = tree.parent / "witness.json"
    # In CI a test that cannot run has failed, and hypothesis tries the same examples each time.
    environment = os.environ | {
        "CI": "1",
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VASTSKY_CONTRACT_ONLY": narrow,
        REPORT: str(witness),
    }
    command = (sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider")
    began_s = time.monotonic()
    with subprocess.Popen(
        [*command, "-p", "tests.mutants.witness", *tests],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            # Politely first: what the tests started (guests, servers) they end themselves.
            status, output = None, _ended(process)
    found = json.loads(witness.read_text()) if witness.exists() else {}
    return _Run(status, output, time.monotonic() - began_s, found)


def _ended(process: "subprocess.Popen[str]") -> str:
    for number in (signal.SIGINT, signal.SIGKILL):
        os.killpg(process.pid, number)
        try:
            return process.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            continue
    return ""
