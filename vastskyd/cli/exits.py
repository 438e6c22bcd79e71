"""Exit codes: what a script can tell apart."""

from vastskyd.cli.output import say
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
    "DeniedCanObtain": 6,
    "DeniedDismissed": 6,
    "NoSpace": 7,
}
# Where the error itself does not say what to do next.
_NEXT_STEPS = {
    "Invalid": "`vastskyctl COMMAND --help` shows how it is written",
    "NotFound": "the lists show what is there: `vastskyctl volume list`, `vastskyctl disk list`,"
    " `vastskyctl node list`",
    "Exists": "take another name, or use what is there: `vastskyctl status`",
    "Busy": "end what uses it, then try again",
    "Conflict": "`vastskyctl status` says how things are, `vastskyctl job list` what is under way",
    "NoSpace": "`vastskyctl disk list --all` shows what is free, and disks that can be enrolled",
    "Unreachable": "`vastskyctl status --local` says what this host knows by itself",
    "Denied": "run it as root: sudo vastskyctl ...",
    "DeniedCanObtain": "run it as root: sudo vastskyctl ..., or where somebody can be asked",
    "DeniedDismissed": "run it again and give the password, or as root: sudo vastskyctl ...",
}
_LOOK = "`vastskyctl status` and `journalctl -u vastskyd` say more"

HELP = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 busy or in conflict with the"
    " state, 5 vastskyd or the manager cannot be reached, 6 not allowed, 7 no space, 130"
    " interrupted."
)


def tell(error: VastskyError) -> None:
    """What is so, and what to do next."""
    say(f"vastskyctl: {error.message}", err=True)
    say(f"hint: {error.hint or _NEXT_STEPS.get(error.code, _LOOK)}", err=True)


def exit_code(error: VastskyError) -> int:
    return _CODES.get(error.code, FAILED)
