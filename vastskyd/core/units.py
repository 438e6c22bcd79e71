"""Sizes and durations as people write them, and the grid that extents lie on."""

import re

from vastskyd.core.errors import InvalidError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

SECTOR_BYTES = 512

# Extents begin and end on this grid, so that no erase block or RAID stripe below is shared.
GRAIN_BYTES = MIB

# Kept free before md's data for its superblock, its bitmap, and a later reshape.
MD_DATA_OFFSET_BYTES = 4 * MIB

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?")
_SECONDS = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTPE]?)(?:i?B)?", re.IGNORECASE)
_SIZE_END_BYTES = 1 << 63
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def parse_duration_s(text: str) -> float:
    """
    >>> parse_duration_s("90s"), parse_duration_s("1.5 h")
    (90.0, 5400.0)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidError(f"{text!r} is no duration", hint="write 30m, 1h or 2d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Bytes of "512M", "10G", "1.5 TiB". Units are powers of 1024.

    >>> parse_size("10G") == 10 * GIB
    True
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidError(f"{text!r} is not a size", hint="write for example 512M, 10G or 1.5T")
    number, unit = match.groups()
    size_bytes = int(float(number) * 1024 ** _POWERS[unit.upper()])
    if size_bytes >= _SIZE_END_BYTES:
        raise InvalidError(f"{text} is more than can be", hint="8192P is where sizes end")
    return size_bytes


def format_size(size_bytes: int) -> str:
    """ "10.0 GiB": three figures at most before the point.

    >>> format_size(10 * GIB)
    '10.0 GiB'
    """
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1024:
            return f"{int(value)} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} EiB"


def align_up(value_bytes: int, grain_bytes: int = GRAIN_BYTES) -> int:
    return -(-value_bytes // grain_bytes) * grain_bytes


def align_down(value_bytes: int, grain_bytes: int = GRAIN_BYTES) -> int:
    return value_bytes // grain_bytes * grain_bytes
