"""Mutants of how a host runs: a role that hangs, a shutdown, and a volume that is another's."""

from tests.mutants.mutant import mutant

_LETTING_GO = "vastskyd/roles/letting_go.py"
_HERE = "vastskyd/cli/here.py"

_STUCK = "tests/sim/test_progress.py"
_SHUTDOWN = "tests/sim/test_letting_go.py"
_TAKEN = "tests/cli/test_here.py"

MUTANTS = (
    mutant(
        "running-stuck-unseen",
        "systemd's watchdog is told of a role that hangs as of one that works",
        "vastskyd/__main__.py",
        ("        if stuck:\n            notify(f", "        if not host:\n            notify(f"),
        f"{_STUCK}::test_systemd_hears_nothing_more_of_a_host_that_is_stuck",
    ),
    mutant(
        "running-slow-is-stuck",
        "a storage host that stops one export server after the other counts as one that hangs",
        "vastskyd/roles/storage.py",
        ("        for server in document.servers:\n            step()\n",
         "        for server in document.servers:\n"),
        f"{_STUCK}::test_slow_steps_are_steps_however_many",
    ),
    mutant(
        "running-shutdown-holds",
        "what is held is still held when the host has nobody left to end it",
        _LETTING_GO,
        ("force=bool(gone) and (used or forced)", "force=False"),
        f"{_SHUTDOWN}::test_a_write_that_waits_for_ever_ends_and_nobody_is_told_that_it_is_done",
    ),
    mutant(
        "running-shutdown-breaks",
        "a shutdown takes away what is in use and works",
        _LETTING_GO,
        ("    if used and not gone:\n        return ()\n", ""),
        f"{_SHUTDOWN}::test_a_volume_in_use_that_works_is_left_alone",
    ),
    mutant(
        "running-takes-anothers",
        "a host that boots takes a volume from another that is out of reach",
        _HERE,
        ("if given and view.head != me:", "if not me:"),
        f"{_TAKEN}::test_a_volume_that_another_host_has_is_left_to_it",
    ),
    mutant(
        "running-leaves-anothers",
        "a host that goes down detaches a volume from the host that took it over",
        _HERE,
        ("if not me or view.head != me:", "if not me or not view.head:"),
        f"{_TAKEN}::test_a_volume_that_another_host_has_is_left_to_it",
    ),
)  # fmt: skip
