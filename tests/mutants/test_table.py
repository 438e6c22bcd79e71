"""The table of mutants speaks of the code as it is; `./run mutants` says if they are killed."""

import pytest

from tests.mutants.mutant import Mutant
from tests.mutants.runner import ROOT
from tests.mutants.table import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_applied(mutant: Mutant) -> None:
    assert mutant.stale(ROOT) == ""


def test_names_are_of_one_mutant_each() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
