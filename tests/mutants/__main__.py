"""`python -m tests.mutants`: switches the promises' mechanisms off, one by one, and asks the tests.

Each mutant is to be killed: a test fails by an assertion. One that survives shows a promise that
no test holds us to; one that is stale, a table that speaks of code that is no longer there.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.mutant import Mutant
from tests.mutants.runner import Outcome, Verdict, tried, unmutated
from tests.mutants.table import MUTANTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--list", action="store_true", help="the table, and nothing else")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="this mutant, or all whose names begin so; may be repeated",
    )  # fmt: skip
    parser.add_argument("--lab", action="store_true", help="those as well that need guests")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if _is_chosen(m, options.only)]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name:40} {'lab ' if mutant.lab else ''}{mutant.off}")
        return 0
    chosen = [m for m in chosen if options.lab or not m.lab]
    if not chosen:
        parser.error("there is no such mutant")
    return _run(chosen, options.jobs)


def _is_chosen(mutant: Mutant, names: list[str]) -> bool:
    return not names or any(mutant.name.startswith(name) for name in names)


def _run(chosen: list[Mutant], jobs: int) -> int:
    print(f"{len(chosen)} mutants; first the tree as it is", flush=True)
    if wrong := unmutated(chosen):
        print(wrong)
        print("the tests fail without any mutant: nothing can be said of those")
        return 2
    by_lab = sorted(chosen, key=lambda mutant: mutant.lab)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        outcomes = []
        for outcome in pool.map(tried, (m for m in by_lab if not m.lab)):
            outcomes.append(_told(outcome))
    outcomes += [_told(tried(mutant)) for mutant in by_lab if mutant.lab]  # one lab at a time
    left = [o.mutant.name for o in outcomes if o.verdict is not Verdict.KILLED]
    print(f"{len(outcomes) - len(left)} of {len(outcomes)} killed", *left)
    return 1 if left else 0


def _told(outcome: Outcome) -> Outcome:
    how = "by " if outcome.verdict is Verdict.KILLED else ""
    print(
        f"{outcome.verdict:9} {outcome.mutant.name}: {how}{outcome.said} in {outcome.took_s:.1f} s",
        flush=True,
    )
    return outcome


if __name__ == "__main__":
    sys.exit(main())
