"""Mutants of what is called durable: flushes, the write-intent bitmap, the two slots."""

from tests.mutants.mutant import Mutant, mutant

_COMMANDS = "vastskyd/exports/commands.py"
_NETLINK = "vastskyd/kernel/nbd_netlink.py"
_NBD = "vastskyd/kernel/nbd.py"
_DIRECT = "vastskyd/kernel/direct.py"
_SQLITE = "vastskyd/store/sqlite.py"
_IDENTITY = "vastskyd/store/identity.py"
_MD = "vastskyd/kernel/md.py"
_EFFECTS = "vastskyd/roles/effects.py"
_SLOTS = "vastskyd/ondisk/slots.py"
_CODEC = "vastskyd/ondisk/codec.py"

_ORDER = "tests/kernel/test_direct.py"
_FLUSHES = "tests/kernel/test_flushes.py"
_SERVED = "tests/exports/test_flushes.py::test_what_was_answered_is_durable"
_NBD_TESTS = "tests/kernel/test_nbd_netlink.py"
_MDADM = "tests/kernel/test_md_commands.py"
_STORE = "tests/store/test_sqlite.py"
_DURABLE = "tests/store/test_durable.py"
_TWO = "tests/ondisk/test_slots.py"
_RETURNS = "tests/sim/test_returning_legs.py"
_REAL = "tests/contract/test_on_real_kernel.py::test_on_a_real_kernel"
_CACHE = '"cache": {"direct": True, "no-flush": False},'
_NO_CACHE = '"cache": {"direct": True, "no-flush": True},'


def _on_real_kernel(
    name: str, off: str, file: str, changes: tuple[tuple[str, str], ...], narrow: str
) -> Mutant:
    return Mutant(name, off, file, changes, (_REAL,), lab=True, narrow=narrow)


_BITMAP = (
    '                "--bitmap=internal",\n                f"--bitmap-chunk={_BITMAP_CHUNK}",\n',
    '                "--bitmap=none",\n',
)
_FLAGS = ('struct.pack("=Q", connection.server_flags)', 'struct.pack("=Q", 1)')

MUTANTS = (
    # --- order -----------------------------------------------------------------------------
    mutant(
        "order-late-writes-come-last",
        "what a killed vastskyd was writing may reach the disk after what the next one wrote",
        _DIRECT,
        ("        alone_with(fd, offset_bytes, length)\n", ""),
        f"{_ORDER}::test_an_earlier_write_is_waited_for[write]",
    ),
    mutant(
        "order-late-zeros-come-last",
        "a killed vastskyd's wipe may zero what was written after the next one's wipe",
        _DIRECT,
        ("        alone_with(fd, offset_bytes, length_bytes)\n", ""),
        f"{_ORDER}::test_an_earlier_write_is_waited_for[zero]",
    ),
    mutant(
        "order-late-writes-are-not-read",
        "a description is read that a killed vastskyd is still writing",
        "vastskyd/kernel/disks.py",
        ("SLOT_BYTES, settled=True)", "SLOT_BYTES)"),
        f"{_ORDER}::test_slots_are_read_when_they_are_settled",
    ),
    # --- flushes ---------------------------------------------------------------------------
    mutant(
        "flush-only-when-asked",
        "what an export server answers may be in the disk's cache, and is lost with its power",
        _COMMANDS,
        ('"writethrough": True', '"writethrough": False'),
        _SERVED,
    ),
    mutant(
        "flush-export",
        "the export server drops the heads' flushes",
        _COMMANDS,
        (f'"aio": AIO,\n            {_CACHE}', f'"aio": AIO,\n            {_NO_CACHE}'),
        _SERVED,
    ),
    mutant(
        "flush-nbd-flags",
        "the kernel is not told that the server takes flushes",
        _NETLINK,
        _FLAGS,
        f"{_NBD_TESTS}::test_connect_passes_on_what_the_server_offers",
    ),
    mutant(
        "flush-nbd-hand-over",
        "what the server offers is dropped between handshake and kernel",
        _NBD,
        ("server_flags=negotiated.flags,", "server_flags=negotiated.flags & ~4,"),
        f"{_NBD_TESTS}::test_a_connection_is_handed_over_with_all_that_was_negotiated",
    ),
    Mutant(
        "flush-description",
        "a disk's description is called durable while it is in the disk's cache",
        _DIRECT,
        (
            ("os.O_WRONLY | os.O_DIRECT | os.O_DSYNC", "os.O_WRONLY | os.O_DIRECT"),
            (
                "offset_bytes + done)\n        os.fsync(fd)",
                "offset_bytes + done)\n        os.fstat(fd)",
            ),
        ),
        (f"{_FLUSHES}::test_a_description_is_flushed",),
    ),
    mutant(
        "flush-wipe",
        "zeros are called durable while they are in the disk's cache",
        _DIRECT,
        (
            "zero_open(fd, offset_bytes, length_bytes)\n        os.fsync(fd)",
            "zero_open(fd, offset_bytes, length_bytes)",
        ),
        f"{_FLUSHES}::test_zeros_are_flushed",
    ),
    mutant(
        "flush-erased-signatures",
        "signatures are erased in the disk's cache only",
        "vastskyd/kernel/disks.py",
        ("end - offset)\n        os.fsync(fd)", "end - offset)"),
        f"{_FLUSHES}::test_erased_signatures_are_flushed",
    ),
    mutant(
        "flush-store",
        "the manager's records are written without fsync",
        _SQLITE,
        ('"PRAGMA synchronous = FULL"', '"PRAGMA synchronous = OFF"'),
        f"{_STORE}::test_it_is_durable_by_its_settings",
        f"{_DURABLE}::test_each_commit_is_flushed_before_it_returns",
    ),
    mutant(
        "flush-store-normal",
        "the manager's last records go with the power",
        _SQLITE,
        ('"PRAGMA synchronous = FULL"', '"PRAGMA synchronous = NORMAL"'),
        f"{_DURABLE}::test_each_commit_is_flushed_before_it_returns",
    ),
    mutant(
        "flush-store-name",
        "the name of a new database is not durable",
        _SQLITE,
        ("        sync_directory(path.parent)\n", ""),
        f"{_DURABLE}::test_the_name_of_a_new_database_is_synced",
    ),
    mutant(
        "flush-identity",
        "a host's identity replaces the old one before it is written",
        _IDENTITY,
        ("            os.fsync(file.fileno())\n", ""),
        f"{_DURABLE}::test_an_identity_is_synced_before_it_replaces_the_old_one",
    ),
    _on_real_kernel(
        "flush-nbd-flags-real",
        "the kernel is not told that the server takes flushes",
        _NETLINK,
        (_FLAGS,),
        "contract/test_flushes.py",
    ),
    # --- the bitmap ------------------------------------------------------------------------
    mutant(
        "bitmap-none",
        "an array is created without a write-intent bitmap",
        _MD,
        _BITMAP,
        f"{_MDADM}::test_a_new_array_has_a_bitmap_and_nobody_writes_to_it_yet",
    ),
    mutant(
        "bitmap-whole-copy",
        "a returning leg is added as a new one, and copied whole",
        _EFFECTS,
        ("fresh = superblock is None or superblock.array_uuid != uuid", "fresh = True"),
        f"{_RETURNS}::test_a_leg_that_was_away_gets_what_it_lacks_and_no_more",
    ),
    mutant(
        "bitmap-whole-copy-by-md",
        "mdadm is told to add what could be added again by the bitmap",
        _MD,
        ("        if fresh:\n", "        if leg:\n"),
        f"{_MDADM}::test_a_returning_leg_is_added_by_its_bitmap",
    ),
    mutant(
        "bitmap-for-a-new-leg",
        "a leg of another history is filled by this array's bitmap",
        _MD,
        ("        if fresh:\n", "        if not leg:\n"),
        f"{_MDADM}::test_a_new_leg_is_never_added_by_a_bitmap",
    ),
    mutant(
        "bitmap-no-resync-seen",
        "a leg that md fills is taken for one in sync",
        "vastskyd/roles/sighting.py",
        ("in_sync=member.state is MemberState.IN_SYNC,", "in_sync=True,"),
        f"{_RETURNS}::test_a_leg_is_in_the_set_once_it_has_everything",
    ),
    mutant(
        "bitmap-no-resync-said",
        "a leg that md fills is reported as active",
        "vastskyd/core/sight.py",
        ("    if not member.in_sync:\n", "    if not member.device:\n"),
        f"{_RETURNS}::test_a_leg_is_in_the_set_once_it_has_everything",
    ),
    mutant(
        "bitmap-stale-by-force",
        "mdadm assembles by force: stale legs are taken for good",
        _MD,
        ('"--assemble", f"--uuid', '"--assemble", "--force", f"--uuid'),
        f"{_MDADM}::test_an_array_is_assembled_from_vetted_legs_and_never_by_force",
    ),
    mutant(
        "bitmap-resync-not-awaited",
        "an array is called writable before its pending resync has begun",
        _MD,
        ("if not md_sysfs.resync_pending(directory):", "if directory:"),
        f"{_MDADM}::test_an_array_is_writable_once_its_pending_resync_has_begun",
    ),
    mutant(
        "bitmap-writable-at-once",
        "an array is written to before its pending resync has begun",
        _MD,
        (
            '["--assemble", f"--uuid={mdadm_uuid(uuid)}", "--readonly",',
            '["--assemble", f"--uuid={mdadm_uuid(uuid)}",',
        ),
        f"{_MDADM}::test_an_array_is_assembled_from_vetted_legs_and_never_by_force",
    ),
    _on_real_kernel(
        "bitmap-none-real",
        "an array is created without a write-intent bitmap",
        _MD,
        (_BITMAP,),
        "contract/test_md.py::test_a_leg_that_was_away_comes_back",
    ),
    _on_real_kernel(
        "bitmap-whole-copy-real",
        "mdadm is told to add what could be added again by the bitmap",
        _MD,
        (("        if fresh:\n", "        if leg:\n"),),
        "contract/test_md.py::test_a_leg_that_was_away_comes_back",
    ),
    _on_real_kernel(
        "bitmap-for-a-new-leg-real",
        "a leg of another history is filled by this array's bitmap",
        _MD,
        (("        if fresh:\n", "        if not leg:\n"),),
        "contract/test_md.py::test_a_fresh_leg_is_copied_whole",
    ),
    # --- the two slots ---------------------------------------------------------------------
    mutant(
        "slots-always-the-same",
        "the slot that speaks is the one that is written",
        _SLOTS,
        ("(found.slot + 1) % len(SLOT_OFFSETS_BYTES)", "found.slot"),
        f"{_TWO}::test_a_write_torn_at_every_block",
        f"{_TWO}::test_the_last_write_speaks",
    ),
    mutant(
        "slots-generation-ignored",
        "the first whole slot speaks, be it the older one",
        _SLOTS,
        ("max(whole, key=lambda current: current.generation)", "whole[0]"),
        f"{_TWO}::test_a_write_torn_at_every_block",
        f"{_TWO}::test_the_last_write_speaks",
    ),
    mutant(
        "slots-generation-stands",
        "the next description has no higher generation",
        _SLOTS,
        ("len(SLOT_OFFSETS_BYTES), found.generation + 1)", "len(SLOT_OFFSETS_BYTES), 1)"),
        f"{_TWO}::test_the_last_write_speaks",
    ),
    mutant(
        "slots-checksum-ignored",
        "a torn description is believed",
        _CODEC,
        ("slot[HEADER_BYTES:end]) != checksum:", 'slot[HEADER_BYTES:end]) == b"":'),
        f"{_TWO}::test_a_write_torn_at_every_block",
        f"{_TWO}::test_a_damaged_slot_is_told_and_mended_by_the_next_write",
    ),
    mutant(
        "slots-checksum-of-the-body-only",
        "a damaged header is believed",
        _CODEC,
        ("blake2b(fields + rest,", "blake2b(rest,"),
        "tests/ondisk/test_codec.py::test_every_bit_of_the_header_counts",
    ),
    mutant(
        "slots-later-format-passed-over",
        "an older description speaks where a later vastskyd wrote a newer one",
        _SLOTS,
        (
            'return Damaged(f"slot {index}: {error.message}", error.generation)',
            "continue",
        ),
        f"{_TWO}::test_a_later_format_is_not_passed_over_for_an_older_description",
    ),
)
