"""Mutants of what keeps data from being destroyed, or given to another: wipes, and the refusal of
disks that have something on them."""

from tests.mutants.mutant import mutant

_STORAGE = "vastskyd/roles/storage.py"
_WIPING = "vastskyd/roles/wipes.py"
_WISHES = "vastskyd/core/wishes.py"
_TURN = "vastskyd/core/turn.py"
_DISKS = "vastskyd/kernel/disks.py"
_PLACEMENT = "vastskyd/core/placement.py"
_PLACED = "tests/core/test_placement.py"

_ROLE = "tests/sim/test_storage_role.py"
_FOREIGN = "tests/sim/test_foreign_disks.py"
_WIPES = "tests/sim/test_wipes.py"
_AUTO = "tests/sim/test_auto_enroll.py"
_MEMBERS = "vastskyd/roles/members.py"
_OFFERS = "vastskyd/core/offers.py"
_FINDINGS = "tests/sim/test_findings.py"
_LIFE = "tests/sim/test_cluster.py"
_SINGLE = "tests/sim/test_single.py"
_GUARDS = "tests/core/test_guards.py::test_what_a_volume_carries_stands_on_nothing_below_it"

MUTANTS = (
    # --- descriptions ----------------------------------------------------------------------
    mutant(
        "disk-late-is-refusal",
        "a disk that is slow twice is failed for good",
        _MEMBERS,
        ("except (DamagedError, LateError):", "except DamagedError:"),
        f"{_FINDINGS}::test_a_disk_too_slow_for_its_description_is_used_again_once_it_is_quick",
    ),
    mutant(
        "disk-late-write-is-forgotten",
        "what a late write has left in a description is not written over",
        _MEMBERS,
        (
            "if description == member.description and not member.unsure:",
            "if description == member.description:",
        ),
        f"{_FINDINGS}::test_what_a_late_call_has_written_all_the_same_does_not_stay",
    ),
    # --- wipes -----------------------------------------------------------------------------
    mutant(
        "wipe-not-before-use",
        "an extent is given to a volume with what was on it",
        _WIPING,
        (
            "needed = record.state is ExtentRecordState.WIPING or spec.wipe_first",
            "needed = record.state is ExtentRecordState.WIPING",
        ),
        f"{_ROLE}::test_an_extent_is_ready_and_served_once_it_is_wiped",
    ),
    mutant(
        "wipe-not-after-release",
        "a released extent is forgotten with what was on it",
        _WIPING,
        (
            "needed = record.state is ExtentRecordState.WIPING or spec.wipe_first",
            "needed = record.state is not ExtentRecordState.WIPING and spec.wipe_first",
        ),
        f"{_ROLE}::test_a_released_extent_is_wiped_before_it_is_gone",
    ),
    mutant(
        "wipe-not-to-its-end",
        "an extent is ready after the first part of its wipe",
        _WIPING,
        (
            "while needed and self._running[extent].done_bytes < record.length_bytes:",
            "while needed and self._running[extent].done_bytes == 0:",
        ),
        f"{_WIPES}::test_a_long_extent_is_wiped_to_its_end",
    ),
    mutant(
        "wipe-ready-too-soon",
        "an extent that is being wiped is reported ready",
        _STORAGE,
        (
            "ExtentRecordState.PREPARING: ExtentCondition.PREPARING,",
            "ExtentRecordState.PREPARING: ExtentCondition.READY,",
        ),
        f"{_ROLE}::test_an_extent_is_ready_and_served_once_it_is_wiped",
    ),
    mutant(
        "wipe-described-ready-too-soon",
        "the disk says that an extent is ready before it is wiped",
        _WISHES,
        (
            "state = ExtentRecordState.PREPARING if record is None else record.state",
            "state = ExtentRecordState.READY if record is None else record.state",
        ),
        f"{_ROLE}::test_an_extent_is_ready_and_served_once_it_is_wiped",
    ),
    mutant(
        "wipe-gone-too-soon",
        "an extent that is being wiped is reported gone",
        _STORAGE,
        (
            "ExtentRecordState.WIPING: ExtentCondition.WIPING,",
            "ExtentRecordState.WIPING: ExtentCondition.GONE,",
        ),
        f"{_ROLE}::test_a_released_extent_is_wiped_before_it_is_gone",
    ),
    mutant(
        "wipe-used-range-stays-clean",
        "a range that an extent used is taken for zeros afterwards",
        _TURN,
        (
            "clean = without_range(disk.clean, (place.offset_bytes, end_bytes))",
            "clean = disk.clean",
        ),
        f"{_WIPES}::test_what_a_volume_gets_is_no_longer_known_as_zeros",
    ),
    mutant(
        "wipe-all-is-clean",
        "ranges of which nothing is known are taken for zeros",
        "vastskyd/core/placement.py",
        ("length_bytes, not self._is_clean(start, length_bytes))", "length_bytes, False)"),
        f"{_WIPES}::test_a_new_volume_reads_as_zeros_whatever_was_on_the_disk",
    ),
    mutant(
        "wipe-unheard-is-clean",
        "an extent that its host never heard of leaves a range taken for zeros",
        "vastskyd/core/plan.py",
        ("    if not extent.wipe_first:\n", "    if extent.length_bytes:\n"),
        f"{_LIFE}::test_no_range_is_taken_for_zeros_that_was_not_wiped",
    ),
    mutant(
        "foreign-loop-device-goes-on",
        "what has the name of a disk of ours is taken for it, though it is another file",
        "vastskyd/roles/members.py",
        ("if block is not None and block.file == member.file:", "if block is not None:"),
        f"{_SINGLE}::test_a_loop_device_that_changed_hands_is_not_written_to",
    ),
    mutant(
        "slow-disks-are-no-room",
        "what does not fit on the disks that are quick is refused, though the slow ones have room",
        _PLACEMENT,
        ("for given in (rooms, *_as_if_quick(rooms)):", "for given in (rooms,):"),
        f"{_PLACED}::test_slow_disks_are_left_alone_while_there_is_room_and_taken_when_there_is_not",
    ),
    # --- copies apart ----------------------------------------------------------------------
    mutant(
        "apart-hosts-are-shared",
        "two copies are placed on one host where hosts are to be different",
        _PLACEMENT,
        (
            "            return self.node != other.node\n",
            "            return self.disk != other.disk\n",
        ),
        "tests/core/test_placement.py::test_a_placed_volume",
    ),
    mutant(
        "apart-partitions-are-disks",
        "two copies are placed on two partitions of one drive",
        _PLACEMENT,
        ("excused = self.is_file or other.is_file", "excused = self.disk != other.disk"),
        "tests/core/test_placement.py::test_two_partitions_of_one_drive_do_not_hold_two_copies",
    ),
    mutant(
        "apart-any-leg-leaves",
        "of copies that move apart one leaves that did not share a host",
        "vastskyd/core/evacuating.py",
        ("max(in_sync, key=lambda leg: _without(turn, in_sync, leg))", "in_sync[-1]"),
        f"{_SINGLE}::test_growing_moves_the_copies_apart_and_then_a_host_may_go",
    ),
    mutant(
        "apart-moves-for-nothing",
        "copies move though they are no further apart afterwards",
        "vastskyd/core/evacuating.py",
        ("default=(0, 0)) > spread(there)", "default=(0, 0)) >= spread(there)"),
        f"{_SINGLE}::test_copies_never_move_twice",
    ),
    # --- what a volume carries is found on the volume only ---------------------------------
    mutant(
        "guard-none",
        "what a volume carries begins and ends where its arrays do",
        "vastskyd/core/guards.py",
        ("GUARD_BYTES = MIB", "GUARD_BYTES = 0"),
        _GUARDS,
    ),
    mutant(
        "guard-only-behind",
        "what a volume carries begins where its arrays do",
        "vastskyd/core/layout.py",
        ("parts.append((device, GUARD_BYTES, ", "parts.append((device, 0, "),
        _GUARDS,
    ),
    mutant(
        "guard-only-before",
        "what a volume carries ends where its arrays do",
        "vastskyd/core/guards.py",
        ("return GUARD_BYTES + data_bytes + GUARD_BYTES", "return GUARD_BYTES + data_bytes"),
        _GUARDS,
    ),
    # --- foreign disks ---------------------------------------------------------------------
    mutant(
        "foreign-manager-asks-nothing",
        "the manager takes a disk with something on it",
        "vastskyd/roles/commands.py",
        ("if candidate.found and not request.wipe:", "if candidate.found and request.wipe:"),
        f"{_FOREIGN}::test_a_disk_with_something_on_it_is_refused_by_the_manager",
    ),
    mutant(
        "foreign-host-asks-nothing",
        "a storage host takes a disk with something on it",
        "vastskyd/roles/members.py",
        ("if block.found and not spec.wipe:", "if block.found and spec.path == spec.serial:"),
        f"{_ROLE}::test_a_disk_with_something_on_it_is_refused_unless_told_to_wipe",
    ),
    mutant(
        "foreign-looked-at-long-ago",
        "a storage host takes a disk by what it saw there some time ago",
        "vastskyd/roles/members.py",
        (
            "        await self.rescan(step, anew=True)  # it may have been used since\n",
            "",
        ),
        f"{_FOREIGN}::test_what_came_on_the_disk_after_the_manager_looked_is_kept",
    ),
    mutant(
        "foreign-always-wipe",
        "every enrolment allows the host to wipe",
        "vastskyd/core/orders.py",
        ("wipe=any(job.message == WIPE_ALLOWED for job in jobs),", "wipe=enrol,"),
        f"{_FOREIGN}::test_what_came_on_the_disk_after_the_manager_looked_is_kept",
    ),
    mutant(
        "foreign-signature-unseen",
        "what wipefs finds on a disk is ignored",
        _DISKS,
        ("return False, describe_signatures(outcome.output)", 'return False, ""'),
        "tests/kernel/test_flushes.py::test_what_stands_on_a_disk_is_found_and_erased_when_told",
    ),
    mutant(
        "foreign-cluster-taken",
        "a disk of another cluster is taken for one of ours",
        "vastskyd/roles/members.py",
        (
            "case Current() if found.description.cluster == self._cluster:",
            "case Current() if found.description.cluster:",
        ),
        f"{_ROLE}::test_a_disk_of_another_cluster_is_refused",
    ),
    # --- disks that nobody asked for ---------------------------------------------------------
    mutant(
        "auto-not-looked-at",
        "a disk that nobody asked for is taken with data on it that no signature tells of",
        _MEMBERS,
        ("if spec.unasked and (left :=", "if False and (left :="),
        f"{_AUTO}::test_what_no_signature_tells_of_is_not_touched_either",
    ),
    mutant(
        "auto-not-said",
        "a host is not told that nobody asked for a disk",
        "vastskyd/core/orders.py",
        ("unasked=enrol and unasked_job(turn, disk) is not None,", "unasked=False,"),
        f"{_AUTO}::test_what_no_signature_tells_of_is_not_touched_either",
    ),
    mutant(
        "auto-retired",
        "a disk that was retired is taken in again by itself",
        _OFFERS,
        (
            "for retired in turn.draft.retired.values():\n        if _same(",
            "for retired in ():\n        if _same(",
        ),
        f"{_AUTO}::test_a_retired_disk_is_not_taken_in_again",
    ),
    mutant(
        "auto-for-ever",
        "a disk that was refused is tried for ever",
        _OFFERS,
        (
            "if known is not None and known.tries >= TRIES_MAX:",
            "if known is not None and known.tries < 0:",
        ),
        f"{_AUTO}::test_what_no_signature_tells_of_is_not_touched_either",
    ),
)
