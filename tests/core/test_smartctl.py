"""smartctl's outputs of many disks, and of what is no disk, as readings."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastskyd.core.model import SmartHealth, SmartReading
from vastskyd.core.smartctl import parse

OUTPUTS = Path(__file__).parent / "smart"
PASSED, FAILING, UNKNOWN = SmartHealth.PASSED, SmartHealth.FAILING, SmartHealth.UNKNOWN


def output(name: str) -> str:
    return (OUTPUTS / f"{name}.json").read_text()


def read(name: str) -> SmartReading | None:
    text = output(name)
    return parse(text, json.loads(text)["smartctl"]["exit_status"])


# Of each: its health, and what else must have been understood.
SAID: dict[str, tuple[SmartHealth, dict[str, Any]]] = {
    "nvme-samsung-pm9a3": (
        PASSED,
        {"model": "SAMSUNG MZQL23T8HCLS-00A07", "media_errors": 0, "wear_percent": 3,
         "spare_percent": 100, "spare_least_percent": 10, "temperature_c": 41,
         "power_on_h": 9876, "reallocated": None, "pending": None, "notes": ()},
    ),
    "nvme-consumer-self-test": (PASSED, {"wear_percent": 17, "temperature_c": 52}),
    "nvme-intel-media-errors": (PASSED, {"media_errors": 4, "wear_percent": 41}),
    "nvme-spare-used-up": (
        FAILING,
        {"reason": "its reserve is used up", "spare_percent": 6, "wear_percent": 104},
    ),
    "nvme-read-only": (
        FAILING,
        {"reason": "its reliability is degraded; it has become read-only", "media_errors": 812,
         "wear_percent": 255},
    ),
    "nvme-too-warm": (
        PASSED, {"reason": "", "notes": ("its temperature is out of range",), "temperature_c": 86}
    ),
    "nvme-huge-numbers": (PASSED, {"media_errors": None, "temperature_c": None}),
    "nvme-log-refused": (
        UNKNOWN,
        {"reason": "Read NVMe SMART/Health Information failed: NVMe Status 0x4002",
         "model": "Amazon Elastic Block Store"},
    ),
    "sata-hdd-wd-red": (
        PASSED,
        {"reallocated": 0, "pending": 0, "media_errors": 0, "wear_percent": None,
         "temperature_c": 32, "power_on_h": 39120},
    ),
    "sata-hdd-seagate-raw": (
        PASSED, {"reallocated": 0, "media_errors": 0, "temperature_c": 38, "power_on_h": 18230}
    ),
    "sata-hdd-growing": (PASSED, {"reallocated": 12, "pending": 8, "media_errors": 2}),
    "sata-hdd-failing": (
        FAILING,
        {"reason": "attribute Reallocated_Sector_Ct is below its threshold", "reallocated": 535,
         "pending": 1204, "media_errors": 66, "notes": ()},
    ),
    "sata-hdd-below-threshold-passed": (
        PASSED, {"notes": ("attribute Spin_Up_Time is below its threshold",), "reallocated": 1}
    ),
    "sata-self-test-failed": (
        PASSED, {"notes": ("its last extended self-test failed: read failure",), "pending": 0}
    ),
    "sata-self-test-passed-since": (PASSED, {"notes": ()}),
    "nvme-self-test-failed": (
        PASSED, {"notes": ("its last short self-test failed: failed segments",), "reason": ""}
    ),
    "nvme-spare-nonsense": (PASSED, {"spare_percent": None, "spare_least_percent": None}),
    "sas-self-test-failed": (
        PASSED,
        {"notes": ("its last extended self-test failed: Failed in segment",), "pending": 2},
    ),
    "sata-ssd-samsung-870": (PASSED, {"wear_percent": 4, "media_errors": 0, "pending": None}),
    "sata-ssd-intel-worn": (PASSED, {"wear_percent": 94, "reallocated": 3}),
    "sata-ssd-crucial-75": (
        PASSED,
        {"wear_percent": 29, "spare_percent": 100, "spare_least_percent": 5, "pending": 1},
    ),
    "sata-verdict-refused": (
        UNKNOWN,
        {"reason": "SMART Status command failed: scsi error aborted command", "pending": 0},
    ),
    "sata-checksum-error": (PASSED, {"reallocated": 0}),
    "sata-smart-off": (
        UNKNOWN, {"reason": "its SMART is switched off: 'smartctl -s on' switches it on"}
    ),
    "sas-hdd-seagate": (
        PASSED,
        {"model": "SEAGATE ST8000NM0075", "reallocated": 0, "media_errors": 0,
         "temperature_c": 34, "power_on_h": 41234},
    ),
    "sas-hdd-hgst-errors": (PASSED, {"reallocated": 37, "pending": 3, "media_errors": 6}),
    "sas-ssd-kioxia": (PASSED, {"wear_percent": 2, "media_errors": 0}),
    "sas-hdd-failing": (
        FAILING,
        {"reason": "HARDWARE IMPENDING FAILURE GENERAL HARD DRIVE FAILURE", "reallocated": 2311},
    ),
    "sas-hdd-too-warm": (PASSED, {"notes": ("WARNING: SPECIFIED TEMPERATURE EXCEEDED",)}),
    "sas-hdd-power-loss-expected": (
        PASSED, {"reason": "", "notes": ("WARNING: POWER LOSS EXPECTED",), "temperature_c": 37}
    ),
    "sas-hdd-medium-scan": (
        PASSED,
        {"reason": "", "notes": ("WARNING: BACKGROUND MEDIUM SCAN DETECTED MEDIUM ERROR",)},
    ),
    "scsi-no-smart": (UNKNOWN, {"reason": "it has no SMART"}),
    "scsi-raid-volume": (UNKNOWN, {"reason": "it has no SMART"}),
    "usb-bridge-unknown": (
        UNKNOWN, {"reason": "/dev/sdg: Unknown USB bridge [0x152d:0xa583 (0x214)]"}
    ),
    "usb-bridge-partial": (UNKNOWN, {"reallocated": 0, "model": "ST4000LM024-2AN17V"}),
    "usb-stick": (UNKNOWN, {"reason": "it has no SMART"}),
    "no-such-device": (
        UNKNOWN, {"reason": "Smartctl open device: /dev/sdz failed: No such device"}
    ),
    "wrong-option": (UNKNOWN, {}),
    "captured/nvme-qemu": (
        PASSED,
        {"model": "QEMU NVMe Ctrl", "spare_percent": None, "media_errors": 0, "wear_percent": 0,
         "temperature_c": 50, "power_on_h": 0, "notes": ()},
    ),
    "captured/nvme-qemu-controller": (PASSED, {"temperature_c": 50}),
    "captured/nvme-qemu-spare-used-up": (
        FAILING, {"reason": "its reserve is used up", "spare_percent": 0}
    ),
    "captured/nvme-qemu-too-warm": (PASSED, {"notes": ("its temperature is out of range",)}),
    "captured/nvme-qemu-degraded": (FAILING, {"reason": "its reliability is degraded"}),
    "captured/nvme-qemu-read-only": (FAILING, {"reason": "it has become read-only"}),
    "captured/nvme-qemu-degraded-and-read-only": (
        FAILING, {"reason": "its reliability is degraded; it has become read-only"}
    ),
    "captured/sata-qemu": (
        PASSED,
        {"model": "QEMU HARDDISK", "reallocated": 0, "pending": None, "temperature_c": 31,
         "power_on_h": 1, "notes": ()},
    ),
    "captured/sata-qemu-self-tested": (PASSED, {"reallocated": 0, "notes": ()}),
    # The emulated disk goes on saying that it is switched on.
    "captured/sata-qemu-smart-off": (
        UNKNOWN, {"reason": "a SMART command failed, or its answer was damaged"}
    ),
    "captured/scsi-qemu-virtio": (
        UNKNOWN,
        {"reason": "it has no SMART", "model": "QEMU QEMU HARDDISK", "temperature_c": None},
    ),
    "captured/scsi-qemu-pvscsi": (
        UNKNOWN,
        {"reason": "it could not be opened, or did not say what it is",
         "model": "QEMU QEMU HARDDISK"},
    ),
    "captured/scsi-debug": (PASSED, {"model": "Linux scsi_debug", "temperature_c": 38}),
    "captured/dvd-qemu": (
        UNKNOWN, {"reason": "it could not be opened, or did not say what it is"}
    ),
    "captured/virtio-blk": (UNKNOWN, {"reason": "/dev/vdc: Unable to detect device type"}),
    "captured/null-blk": (UNKNOWN, {"reason": "/dev/nullb0: Unable to detect device type"}),
    "captured/loop-device": (UNKNOWN, {"reason": "/dev/loop0: Unable to detect device type"}),
    "captured/dm-linear": (UNKNOWN, {"reason": "/dev/mapper/x: Unable to detect device type"}),
    "captured/no-such-device": (
        UNKNOWN, {"reason": "/dev/nothing: Unable to detect device type"}
    ),
}  # fmt: skip
ASLEEP = ("sata-standby", "sata-standby-by-the-system", "sas-standby")


def test_every_output_is_held_against_what_it_says() -> None:
    found = {path.relative_to(OUTPUTS).with_suffix("") for path in OUTPUTS.rglob("*.json")}
    assert found == {Path(name) for name in (*SAID, *ASLEEP)}


@pytest.mark.parametrize("name", SAID)
def test_an_output(name: str) -> None:
    health, values = SAID[name]
    reading = read(name)
    assert reading is not None
    assert (reading.health, {key: getattr(reading, key) for key in values}) == (health, values)
    assert bool(reading.reason) is (health is not PASSED)


@pytest.mark.parametrize("name", ASLEEP)
def test_a_disk_that_sleeps_says_nothing(name: str) -> None:
    assert read(name) is None


@pytest.mark.parametrize("text", ["", "smartctl: command not found", "[]", "3", '{"a":', "{}"])
def test_what_is_no_output_is_unknown(text: str) -> None:
    for status in (0, 1, 2, 127):
        reading = parse(text, status)
        assert reading is not None
        assert (reading.health, bool(reading.reason)) == (UNKNOWN, True)


def test_the_status_alone_can_say_that_it_fails() -> None:
    text = json.dumps({"device": {"protocol": "ATA"}})
    reading = parse(text, 0x08)
    assert reading is not None
    assert reading.health is FAILING


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


def _places(found: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    places = [path] if path else []
    entries: list[tuple[Any, object]] = []
    if isinstance(found, dict):
        entries = list(found.items())
    elif isinstance(found, list):
        entries = list(enumerate(found))
    for key, value in entries:
        places += _places(value, (*path, key))
    return places


@given(
    name=st.sampled_from(sorted(SAID)),
    data=st.data(),
    value=json_values,
    status=st.integers(0, 255),
    times=st.integers(1, 4),
)
def test_whatever_stands_in_the_place_of_a_member(
    name: str, data: st.DataObject, value: object, status: int, times: int
) -> None:
    """Nothing of it raises, and what is answered can be sent to any peer."""
    found = json.loads(output(name))
    for _ in range(times):
        path = data.draw(st.sampled_from(_places(found)))
        at: Any = found
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = copy.deepcopy(value)
    reading = parse(json.dumps(found), status)
    if reading is None:
        assert status & 0x03
        return
    for count in (reading.reallocated, reading.pending, reading.media_errors, reading.power_on_h):
        assert count is None or 0 <= count <= 2**53
    for share in (reading.wear_percent, reading.spare_percent, reading.spare_least_percent):
        assert share is None or 0 <= share <= 255
    assert reading.temperature_c is None or -60 <= reading.temperature_c <= 200
    assert all("\n" not in said for said in (reading.reason, reading.model, *reading.notes))
    if reading.health is not PASSED:
        assert reading.reason


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    reading = parse(content.decode(errors="replace"), 0)
    assert reading is None or isinstance(reading, SmartReading)


@pytest.mark.parametrize(
    "log",
    [
        {"ata_smart_self_test_log": {"standard": {"revision": 1, "count": 0}}},
        {"ata_smart_self_test_log": {"standard": {"table": 3}, "extended": []}},
        {"ata_smart_self_test_log": {"standard": {"table": [None, {}, {"status": "bad"}]}}},
        {"ata_smart_self_test_log": {"extended": {"table": [{"status": {"passed": 0}}]}}},
        {"nvme_self_test_log": {"table": [{"self_test_result": {"value": "7"}}]}},
        {"scsi_self_test_0": {"result": {"value": True}}, "scsi_self_test_1": 9},
    ],
)
@pytest.mark.parametrize("name", ["sata-hdd-wd-red", "nvme-samsung-pm9a3", "sas-hdd-seagate"])
def test_a_log_of_self_tests_that_makes_no_sense_says_nothing(
    name: str, log: dict[str, Any]
) -> None:
    reading = parse(json.dumps(json.loads(output(name)) | log), 0)
    assert reading == read(name)
