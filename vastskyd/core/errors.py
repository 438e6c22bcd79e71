"""What can go wrong, by meaning.

Every error that a person may see is one of these. Each carries a sentence that says what is
so, and, where there is one, a hint: the next step. They cross the wire and D-Bus by `code`.
"""

from typing import ClassVar, Final

# Characters of a message, and of a hint, that are sent or kept.
TEXT_LENGTH_MAX: Final = 4000


class VastskyError(Exception):
    """Base of all errors by meaning; never raised itself."""

    code: ClassVar[str] = "Failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidError(VastskyError):
    """The request is malformed: asking again unchanged cannot succeed."""

    code = "Invalid"


class NotFoundError(VastskyError):
    """No such object."""

    code = "NotFound"


class ExistsError(VastskyError):
    """An object of that name exists already."""

    code = "Exists"


class BusyError(VastskyError):
    """The object is in use, and the message names by whom; or whoever is asked has too much to
    do."""

    code = "Busy"


class NoSpaceError(VastskyError):
    """No placement satisfies the request, or no room is left for the manager's records; the message
    says what is missing."""

    code = "NoSpace"


class UnreachableError(VastskyError):
    """The other side cannot be reached; or it did not answer in time, and whether it acted is not
    known."""

    code = "Unreachable"


class ConflictError(VastskyError):
    """The object's state does not allow this now."""

    code = "Conflict"


class DeniedError(VastskyError):
    """The caller may not do this; or whoever was asked gave a wrong password."""

    code = "Denied"


class DeniedCanObtainError(DeniedError):
    """The caller may not do this without an administrator's password, and nobody was asked."""

    code = "DeniedCanObtain"


class DeniedDismissedError(DeniedError):
    """The caller may not do this without an administrator's password, and who was asked gave
    none."""

    code = "DeniedDismissed"


class CancelledError(VastskyError):
    """Somebody cancelled it."""

    code = "Cancelled"


class DeviceError(VastskyError):
    """A device, the kernel or a tool that drives it refused or failed."""

    code = "Device"


class LateError(DeviceError):
    """The kernel has not answered in time: it may still do what was asked. To others a
    DeviceError."""


class DamagedError(VastskyError):
    """What is stored does not check out: a bad checksum, an unknown version."""

    code = "Damaged"


class FailedError(VastskyError):
    """A fault of the program itself; the journal of vastskyd says more."""

    code = "Failed"


_ALL: tuple[type[VastskyError], ...] = (
    InvalidError, NotFoundError, ExistsError, BusyError, NoSpaceError, UnreachableError,
    ConflictError, DeniedError, DeniedCanObtainError, DeniedDismissedError, CancelledError,
    DeviceError, DamagedError, FailedError,
)  # fmt: skip
BY_CODE = {kind.code: kind for kind in _ALL}


def from_code(code: str, message: str, hint: str = "") -> VastskyError:
    """The error that a peer named; an unknown code becomes FailedError."""
    return BY_CODE.get(code, FailedError)(message, hint=hint)
