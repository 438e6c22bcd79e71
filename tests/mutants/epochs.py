"""Mutants of epochs, fencing and failover: never two writers, and nobody hears of a write that
was lost."""

from tests.mutants.mutant import mutant

_STORAGE = "vastskyd/roles/storage.py"
_WISHES = "vastskyd/core/wishes.py"
_MOVING = "vastskyd/core/moving.py"
_PLAN = "vastskyd/core/plan.py"
_LAYOUT = "vastskyd/core/layout.py"
_TEARDOWN = "vastskyd/core/teardown.py"
_ORDERS = "vastskyd/core/orders.py"
_HEAD = "vastskyd/roles/head.py"
_EFFECTS = "vastskyd/roles/effects.py"
_WRITERS = "vastskyd/kernel/writers.py"
_MANAGER = "vastskyd/roles/manager.py"
_COMMANDS = "vastskyd/exports/commands.py"

_ROLE = "tests/sim/test_storage_role.py"
_MOVES = "tests/core/test_moving.py"
_RECOVERING = "tests/core/test_recovering.py"
_AT_HEAD = "tests/core/test_layout.py"
_TURNS = "tests/core/test_turns.py"
_IN_PROC = "tests/kernel/test_writers.py"
_FAILOVER = "tests/sim/test_failover.py"
_FENCED = "tests/sim/test_head_role.py"

MUTANTS = (
    # --- at the storage host ---------------------------------------------------------------
    mutant(
        "epoch-old-one-exported",
        "a storage host exports an extent at an older epoch than it has on the disk",
        _STORAGE,
        ("                or record.epoch != spec.epoch\n", ""),
        f"{_ROLE}::test_an_epoch_that_is_over_is_served_no_more",
    ),
    mutant(
        "epoch-goes-down",
        "a document that is out of date lowers the epoch on the disk",
        _WISHES,
        ("spec.epoch if record is None else max(record.epoch, spec.epoch)", "spec.epoch"),
        f"{_ROLE}::test_an_epoch_that_is_over_is_served_no_more",
    ),
    mutant(
        "epoch-not-persisted",
        "the epoch is kept in memory and not on the disk",
        "vastskyd/roles/members.py",
        (
            "member.current = await self._write(member.path, description, member.current)",
            "member.current = Current(description, member.current.generation, 0)",
        ),
        f"{_ROLE}::test_the_epoch_is_on_the_disk_before_it_is_reported",
    ),
    mutant(
        "epoch-not-described",
        "the description never learns of a higher epoch",
        _WISHES,
        (
            "spec.epoch if record is None else max(record.epoch, spec.epoch)",
            "spec.epoch if record is None else record.epoch",
        ),
        f"{_ROLE}::test_the_epoch_is_on_the_disk_before_it_is_reported",
    ),
    mutant(
        "epoch-old-export-stays",
        "an export of an older epoch is left to its head",
        _STORAGE,
        ("        and export.epoch == spec.epoch\n", ""),
        f"{_ROLE}::test_what_was_served_is_removed_when_it_is_over",
    ),
    mutant(
        "epoch-old-key-stays",
        "an export goes on under the name that the old head knows",
        _STORAGE,
        ("        and export.name == export_name(spec.id, spec.export_key)\n", ""),
        f"{_ROLE}::test_what_was_served_is_removed_when_it_is_over",
    ),
    mutant(
        "epoch-nothing-shed",
        "exports that no document wants are not removed",
        _STORAGE,
        ("        await self._shed_exports(document, step)\n", ""),
        f"{_ROLE}::test_what_was_served_is_removed_when_it_is_over",
    ),
    mutant(
        "epoch-local-stack-unfenced",
        "an extent counts as fenced while a stack of this very host stands on it",
        _STORAGE,
        ("epoch=min(record.epoch, in_use.get(spec.id, record.epoch)),", "epoch=record.epoch,"),
        f"{_ROLE}::test_an_extent_that_this_host_uses_itself_is_served_to_nobody",
    ),
    mutant(
        "epoch-local-stack-and-export",
        "an extent is exported while a stack of this very host stands on it",
        _STORAGE,
        (
            "            if spec.id in in_use:\n",
            "            if spec.id not in devices and there:\n",
        ),
        f"{_ROLE}::test_an_extent_that_this_host_uses_itself_is_served_to_nobody",
    ),
    mutant(
        "epoch-any-certificate",
        "an export server lets in every host of the cluster",
        _COMMANDS,
        ('"policy": "deny",\n        "rules"', '"policy": "allow",\n        "rules"'),
        "tests/exports/test_qsd.py::test_with_tls_the_heads_certificate_and_no_other_is_let_in",
    ),
    mutant(
        "fence-stuck-server-lives",
        "an export server that does not answer keeps its exports",
        "vastskyd/exports/qsd.py",
        (
            "        except UnreachableError:\n            await self.stop_server(head)\n",
            "        except UnreachableError:\n            return\n",
        ),
        "tests/exports/test_qsd.py"
        "::test_a_stuck_server_is_seen_hangs_nobody_and_is_fenced_all_the_same",
    ),
    # --- at the manager --------------------------------------------------------------------
    mutant(
        "epoch-not-raised",
        "a volume moves without a new epoch",
        _MOVING,
        ("epoch = volume.epoch + 1", "epoch = max(1, volume.epoch)"),
        f"{_MOVES}::test_each_attachment_has_an_epoch_of_its_own",
    ),
    mutant(
        "epoch-same-key",
        "a volume moves and its exports keep their names",
        _MOVING,
        (
            "export_key=turn.new_token(_EXPORT_KEY_DIGITS)",
            'export_key=volume.attachment.export_key if volume.attachment else "k"',
        ),
        f"{_MOVES}::test_a_move_raises_the_epoch_and_fences_first",
    ),
    mutant(
        "fence-skipped-on-a-move",
        "a volume is given to another head before the old one is fenced",
        _MOVING,
        ("state=AttachmentState.FENCING", "state=AttachmentState.ATTACHING"),
        f"{_MOVES}::test_a_move_raises_the_epoch_and_fences_first",
    ),
    mutant(
        "fence-head-told-early",
        "a head has the volume in its document while the old one is being fenced",
        _ORDERS,
        ("        and volume.attachment.state in TOLD\n", ""),
        f"{_MOVES}::test_while_the_old_head_is_being_fenced_no_head_has_the_volume",
    ),
    mutant(
        "fence-given-up-is-forgotten",
        "a volume whose last head could not be fenced counts as detached",
        _MOVING,
        ("if on.state is AttachmentState.FENCING and on.fences is not None:", "if not on.state:"),
        f"{_MOVES}::test_what_is_not_fenced_counts_as_the_last_heads_and_is_exported_to_nobody",
    ),
    mutant(
        "fence-unfenced-for-one-leg",
        "a volume whose last head could not be fenced is detached with fewer legs fenced",
        _PLAN,
        (" or not _short(turn, volume, attachment):", " or True:"),
        f"{_MOVES}::test_it_is_detached_once_a_recovery_quorum_is_fenced",
    ),
    mutant(
        "epoch-completed-whatever-it-had",
        "a volume of which a segment is missing is completed though a head had it",
        "vastskyd/core/recovering.py",
        ("        if epoch == 0:\n", "        if epoch >= 0:\n"),
        f"{_RECOVERING}::test_a_volume_that_was_given_to_a_head_is_not_completed",
    ),
    mutant(
        "fence-any-epoch-counts",
        "a leg counts as fenced whatever epoch its disk has",
        _PLAN,
        ("            and fact.epoch >= epoch\n", ""),
        f"{_MOVES}::test_while_the_old_head_is_being_fenced_no_head_has_the_volume",
    ),
    mutant(
        "fence-not-waited-for",
        "legs that could be fenced are not waited for",
        _PLAN,
        (
            "            if facts.online and not failed:\n",
            "            if failed and fact is None:\n",
        ),
        f"{_MOVES}::test_a_leg_that_can_be_fenced_is_waited_for",
    ),
    mutant(
        "epoch-leg-of-another",
        "a head is told to connect to a leg that is at another epoch",
        _ORDERS,
        ("        and fact.epoch == attachment.epoch\n", ""),
        f"{_TURNS}::test_what_nodes_are_told",
    ),
    # --- at the head -----------------------------------------------------------------------
    mutant(
        "epoch-old-stack-goes-on",
        "a head goes on with a stack of an older epoch",
        _LAYOUT,
        ("if sight.epochs(spec.id) - {spec.epoch}:", "if sight.epochs(spec.id) - {spec.epoch, 2}:"),
        f"{_AT_HEAD}::test_a_stack_of_an_older_epoch_is_taken_down_before_anything_else",
    ),
    mutant(
        "fence-orphans-stay",
        "a stack that no document names stays",
        _HEAD,
        ("            if volume not in wanted:\n", "            if volume in self._acts:\n"),
        f"{_FENCED}::test_a_fenced_head_takes_its_stack_down",
    ),
    mutant(
        "fence-writers-live",
        "what is held fails while the programs that wrote it live",
        _TEARDOWN,
        (
            "        released += [EndWriters(seen.dm_name)] if seen is not None else []\n",
            "",
        ),
        f"{_AT_HEAD}::test_writers_end_before_what_is_held_fails",
    ),
    mutant(
        "fence-writers-end-late",
        "all legs are broken before the writers are ended",
        _TEARDOWN,
        ("for leg in used if sight.works(leg)]", "for leg in used]"),
        f"{_AT_HEAD}::test_writers_end_before_what_is_held_fails",
    ),
    mutant(
        "fence-what-is-held-first",
        "legs that hold are broken before those that work: md goes on with these alone",
        "vastskyd/core/sight.py",
        (
            "return not self._alive.isdisjoint(set(leg.paths) - leg.failed)",
            "return self._alive.isdisjoint(set(leg.paths) - leg.failed)",
        ),
        f"{_AT_HEAD}::test_writers_end_before_what_is_held_fails",
    ),
    mutant(
        "fence-writers-not-looked-for",
        "the head's step that ends writers ends none",
        _EFFECTS,
        ("killed = await dm.end_writers(step.dm_name)", "killed = ()"),
        f"{_FENCED}::test_who_writes_to_a_fenced_volume_hears_no_more_of_it",
    ),
    mutant(
        "fence-writers-not-killed",
        "writers are found and let live",
        _WRITERS,
        ("os.kill(pid, signal.SIGKILL)", "os.kill(pid, 0)"),
        f"{_IN_PROC}::test_who_has_the_device_itself",
    ),
    mutant(
        "fence-writers-of-files",
        "programs with a file on the volume open are not found",
        _WRITERS,
        ('if int(fields["mnt_id"]) in mount_ids:', 'if int(fields["mnt_id"]) < 0:'),
        f"{_IN_PROC}::test_a_file_on_the_device",
    ),
    mutant(
        "fence-writers-that-mapped",
        "programs that write by a mapping are not found",
        _WRITERS,
        (
            "mounts.ids(process), numbers) or _has_mapping(process, numbers)",
            "mounts.ids(process), numbers)",
        ),
        f"{_IN_PROC}::test_a_file_on_the_device",
    ),
    mutant(
        "fence-writers-that-mapped-the-device",
        "programs that have the device itself mapped are not found",
        _WRITERS,
        ("if len(fields) > 5 and _is_device(", "if len(fields) > 6 and _is_device("),
        f"{_IN_PROC}::test_who_has_the_device_itself",
    ),
    mutant(
        "fence-writers-of-the-device",
        "programs that have the device itself open are not found",
        _WRITERS,
        (
            'return _is_device(process / "fd" / name, numbers)',
            'return _is_device(process / "no" / name, numbers)',
        ),
        f"{_IN_PROC}::test_who_has_the_device_itself",
    ),
    mutant(
        "fence-volume-not-broken-off",
        "the device of a fenced volume that is in use stays as it is",
        _HEAD,
        ("            await self._kernel.dm.abandon(step.dm_name)\n", ""),
        f"{_FENCED}::test_a_fenced_volume_in_use_is_broken_off_and_its_name_is_free",
    ),
    mutant(
        "fence-wreck-stays",
        "what is left of a fenced volume is never removed",
        _EFFECTS,
        (
            "            return dm.remove(step.dm_name)\n",
            "            return dm.devices()\n",
        ),
        f"{_FENCED}::test_a_fenced_volume_in_use_is_broken_off_and_its_name_is_free",
    ),
    # --- failover --------------------------------------------------------------------------
    mutant(
        "failover-of-a-head-that-others-reach",
        "a volume leaves a head that only the manager does not reach",
        "vastskyd/core/facts.py",
        ("if self.online or self.reached_by else", "if self.online else"),
        f"{_MOVES}::test_a_head_that_others_reach_keeps_its_volume",
        f"{_FAILOVER}::test_a_head_that_others_reach_keeps_its_volume",
    ),
    mutant(
        "failover-nobody-asked",
        "nobody is asked whether he reaches the head",
        _MANAGER,
        (
            "                and (running is None or running.done())\n",
            "                and running is not None\n",
        ),
        f"{_FAILOVER}::test_a_head_that_others_reach_keeps_its_volume",
    ),
    mutant(
        "failover-at-once",
        "a volume moves at its head's first silence",
        _MOVING,
        ("if away_s > 0 and away_s >= patience_s and standby", "if away_s > 0 and standby"),
        f"{_MOVES}::test_a_head_is_given_some_time",
    ),
    mutant(
        "failover-by-a-new-manager",
        "a manager that has just started takes silence for death",
        _MOVING,
        ("    if turn.facts[head].seen:\n", "    if head:\n"),
        f"{_MOVES}::test_a_manager_that_starts_takes_no_silence_for_death",
        f"{_FAILOVER}::test_a_manager_that_starts_takes_no_silence_for_death",
    ),
    mutant(
        "failover-to-a-head-that-is-away",
        "a volume goes to a standby head that nobody reaches",
        _MOVING,
        ("in turn.draft.nodes and turn.facts[head].online:", "in turn.draft.nodes:"),
        f"{_MOVES}::test_a_volume_goes_to_a_head_that_is_there",
    ),
)
