"""All mutants, by promise."""

from tests.mutants import callers, disks, durability, epochs, mending, quorum, running

MUTANTS = (
    *quorum.MUTANTS,
    *epochs.MUTANTS,
    *durability.MUTANTS,
    *disks.MUTANTS,
    *mending.MUTANTS,
    *callers.MUTANTS,
    *running.MUTANTS,
)
