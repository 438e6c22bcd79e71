"""All mutants, by promise."""

from tests.mutants import disks, durability, epochs, quorum

MUTANTS = (*quorum.MUTANTS, *epochs.MUTANTS, *durability.MUTANTS, *disks.MUTANTS)
