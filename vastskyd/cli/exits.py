"""Exit codes: what a script can tell apart."""

from vastskyd.core.errors import VastskyError

OK = 0
FAILED = 1
USAGE = 2
INTERRUPTED = 130

# By error code; every other one is FAILED.
_CODES = {
    "Invalid": USAGE,
    "NotFound": 3,
    "Exists": 4,
    "Busy": 4,
    "Conflict": 4,
    "Unreachable": 5,
    "Denied": 6,
    "NoSpace": 7,
}
HELP = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 busy or in conflict with the"
    " state, 5 vastskyd or the manager cannot be reached, 6 not allowed, 7 no space."
)


def exit_code(error: VastskyError) -> int:
    return _CODES.get(error.code, FAILED)
