"""A refusal is one of those that org.vastsky.Vastsky1(5) names: all that is asked in simulation is
held to it."""

from vastskyd.core import api
from vastskyd.core.errors import (
    ConflictError,
    DeviceError,
    InvalidError,
    NoSpaceError,
    UnreachableError,
    VastskyError,
)
from vastskyd.core.model import Record
from vastskyd.dbus.interfaces import INTERFACES

OF_ANY = (InvalidError, UnreachableError)
OF_ANY_ACT = (DeviceError, NoSpaceError)  # nothing can be recorded
# The Conflicts that any may answer.
NO_RECORDS = "has no records"
KEY_USED = ("idempotency key", "was done already")


def is_documented(request: Record, error: VastskyError) -> bool:
    own = tuple(
        kind
        for interface in INTERFACES
        for method in interface.methods
        if method.request is type(request)
        for kind in method.raises
    )
    if isinstance(error, (*own, *OF_ANY)):
        return True
    is_act = isinstance(request, api.Act)
    if isinstance(error, ConflictError):
        return NO_RECORDS in error.message or (
            is_act and any(said in error.message for said in KEY_USED)
        )
    return is_act and isinstance(error, OF_ANY_ACT)
