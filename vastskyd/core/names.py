"""Every name that vastskyd gives to a device, an export or an array is formed here, and only here.

device-mapper allows 127 bytes of name and 128 of UUID; the longest of ours, a leg's UUID, has
12 + 24 + 5 + 17 + 11 = 69. QEMU allows 31 bytes of node name: "x-" and 16 digits.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from vastskyd.core.ids import DiskId, ExtentId, NodeId, VolumeId

UUID_PREFIX = "VASTSKY-"
# Hosts look at the same few devices all the time.
_KNOWN_MOST = 16_384
_EXTENT = re.compile(r"VASTSKY-EXTENT-([0-9a-f]{16})")
_LEG = re.compile(r"VASTSKY-LEG-([0-9a-f]{24})-(\d{1,4})-([0-9a-f]{16})-(\d{1,10})")
_VOLUME = re.compile(r"VASTSKY-VOLUME-([0-9a-f]{24})-(\d{1,10})")
_BACKEND = re.compile(r"vastsky:([0-9a-f]{16}):(\d{1,10}):(\d{1,2})")


class LegName(msgspec.Struct, frozen=True):
    """A leg's device on a head, read back from its UUID."""

    volume: VolumeId
    segment: int
    extent: ExtentId
    epoch: int

    def dm_name(self) -> str:
        return f"vastsky-leg-{self.extent}"

    def dm_uuid(self) -> str:
        return f"VASTSKY-LEG-{self.volume}-{self.segment}-{self.extent}-{self.epoch}"

    @staticmethod
    @lru_cache(_KNOWN_MOST)
    def parse(dm_uuid: str) -> "LegName | None":
        match = _LEG.fullmatch(dm_uuid)
        if match is None:
            return None
        volume, segment, extent, epoch = match.groups()
        return LegName(VolumeId(volume), int(segment), ExtentId(extent), int(epoch))


class VolumeDeviceName(msgspec.Struct, frozen=True):
    """A volume's device on a head. The epoch tells an old attachment's device from the new."""

    volume: VolumeId
    epoch: int

    def dm_uuid(self) -> str:
        return f"VASTSKY-VOLUME-{self.volume}-{self.epoch}"

    @staticmethod
    @lru_cache(_KNOWN_MOST)
    def parse(dm_uuid: str) -> "VolumeDeviceName | None":
        match = _VOLUME.fullmatch(dm_uuid)
        return None if match is None else VolumeDeviceName(VolumeId(match[1]), int(match[2]))


@dataclass(frozen=True)
class PathName:
    """One network's NBD connection of a leg: the kernel keeps it as backend identifier."""

    extent: ExtentId
    epoch: int
    network: int

    def backend_identifier(self) -> str:
        return f"vastsky:{self.extent}:{self.epoch}:{self.network}"

    @staticmethod
    def parse(backend_identifier: str) -> "PathName | None":
        match = _BACKEND.fullmatch(backend_identifier)
        if match is None:
            return None
        return PathName(ExtentId(match[1]), int(match[2]), int(match[3]))


def volume_dm_name(name: str) -> str:
    """The udev rule takes the part after the prefix for /dev/vastsky/NAME."""
    return f"vastsky-volume-{name}"


def wreck_dm_name(volume: VolumeId, epoch: int) -> str:
    """What is left of a fenced volume's device while programs have it open."""
    return f"vastsky-wreck-{volume}-{epoch}"


def is_wreck(dm_name: str) -> bool:
    return dm_name.startswith("vastsky-wreck-")


def volume_device(name: str) -> str:
    return f"/dev/vastsky/{name}"


def extent_dm_name(extent: ExtentId) -> str:
    return f"vastsky-extent-{extent}"


def extent_dm_uuid(extent: ExtentId) -> str:
    return f"VASTSKY-EXTENT-{extent}"


@lru_cache(_KNOWN_MOST)
def parse_extent_uuid(dm_uuid: str) -> ExtentId | None:
    match = _EXTENT.fullmatch(dm_uuid)
    return None if match is None else ExtentId(match[1])


def array_uuid(volume: VolumeId, segment: int) -> str:
    """md's array UUID as 32 hex digits."""
    return f"{volume}{segment:08x}"


def parse_array_uuid(uuid: str) -> tuple[VolumeId, int]:
    return VolumeId(uuid[:24]), int(uuid[24:], 16)


def export_name(extent: ExtentId, export_key: str) -> str:
    return f"{extent}-{export_key}"


def export_key(extent: ExtentId, name: str) -> str:
    """What export_name was formed with.

    >>> export_key(ExtentId("e1"), export_name(ExtentId("e1"), "key"))
    'key'
    """
    return name.removeprefix(f"{extent}-")


def export_unit(head: NodeId) -> str:
    return f"vastsky-export@{head}.service"


def disk_label(disk: DiskId) -> str:
    return f"disk-{disk}"
