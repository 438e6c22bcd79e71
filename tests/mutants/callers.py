"""Mutants of who may do what, and of what is done once."""

from tests.mutants.mutant import mutant

_SERVICE = "vastskyd/dbus/service.py"
_AUTHORITY = "vastskyd/dbus/authority.py"
_TABLE = "vastskyd/dbus/table.py"
_ACTS = "vastskyd/roles/acts.py"

_POLKIT = "tests/dbus/test_polkit.py"
_ASKED = "tests/sim/test_acts.py"

MUTANTS = (
    mutant(
        "act-by-name",
        "who polkit let change one volume changes another that has its name by now",
        _SERVICE,
        ("asked = method.parse(call.body, settled)", "pass"),
        f"{_POLKIT}::test_what_is_done_is_what_was_asked_about",
    ),
    mutant(
        "a-denial-is-a-yes",
        "polkit's no is not one",
        _AUTHORITY,
        ("if verdict is not Verdict.ALLOWED:", "if verdict is Verdict.ABSENT:"),
        f"{_POLKIT}::test_each_kind_of_act_is_asked_about",
    ),
    mutant(
        "absent-polkit-is-a-yes",
        "without polkit everybody may all",
        _AUTHORITY,
        ("if verdict is not Verdict.ALLOWED:", "if verdict is Verdict.DENIED:"),
        f"{_POLKIT}::test_without_polkit_the_error_says_so",
    ),
    mutant(
        "wipe-as-enrol",
        "who may enrol empty disks may destroy what is on others",
        _TABLE,
        ("return Action.DESTROY_DATA", "return self.action"),
        f"{_POLKIT}::test_each_kind_of_act_is_asked_about",
    ),
    mutant(
        "key-for-anything",
        "a key that was used for another request answers for this one",
        _ACTS,
        ("if before.digest != _digest(request):", "if False:"),
        f"{_ASKED}::test_the_same_key_twice_is_done_once_also_by_the_next_manager",
    ),
    mutant(
        "key-forgotten",
        "what is asked twice under one key is done twice",
        _ACTS,
        ("        _remember(turn, request, answer)", "        pass"),
        f"{_ASKED}::test_the_same_key_twice_is_done_once_also_by_the_next_manager",
    ),
)
