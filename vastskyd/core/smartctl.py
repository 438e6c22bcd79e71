"""smartctl's JSON, of NVMe, SATA and SAS disks, as one small value.

Its members come and go with the kind of disk, its age, the bridge before it and smartctl's
version: each is taken if it is there and makes sense, and none is relied on.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.model import SmartHealth, SmartReading

# Bits of smartctl's exit status (smartctl(8)). Others speak of logs and attributes, which the
# output has in more detail.
_NOT_READ = 0x01 | 0x02
_NOT_OPENED = 0x02
_REFUSED = 0x04
_FAILING = 0x08

# Whatever a disk counts, it does not count further; and all peers can carry it.
_COUNT_MAX = 2**53
_TEXT_MAX = 200
_NOTES_MAX = 8
_ATTRIBUTES_MAX = 256

# Bits of NVMe's critical warning: what it means, and whether the disk is failing. A disk that is
# too warm is well again once it is cooled.
_NVME_BITS = (
    (0x01, "its reserve is used up", True),
    (0x02, "its temperature is out of range", False),
    (0x04, "its reliability is degraded", True),
    (0x08, "it has become read-only", True),
    (0x10, "its protection against loss of power has failed", True),
    (0x20, "its persistent memory is read-only", False),
)

# The SCSI sense code of warnings (SPC): of the temperature, of the enclosure, of a power loss that
# is expected. smartctl takes it for failing health, like 0x5D, that of an impending failure.
_SCSI_WARNING = 0x0B

# ATA attributes by number: what the vendors agree on.
_REALLOCATED = 5
_UNCORRECTABLE = (187, 198)
_PENDING = 197
# And by smartctl's names, where they do not: normalised values that count down from 100.
_LIFE_LEFT = (
    "Media_Wearout_Indicator",
    "Percent_Life_Remaining",
    "Percent_Lifetime_Remain",
    "Remaining_Lifetime_Perc",
    "SSD_Life_Left",
    "Wear_Leveling_Count",
)

# Kinds and results of self-tests, as the standards number them. Others were aborted or go on.
_EXTENDED = 2
_NVME_FAILED = range(5, 8)
_SCSI_EXTENDED = (2, 6)
_SCSI_FAILED = range(3, 8)
_SCSI_SELF_TESTS = 20


def parse(output: str, status: int) -> SmartReading | None:
    """What `smartctl --json --nocheck=standby -i -H -A -l error -l ssd
    -l selftest -l defects` printed, and its exit
    status. None: the disk sleeps, and was let sleep. Never fails: what cannot be understood is a
    reading of unknown health that says why."""
    try:
        found = msgspec.json.decode(output)
    except DECODE_ERRORS:
        found = None
    if not isinstance(found, dict):
        return _unknown("smartctl did not answer with JSON")
    said = _messages(found)
    if status & _NOT_READ and any("mode, exit(" in message for message in said):
        return None
    if status & _NOT_READ:
        reading = _unknown(said[0] if said else _not_read(status))
        return msgspec.structs.replace(reading, model=_model(found))
    protocol = _at(found, "device", "protocol")
    if protocol == "NVMe":
        reading = _nvme(found, status)
    elif protocol == "SCSI":
        reading = _scsi(found, status)
    else:
        reading = _ata(found, status)
    return msgspec.structs.replace(
        reading,
        model=_model(found),
        notes=(*reading.notes, *_failed_self_test(found)),
        temperature_c=_degrees(_at(found, "temperature", "current")),
        power_on_h=_count(_at(found, "power_on_time", "hours")),
    )


def _unknown(reason: str) -> SmartReading:
    return SmartReading(health=SmartHealth.UNKNOWN, reason=reason)


def _not_read(status: int) -> str:
    if status & _NOT_OPENED:
        return "it could not be opened, or did not say what it is"
    return f"smartctl ended with status {status}"


# --- each kind of disk -------------------------------------------------------------------


def _nvme(found: dict[str, Any], status: int) -> SmartReading:
    log = _at(found, "nvme_smart_health_information_log")
    bits = _count(_at(log, "critical_warning"))
    spare = _share(_at(log, "available_spare"))
    if spare == 0 and not (bits or 0) & 0x01:
        spare = None  # it does not count: QEMU's
    health, reason = _verdict(found, status), ""
    notes: tuple[str, ...] = ()
    if bits is not None:
        severe = [why for bit, why, failing in _NVME_BITS if failing and bits & bit]
        notes = tuple(why for bit, why, failing in _NVME_BITS if not failing and bits & bit)
        if severe:
            health, reason = SmartHealth.FAILING, "; ".join(severe)
        elif notes or health is SmartHealth.UNKNOWN:
            health = SmartHealth.PASSED
    return SmartReading(
        health=health,
        reason=reason or _why(health, found, status),
        media_errors=_count(_at(log, "media_errors")),
        wear_percent=_percent(_at(log, "percentage_used")),
        spare_percent=spare,
        spare_least_percent=_share(_at(log, "available_spare_threshold")),
        notes=notes,
    )


def _scsi(found: dict[str, Any], status: int) -> SmartReading:
    health = _verdict(found, status)
    notes: tuple[str, ...] = ()
    sense = _at(found, "smart_status", "scsi")
    why = _text(_at(sense, "ie_string"))
    if _at(sense, "asc") == _SCSI_WARNING:
        health, notes = SmartHealth.PASSED, (why or "it warns, and does not say of what",)
    log = _at(found, "scsi_error_counter_log")
    kinds = ("read", "write", "verify")
    failed = [_count(_at(log, kind, "total_uncorrected_errors")) for kind in kinds]
    known = [count for count in failed if count is not None]
    return SmartReading(
        health=health,
        reason=why if why and health is SmartHealth.FAILING else _why(health, found, status),
        reallocated=_count(_at(found, "scsi_grown_defect_list")),
        pending=_count(_at(found, "scsi_pending_defects", "count")),
        media_errors=_count(sum(known)) if known else None,
        wear_percent=_first(
            _percent(_at(found, "scsi_percentage_used_endurance_indicator")),
            _percent(_at(found, "endurance_used", "current_percent")),
        ),
        notes=notes,
    )


def _ata(found: dict[str, Any], status: int) -> SmartReading:
    """Also of what does not say which kind it is."""
    attributes = _attributes(found)
    by_number = {_count(_at(attribute, "id")): attribute for attribute in reversed(attributes)}
    below = [
        f"attribute {_text(_at(attribute, 'name'))} is below its threshold"
        for attribute in attributes
        if _at(attribute, "when_failed") == "now"
    ]
    uncorrectable = [_raw(by_number.get(number)) for number in _UNCORRECTABLE]
    known = [count for count in uncorrectable if count is not None]
    health = _verdict(found, status)
    failing = health is SmartHealth.FAILING
    return SmartReading(
        health=health,
        reason="; ".join(below[:_NOTES_MAX]) if failing and below else _why(health, found, status),
        reallocated=_raw(by_number.get(_REALLOCATED)),
        pending=_raw(by_number.get(_PENDING)),
        media_errors=max(known) if known else None,
        wear_percent=_first(
            _percent(_at(found, "endurance_used", "current_percent")),
            _device_statistic(found, "Percentage Used Endurance Indicator"),
            _worn(attributes),
        ),
        spare_percent=_share(_at(found, "spare_available", "current_percent")),
        spare_least_percent=_share(_at(found, "spare_available", "threshold_percent")),
        notes=() if failing else tuple(below[:_NOTES_MAX]),
    )


def _attributes(found: dict[str, Any]) -> list[dict[str, Any]]:
    return _dicts(_at(found, "ata_smart_attributes", "table"))[:_ATTRIBUTES_MAX]


def _raw(attribute: dict[str, Any] | None) -> int | None:
    """Of "12 (0 3)" and the like the first number counts; the value is all of it in one."""
    first = _text(_at(attribute, "raw", "string")).split(" ")[0]
    if first.isascii() and first.isdigit():
        return _count(int(first))
    return _count(_at(attribute, "raw", "value"))


def _worn(attributes: list[dict[str, Any]]) -> int | None:
    for attribute in attributes:
        left = _count(_at(attribute, "value"))
        if _at(attribute, "name") in _LIFE_LEFT and left is not None:
            return max(0, 100 - left)
    return None


def _device_statistic(found: dict[str, Any], name: str) -> int | None:
    for page in _dicts(_at(found, "ata_device_statistics", "pages")):
        for entry in _dicts(_at(page, "table")):
            if _at(entry, "name") == name and _at(entry, "flags", "valid") is not False:
                return _percent(_at(entry, "value"))
    return None


# --- self-tests --------------------------------------------------------------------------


@dataclass(frozen=True)
class _SelfTest:
    """`passed`: None: it was aborted, or goes on."""

    extended: bool
    passed: bool | None
    words: str


def _failed_self_test(found: dict[str, Any]) -> tuple[str, ...]:
    """The newest that failed, unless one of its kind or an extended one has passed since."""
    short_passed = False
    for test in (*_ata_self_tests(found), *_nvme_self_tests(found), *_scsi_self_tests(found)):
        if test.passed and test.extended:
            break
        short_passed = short_passed or test.passed is True
        if test.passed is False and (test.extended or not short_passed):
            kind = "extended" if test.extended else "short"
            words = test.words.removeprefix("Completed: ").rstrip(" ->")
            return (f"its last {kind} self-test failed: {words}",)
    return ()


def _ata_self_tests(found: dict[str, Any]) -> list[_SelfTest]:
    """Newest first, as all of these."""
    log = _at(found, "ata_smart_self_test_log")
    tests = []
    for entry in _dicts(_at(log, "extended", "table")) or _dicts(_at(log, "standard", "table")):
        passed = _at(entry, "status", "passed")
        tests.append(
            _SelfTest(
                extended=(_count(_at(entry, "type", "value")) or 0) & 0x7F == _EXTENDED,
                passed=passed if isinstance(passed, bool) else None,
                words=_text(_at(entry, "status", "string")),
            )
        )
    return tests


def _nvme_self_tests(found: dict[str, Any]) -> list[_SelfTest]:
    return [
        _SelfTest(
            extended=_at(entry, "self_test_code", "value") == _EXTENDED,
            passed=_passed(_at(entry, "self_test_result", "value"), _NVME_FAILED),
            words=_text(_at(entry, "self_test_result", "string")),
        )
        for entry in _dicts(_at(found, "nvme_self_test_log", "table"))
    ]


def _scsi_self_tests(found: dict[str, Any]) -> list[_SelfTest]:
    entries = [_at(found, f"scsi_self_test_{number}") for number in range(_SCSI_SELF_TESTS)]
    return [
        _SelfTest(
            extended=_at(entry, "code", "value") in _SCSI_EXTENDED,
            passed=_passed(_at(entry, "result", "value"), _SCSI_FAILED),
            words=_text(_at(entry, "result", "string")),
        )
        for entry in _dicts(entries)
    ]


def _passed(result: object, failed: range) -> bool | None:
    number = _count(result)
    return True if number == 0 else False if number in failed else None


# --- what all have -----------------------------------------------------------------------


def _verdict(found: dict[str, Any], status: int) -> SmartHealth:
    passed = _at(found, "smart_status", "passed")
    if passed is False or status & _FAILING:
        return SmartHealth.FAILING
    return SmartHealth.PASSED if passed is True else SmartHealth.UNKNOWN


def _why(health: SmartHealth, found: dict[str, Any], status: int) -> str:
    if health is SmartHealth.PASSED:
        return ""
    if health is SmartHealth.FAILING:
        return "it expects to fail soon"
    if _at(found, "smart_support", "available") is False:
        return "it has no SMART"
    if _at(found, "smart_support", "enabled") is False:
        return "its SMART is switched off: 'smartctl -s on' switches it on"
    said = _messages(found)
    if not said and status & _REFUSED:
        return "a SMART command failed, or its answer was damaged"
    return said[0] if said else "it does not say"


def _model(found: dict[str, Any]) -> str:
    return _text(_at(found, "model_name")) or _text(_at(found, "scsi_model_name"))


def _messages(found: dict[str, Any]) -> list[str]:
    """Errors first."""
    entries = _dicts(_at(found, "smartctl", "messages"))
    entries.sort(key=lambda entry: _at(entry, "severity") != "error")
    return [text for entry in entries if (text := _text(_at(entry, "string")))]


# --- reading what may be anything --------------------------------------------------------


def _at(found: object, *keys: str) -> Any:
    """What stands there; None: nothing does."""
    for key in keys:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def _dicts(found: object) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _text(found: object) -> str:
    """One line, bounded."""
    return " ".join(found.split())[:_TEXT_MAX] if isinstance(found, str) else ""


def _count(found: object) -> int | None:
    if isinstance(found, bool) or not isinstance(found, int):
        return None
    return found if 0 <= found <= _COUNT_MAX else None


def _percent(found: object) -> int | None:
    """Wear goes past 100; 255 is the most that a disk can say."""
    count = _count(found)
    return count if count is not None and count <= 255 else None


def _share(found: object) -> int | None:
    """Percent of what there is at most: some disks say 255 of what they do not count."""
    count = _count(found)
    return count if count is not None and count <= 100 else None


def _degrees(found: object) -> int | None:
    """255 and the like are no temperature; 0 is what a disk without a sensor says."""
    if isinstance(found, bool) or not isinstance(found, int):
        return None
    return found if found and -60 <= found <= 200 else None


def _first(*found: int | None) -> int | None:
    return next((each for each in found if each is not None), None)
