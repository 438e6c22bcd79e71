"""All mutants, by promise."""

from tests.mutants import callers, disks, durability, epochs, quorum

MUTANTS = (
    *quorum.MUTANTS,
    *epochs.MUTANTS,
    *durability.MUTANTS,
    *disks.MUTANTS,
    *callers.MUTANTS,
)
