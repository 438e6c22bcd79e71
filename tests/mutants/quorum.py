"""Mutants of the quorum rule: which legs a write is on before it is acknowledged, and which ones
recovery begins with."""

from tests.mutants.mutant import mutant

_QUORUM = "vastskyd/core/quorum.py"
_LAYOUT = "vastskyd/core/layout.py"
_PLAN = "vastskyd/core/plan.py"
_RECOVERY = "vastskyd/core/recovery.py"
_MANAGER = "vastskyd/roles/manager.py"
_LEDGER = "vastskyd/roles/ledger.py"

_AT_HEAD = "tests/core/test_layout.py"
_RULE = "tests/core/test_quorum.py"
_STEPS = "tests/core/test_quorum_steps.py"
_TURNS = "tests/core/test_turns.py"
_MOVING = "tests/core/test_moving.py"
_OVERTAKEN = "tests/sim/test_overtaken.py"
_COMMITS = "tests/sim/test_commits.py"

MUTANTS = (
    # --- at the head -----------------------------------------------------------------------
    mutant(
        "quorum-head-drops-any-leg",
        "a head drops legs below the write quorum without the manager's commit",
        _LAYOUT,
        ("return may_acknowledge(in_sync, joining, rest)", "return True"),
        f"{_AT_HEAD}::test_a_head_drops_a_leg_by_itself_only_while_a_write_quorum_is_left",
    ),
    mutant(
        "quorum-head-releases-what-waits",
        "the hold of a leg ends before the head may go on without it",
        _LAYOUT,
        (
            "if extent not in wanted or _may_drop(segment, extent):",
            "if segment.facts[extent].message:\n"
            "            draft.steps.append(ReleaseLeg(seen.name))\n"
            "        if extent not in wanted or _may_drop(segment, extent):",
        ),
        f"{_AT_HEAD}::test_what_waits_is_not_released_below_the_write_quorum",
    ),
    mutant(
        "quorum-head-lets-go-too-soon",
        "a head lets go of a leg that is being replaced while another is in trouble",
        _LAYOUT,
        ("return sum(other in rest for other in in_sync) >= copies and", "return"),
        "tests/core/test_layout_moves.py::test_letting_go_leaves_as_many_as_there_are_to_be",
    ),
    mutant(
        "quorum-cut-off-leg-gets-a-path",
        "a leg that was let go of is given a path before md has heard that it is out",
        _LAYOUT,
        (
            "return array.members[device].faulty or device in sight.cut_off(array)",
            "return array.members[device].faulty",
        ),
        f"{_AT_HEAD}::test_what_was_let_go_of_gets_no_path_before_md_has_heard_of_it",
    ),
    mutant(
        "quorum-let-go-of-and-still-counted",
        "a leg that was let go of counts as one that takes writes until md has been told",
        "vastskyd/core/sight.py",
        ("member.faulty or member.device in cut_off:", "member.faulty:"),
        f"{_AT_HEAD}::test_md_is_not_told_of_a_leg_while_it_waits_for_another",
    ),
    mutant(
        "quorum-let-go-of-and-still-used",
        "a leg that works is let go of, and takes writes until md can be told",
        _LAYOUT,
        ("elif sight.works(seen):", "elif False:"),
        f"{_AT_HEAD}::test_a_leg_that_works_gets_errors_if_md_cannot_be_told",
    ),
    mutant(
        "quorum-joining-does-not-count",
        "a head goes on by the committed set alone, whatever legs are joining it",
        _LAYOUT,
        (
            "joining = segment.in_state(LegState.JOINING)\n    if extent not in in_sync",
            "joining = ()\n    if extent not in in_sync",
        ),
        f"{_AT_HEAD}::test_a_leg_that_joins_counts_for_writes",
    ),
    mutant(
        "quorum-acknowledge-without-joining",
        "writes need a quorum of the set only, not of the set with those that join it",
        _QUORUM,
        (
            "used for leg in both\n    ) >= write_quorum(len(both))",
            "used for leg in both\n    ) >= 0",
        ),
        f"{_STEPS}::test_a_write_needs_a_quorum_of_the_set_and_of_the_set_with_who_joins",
        f"{_RULE}::test_orders_from_every_set",
    ),
    mutant(
        "quorum-assemble-from-one",
        "a head assembles an array from fewer legs than the recovery quorum",
        _LAYOUT,
        ("need = recovery_quorum(len(committed)) if segment.spec.initialised else 1", "need = 1"),
        f"{_AT_HEAD}::test_an_array_is_assembled_from_a_recovery_quorum",
    ),
    mutant(
        "quorum-assemble-at-once",
        "a head waits for no leg that may still come",
        _LAYOUT,
        ("or (len(there) < len(expected) and not waited)", ""),
        f"{_AT_HEAD}::test_legs_that_may_still_come_are_waited_for",
    ),
    mutant(
        "quorum-assemble-what-is-behind",
        "legs out of the set are given to md when it assembles",
        _LAYOUT,
        (
            "committed = [leg for leg in segment.spec.legs if leg.state in _first_legs(segment)]",
            "committed = list(segment.spec.legs)",
        ),
        f"{_AT_HEAD}::test_an_array_is_assembled_from_a_recovery_quorum",
    ),
    mutant(
        "quorum-expose-without-the-set",
        "a volume is written to before the manager knows which legs it goes on with",
        _LAYOUT,
        ("if len(there) < len(committed):", "if not there:"),
        f"{_AT_HEAD}::test_nobody_writes_before_the_set_is_what_the_array_has",
    ),
    mutant(
        "quorum-expose-before-recorded",
        "a new segment is written to before its creation is on record",
        _LAYOUT,
        ("if not segment.spec.initialised:", "if not segment.spec.legs:"),
        f"{_AT_HEAD}::test_nobody_writes_before_the_creation_is_recorded",
    ),
    mutant(
        "quorum-create-anew",
        "an array that was written to is created again, its legs taken for equal",
        _LAYOUT,
        ("    if segment.spec.initialised:\n", "    if not segment.spec.legs:\n"),
        f"{_AT_HEAD}::test_what_was_written_to_is_never_created_anew",
    ),
    mutant(
        "quorum-stale-steps-unsaid",
        "a head claims the newest document while steps by an older one are under way",
        "vastskyd/roles/head.py",
        (
            "decided = min([revision, *(act.revision for act in busy.values())])",
            "decided = revision",
        ),
        "tests/sim/test_head_role.py::test_steps_under_way_are_by_the_document_that_decided_them",
    ),
    # --- the committed set -----------------------------------------------------------------
    mutant(
        "quorum-recover-from-fewer",
        "the recovery quorum is one leg short",
        _QUORUM,
        (
            "return legs - write_quorum(legs) + 1",
            "return max(1, legs - write_quorum(legs))",
        ),
        f"{_RULE}::test_write_and_recovery_quorums_meet",
        f"{_RULE}::test_orders_from_every_set",
    ),
    mutant(
        "quorum-manager-drops-held-legs",
        "held legs leave the set while the head may still choose others",
        _QUORUM,
        ("leaving(out if free_to_choose else [*out, *held])", "leaving([*out, *held])"),
        f"{_TURNS}::test_a_held_leg_leaves_when_there_is_no_other_choice",
        f"{_RULE}::test_orders_from_every_set",
    ),
    mutant(
        "quorum-manager-commits-nothing",
        "a set without a leg that works is committed",
        _QUORUM,
        ("if not active or not (out or held):", "if not (out or held):"),
        f"{_STEPS}::test_the_last_leg_stays_in_the_set",
        f"{_RULE}::test_orders_from_every_set",
    ),
    mutant(
        "quorum-joining-leaves-with-the-others",
        "a leg of the set leaves before one that joins it",
        _QUORUM,
        ("    if joining:\n        return leaving(joining)\n", ""),
        f"{_STEPS}::test_a_leg_that_joins_may_leave_first",
    ),
    mutant(
        "quorum-manager-drops-what-is-not-created",
        "a set is made smaller by the word of a head that has no array yet",
        _QUORUM,
        (
            "    if not fact.created:\n        return {}\n    by_extent",
            "    by_extent",
        ),
        f"{_STEPS}::test_a_head_without_an_array_says_nothing_of_the_set",
    ),
    mutant(
        "quorum-grow-without-joining",
        "a leg that returned enters the set in one step",
        _QUORUM,
        ("LegState.BEHIND: LegState.JOINING,", "LegState.BEHIND: LegState.IN_SYNC,"),
        f"{_RULE}::test_a_step_into_the_set_is_one_step",
    ),
    mutant(
        "quorum-grow-new-without-joining",
        "a leg that was rebuilt enters the set in one step",
        _QUORUM,
        ("LegState.REBUILDING: LegState.JOINING,", "LegState.REBUILDING: LegState.IN_SYNC,"),
        f"{_STEPS}::test_a_rebuilt_leg_joins_before_it_is_in_the_set",
    ),
    mutant(
        "quorum-grow-two-steps-a-report",
        "one report is worth more than one step into the set",
        _PLAN,
        (
            "    fail_over,\n    _attachments,",
            "    fail_over,\n    follow_head,\n    _attachments,",
        ),
        f"{_TURNS}::test_a_report_is_worth_one_step_into_the_set",
    ),
    mutant(
        "quorum-grow-by-an-older-document",
        "the set grows by the report of a head that does not know the newest document",
        _RECOVERY,
        ("if not changes and current:", "if not changes:"),
        f"{_TURNS}::test_an_older_document_takes_no_leg_into_the_set",
    ),
    mutant(
        "quorum-report-of-an-earlier-session",
        "what a daemon or kernel said before it died counts",
        _RECOVERY,
        (
            "if not facts.online or not facts.fresh or fact is None:",
            "if not facts.online or fact is None:",
        ),
        f"{_TURNS}::test_a_report_of_an_earlier_session_changes_nothing",
    ),
    mutant(
        "quorum-report-of-an-older-epoch",
        "what a head says of a stack that is over changes the set",
        _RECOVERY,
        ("if fact.epoch != attachment.epoch:", "if fact.epoch > attachment.epoch:"),
        f"{_MOVING}::test_a_report_of_the_epoch_before_changes_nothing",
    ),
    mutant(
        "quorum-unfilled-leg-is-whole",
        "a leg that md still fills counts as whole",
        _QUORUM,
        (
            "active = {leg.extent for leg in fact.legs if leg.condition is LegCondition.ACTIVE}",
            "active = {leg.extent for leg in fact.legs if leg.condition is not LegCondition.OUT}",
        ),
        f"{_STEPS}::test_a_leg_is_whole_once_md_has_filled_it",
        f"{_RULE}::test_orders_from_every_set",
    ),
    mutant(
        "quorum-empty-leg-in-the-set",
        "a leg that replaces a lost one is in the set at once, with nothing on it",
        _RECOVERY,
        (
            "fresh = LegState.REBUILDING if segment.initialised else LegState.IN_SYNC",
            "fresh = LegState.IN_SYNC",
        ),
        f"{_MOVING}::test_a_leg_that_is_lost_is_replaced_by_one_that_holds_nothing_yet",
    ),
    mutant(
        "quorum-detached-legs-given-up",
        "the legs of a detached volume are given up when their hosts are long away",
        _RECOVERY,
        (
            "segment.initialised or volume.attachment is not None",
            "volume.attachment is not None",
        ),
        f"{_MOVING}::test_a_detached_volume_keeps_its_legs_however_long_their_hosts_are_away",
    ),
    mutant(
        "quorum-leg-replaced-under-its-head",
        "a leg of the set is replaced while its head may still acknowledge by it",
        _RECOVERY,
        (
            "if leg.state in (LegState.IN_SYNC, LegState.JOINING) and (",
            "if leg.state is LegState.JOINING and (",
        ),
        f"{_MOVING}::test_a_leg_of_the_set_is_replaced_only_after_its_head_has_dropped_it",
    ),
    # --- attaching after a death -----------------------------------------------------------
    mutant(
        "quorum-attach-with-one",
        "a volume is attached with fewer legs than the recovery quorum, unasked",
        _PLAN,
        ("need = committed if segment.in_doubt else recovery_quorum(committed)", "need = 1"),
        f"{_MOVING}::test_a_move_waits_until_a_recovery_quorum_is_fenced",
    ),
    mutant(
        "quorum-forced-legs-return",
        "the legs that a forced attach did without come back, with what they have",
        _PLAN,
        (
            "        volume = _condemn_unfenced(turn, volume, attachment)\n",
            "        pass\n",
        ),
        f"{_MOVING}::test_a_forced_move_gives_up_the_legs_that_it_did_not_fence",
    ),
    # --- the manager's word ----------------------------------------------------------------
    mutant(
        "commit-after-the-answer",
        "the manager's answer is used before its commit is durable",
        _MANAGER,
        (
            "            self._ledger.commit(turn.draft)\n",
            "            late = self._ledger.commit\n"
            "            asyncio.get_running_loop().call_later(0.3, late, turn.draft)\n",
        ),
        f"{_COMMITS}::test_an_answer_is_given_of_what_the_store_has",
        f"{_COMMITS}::test_a_manager_that_dies_after_its_answer_knows_of_it",
    ),
    mutant(
        "commit-after-use",
        "the manager goes on with what its store refused",
        _MANAGER,
        (
            "            self._ledger.commit(turn.draft)\n"
            "            known, self._state = self._state.events, turn.draft\n",
            "            known, self._state = self._state.events, turn.draft\n"
            "            self._ledger.commit(turn.draft)\n",
        ),
        f"{_COMMITS}::test_a_change_that_is_not_durable_has_not_happened",
    ),
    mutant(
        "overtaken-document",
        "a node goes back to a document that a newer one overtook",
        "vastskyd/roles/node.py",
        ("document.revision > self._document.revision", "document.revision > 0"),
        f"{_OVERTAKEN}::test_a_node_keeps_the_newest_document",
    ),
    mutant(
        "overtaken-report",
        "the manager goes back to a report that a later one overtook",
        _MANAGER,
        ("and report.sequence <= number:", "and report.sequence < 0:"),
        f"{_OVERTAKEN}::test_a_report_that_a_later_one_overtook_is_dropped",
    ),
    mutant(
        "overtaken-session",
        "what was reported by a document of an earlier session counts as new",
        _MANAGER,
        ("or report.revision < facts.session_revision:", "or report.revision < 0:"),
        f"{_OVERTAKEN}::test_a_report_by_a_document_of_an_earlier_session_is_dropped",
    ),
    mutant(
        "commit-generation-not-kept",
        "a restarted manager gives its documents old numbers",
        _LEDGER,
        ("number = 1 if before is None else before.number + 1", "number = 1"),
        f"{_COMMITS}::test_a_restarted_manager_numbers_its_documents_above_all_before",
    ),
)
