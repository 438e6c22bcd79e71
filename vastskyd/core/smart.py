"""What a disk's SMART readings mean: whether its errors grow, and what people should be told.

Only failing health is acted upon. Warnings are for people: many disks live for years with what
they warn of.
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from vastskyd.core.model import SmartErrors, SmartHealth, SmartHistory, SmartReading


@dataclass(frozen=True)
class SmartLimits:
    """From where on people are warned. Errors count by how many have come since the disk was
    enrolled, or since they last stopped growing for `forget_s`; 0: never warn of them."""

    reallocated: int = 1
    pending: int = 1
    media_errors: int = 1
    wear_percent: int = 90
    temperature_c: int = 65
    forget_s: float = 30 * 86_400.0


class WarningKind(StrEnum):
    REALLOCATED = "reallocated"
    PENDING = "pending"
    MEDIA = "media-errors"
    WEAR = "wear"
    SPARE = "spare"
    TEMPERATURE = "temperature"
    NOTE = "note"  # the disk's own words


@dataclass(frozen=True)
class SmartWarning:
    """`measure` grows as it gets worse."""

    kind: WarningKind
    message: str
    measure: int = 0


# Of these each step is news; of the others only that they begin.
_COUNTED = (WarningKind.REALLOCATED, WarningKind.PENDING, WarningKind.MEDIA)


def is_blank(reading: SmartReading) -> bool:
    """It says nothing: the disk has no SMART, or could not be asked."""
    measured = (
        reading.reallocated,
        reading.pending,
        reading.media_errors,
        reading.wear_percent,
        reading.spare_percent,
        reading.temperature_c,
        reading.power_on_h,
    )
    unknown = reading.health is SmartHealth.UNKNOWN
    return unknown and all(value is None for value in measured)


def follow(
    before: SmartHistory | None, reading: SmartReading, limits: SmartLimits, now_s: float
) -> SmartHistory:
    """The history with this reading. One that says nothing does not replace one that did."""
    now = reading.errors()
    if before is None or (is_blank(before.last) and before.last != reading):
        return SmartHistory(last=reading, read_s=now_s, base=now)
    if is_blank(reading):
        return before
    grown_s = now_s if _grew(before.last.errors(), now) else before.grown_s
    base = _least(before.base, now)
    if base != now and now_s - grown_s >= limits.forget_s:
        base = now
    after = SmartHistory(last=reading, read_s=before.read_s, base=base, grown_s=grown_s)
    return after if after == before else msgspec.structs.replace(after, read_s=now_s)


def _grew(before: SmartErrors, now: SmartErrors) -> bool:
    return (
        now.reallocated > before.reallocated
        or now.pending > before.pending
        or now.media > before.media
    )


def _least(one: SmartErrors, two: SmartErrors) -> SmartErrors:
    return SmartErrors(
        reallocated=min(one.reallocated, two.reallocated),
        pending=min(one.pending, two.pending),
        media=min(one.media, two.media),
    )


def warnings(history: SmartHistory, limits: SmartLimits) -> tuple[SmartWarning, ...]:
    """What people should know of a disk, in a fixed order."""
    reading, now, base = history.last, history.last.errors(), history.base
    counted = (
        (WarningKind.REALLOCATED, "reallocated sectors", base.reallocated, now.reallocated,
         limits.reallocated),
        (WarningKind.PENDING, "pending sectors", base.pending, now.pending, limits.pending),
        (WarningKind.MEDIA, "media errors", base.media, now.media, limits.media_errors),
    )  # fmt: skip
    said = [
        SmartWarning(kind, f"its {what} grew from {first} to {last}", last)
        for kind, what, first, last, limit in counted
        if limit and last - first >= limit
    ]
    if reading.wear_percent is not None and reading.wear_percent >= limits.wear_percent:
        message = f"{reading.wear_percent} % of its life are used up"
        said.append(SmartWarning(WarningKind.WEAR, message, reading.wear_percent))
    spare, least = reading.spare_percent, reading.spare_least_percent
    if spare is not None and least is not None and spare < least:
        message = f"{spare} % of its reserve are left"
        said.append(SmartWarning(WarningKind.SPARE, message))
    degrees = reading.temperature_c
    if degrees is not None and degrees >= limits.temperature_c:
        message = f"it is {degrees} °C warm"
        said.append(SmartWarning(WarningKind.TEMPERATURE, message, degrees))
    said += [SmartWarning(WarningKind.NOTE, note) for note in reading.notes]
    return tuple(said)


def news(
    before: tuple[SmartWarning, ...], after: tuple[SmartWarning, ...]
) -> tuple[SmartWarning, ...]:
    """Those that are worth an event: they are new, or count errors and have grown."""
    known = {warning.kind: warning.measure for warning in before}
    notes = {warning.message for warning in before if warning.kind is WarningKind.NOTE}
    return tuple(
        warning
        for warning in after
        if warning.kind not in known
        or (warning.kind in _COUNTED and warning.measure > known[warning.kind])
        or (warning.kind is WarningKind.NOTE and warning.message not in notes)
    )
