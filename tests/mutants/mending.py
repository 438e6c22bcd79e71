"""Mutants of mending and of draining: a volume that nobody has heals, and nobody can use it
meanwhile; what is on a disk that is retired is elsewhere first."""

from tests.mutants.mutant import mutant

_MENDING = "vastskyd/core/mending.py"

_RULE = "tests/core/test_mending.py"
_MENDED = "tests/sim/test_mending.py"
_DRAINED = "tests/sim/test_draining.py"

MUTANTS = (
    mutant(
        "mending-exposes",
        "a volume that is mended is given a device, and an fstab line mounts it",
        "vastskyd/core/orders.py",
        ("        exposed=not attachment.mending,\n", "        exposed=True,\n"),
        f"{_RULE}::test_what_is_begun_is_safe_and_of_use",
    ),
    mutant(
        "mending-exposed-by-its-head",
        "a head gives a volume a device although it is not told to",
        "vastskyd/core/layout.py",
        ("if spec.exposed and spec.id not in sight.volumes", "if spec.id not in sight.volumes"),
        f"{_RULE}::test_what_is_mended_runs_and_has_no_device",
    ),
    mutant(
        "mending-exposed-after-a-loss",
        "records that are made anew take a volume that was mended for one that is in use",
        "vastskyd/core/evidence.py",
        ("        return bool(said) and all(said)\n", "        return False\n"),
        f"{_MENDED}::test_records_lost_while_it_is_mended",
    ),
    mutant(
        "mending-not-after-a-fence",
        "what a fenced head left behind is not looked for",
        "vastskyd/core/moving.py",
        ("unclean = volume.unclean or last is not None", "unclean = volume.unclean"),
        "tests/sim/test_failover.py::test_legs_that_a_fenced_head_left_behind_are_mended",
    ),
    mutant(
        "mending-with-too-few",
        "a volume is mended with fewer legs than tell the last writes",
        _MENDING,
        ("            and len(near) >= need\n", ""),
        f"{_RULE}::test_what_is_begun_is_safe_and_of_use",
    ),
    mutant(
        "mending-leaves-behind",
        "a leg whose host is away for a moment is left behind by mending another",
        _MENDING,
        ("all(extent in near or is_gone(self.turn, extent) for extent in committed)", "True"),
        f"{_RULE}::test_a_leg_that_is_away_for_a_while_is_not_left_behind",
    ),
    mutant(
        "mending-for-nothing",
        "a volume is attached to be mended where there is no room",
        _MENDING,
        (
            "return place_leg(length_bytes, rooms, others, self.turn.apart) is not None",
            "return bool(length_bytes)",
        ),
        f"{_RULE}::test_without_room_nothing_is_begun",
    ),
    mutant(
        "mending-attached-without-a-device",
        "a volume that was mended is said to be attached before it has its device",
        "vastskyd/core/plan.py",
        (" and (fact.exposed or attachment.mending):", ":"),
        f"{_RULE}::test_on_the_same_head_it_gets_its_device_and_nothing_is_built_anew",
    ),
    mutant(
        "mending-fails-over",
        "a standby head is given a volume that nobody had attached",
        "vastskyd/core/moving.py",
        ("        if attachment is None or attachment.mending:\n",
         "        if attachment is None:\n"),
        f"{_RULE}::test_a_standby_head_is_not_given_what_is_only_mended",
    ),
    mutant(
        "draining-forgets",
        "a disk that is retired is forgotten with legs on it",
        "vastskyd/core/draining.py",
        ("if not legs_on(turn, disk) and not _is_being_wiped(turn, disk):", "if disk.id:"),
        f"{_DRAINED}::test_a_disk_in_use_is_emptied_and_then_retired",
    ),
)  # fmt: skip
