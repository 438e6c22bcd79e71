"""The words for how something is: those that are documented are those that there are."""

import re
from enum import StrEnum
from pathlib import Path

import pytest

from vastskyd.core import local
from vastskyd.core.documents import DiskCondition, VolumeCondition
from vastskyd.core.health import Health
from vastskyd.core.model import AttachmentState, DiskState, JobKind, JobState, VolumeState
from vastskyd.dbus.interfaces import INTERFACES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json.md"


def words(*kinds: type[StrEnum]) -> set[str]:
    return {word.value for kind in kinds for word in kind}


# As the manager has it, or as its host sees it, which calls a disk that is present online.
DISK = words(DiskState, DiskCondition) - {DiskCondition.PRESENT.value}
# Of a disk that serves on a host that does not answer; of one that its host was told of and has
# not looked at yet; of one that is not enrolled.
DISK |= {"unreachable", "unknown", "candidate"}
LOCAL_VOLUME = words(VolumeCondition) | {local.STALLED, local.DEGRADED, local.REBUILDING}


@pytest.mark.parametrize(
    ("interface", "name", "there_are"),
    [
        ("Disk", "State", DISK),
        ("Volume", "State", words(VolumeState)),
        ("Volume", "Health", words(Health)),
        ("Volume", "Attachment", words(AttachmentState)),
        ("Attachment", "State", LOCAL_VOLUME),
        ("Job", "Operation", words(JobKind)),
        ("Job", "State", words(JobState)),
    ],
)
def test_a_property_names_all_of_its_words(interface: str, name: str, there_are: set[str]) -> None:
    (of,) = (each for each in INTERFACES if each.short == interface)
    (shown,) = (each for each in of.properties if each.name == name)
    assert set(re.findall(r"[a-z-]+", shown.purpose)) - {"or", "empty"} == there_are


@pytest.mark.parametrize(
    ("record", "member", "there_are"),
    [
        ("DiskView", "state", DISK),
        ("LocalVolume", "state", LOCAL_VOLUME),
        ("VolumeView", "health", words(Health)),
    ],
)
def test_a_member_names_all_of_its_words(record: str, member: str, there_are: set[str]) -> None:
    _, _, section = PAGE.read_text().partition(f"\n### {record}\n")
    (meaning,) = re.findall(
        rf"^\| `{member}` \| string \| (.*) \|$", section.split("\n###")[0], re.M
    )
    assert set(re.findall(r"`([a-z-]+)`", meaning)) == there_are
