"""device-mapper tables as vastskyd writes them, and what the kernel says of them, read back."""

from dataclasses import dataclass

from vastskyd.core.errors import DeviceError
from vastskyd.core.units import SECTOR_BYTES
from vastskyd.kernel.dm_ioctl import Target
from vastskyd.ports import PathCondition

_MULTIPATH = "multipath"
_HOLD = "queue_if_no_path"


@dataclass(frozen=True)
class LegTable:
    """A leg's table, read back: its paths as "major:minor" in order."""

    paths: tuple[str, ...]
    holds: bool


def sectors(size_bytes: int) -> int:
    if size_bytes % SECTOR_BYTES:
        raise DeviceError(f"{size_bytes} bytes is not a whole number of sectors")
    return size_bytes // SECTOR_BYTES


def linear(ranges: tuple[tuple[str, int, int], ...]) -> tuple[Target, ...]:
    """Of (device number, offset, length) in bytes, one after the other."""
    targets = []
    start = 0
    for number, offset_bytes, length_bytes in ranges:
        length = sectors(length_bytes)
        targets.append(Target(start, length, "linear", f"{number} {sectors(offset_bytes)}"))
        start += length
    return tuple(targets)


def leg(numbers: tuple[str, ...], size_bytes: int) -> tuple[Target, ...]:
    """multipath over the paths, holding I/O when all fail.

    queue_mode bio: request mode over NBD logged an RCU warning at the first dead connection
    (measured on 6.12). Each path has the selector's one argument, its repeat count; more than 1
    is deprecated.
    """
    selector = "round-robin" if len(numbers) == 1 else "queue-length"
    group = f"{selector} 0 {len(numbers)} 1 " + " ".join(f"{number} 1" for number in numbers)
    parameters = f"3 {_HOLD} queue_mode bio 0 1 1 {group}"
    return (Target(0, sectors(size_bytes), _MULTIPATH, parameters),)


def error(size_bytes: int) -> tuple[Target, ...]:
    return (Target(0, sectors(size_bytes), "error", ""),)


def size_bytes(table: tuple[Target, ...]) -> int:
    return sum(target.length_sectors for target in table) * SECTOR_BYTES


def same(wanted: tuple[Target, ...], have: tuple[Target, ...]) -> bool:
    """Whether the kernel's table is the wanted one. It pads parameters with blanks, and a leg's
    table comes back with features that nobody asked for."""
    wanted_leg, have_leg = read_leg(wanted), read_leg(have)
    if wanted_leg is not None and have_leg is not None:
        return wanted_leg == have_leg and size_bytes(wanted) == size_bytes(have)

    def normal(table: tuple[Target, ...]) -> list[tuple[int, int, str, list[str]]]:
        return [(t.start_sectors, t.length_sectors, t.kind, t.parameters.split()) for t in table]

    return normal(wanted) == normal(have)


def read_leg(table: tuple[Target, ...]) -> LegTable | None:
    """None: it is not a leg's table (an error table, or none)."""
    if len(table) != 1 or table[0].kind != _MULTIPATH:
        return None
    words = table[0].parameters.split()
    features, rest = _counted(words)
    _handler, rest = _counted(rest)
    paths: list[str] = []
    groups, rest = _groups(rest)
    for _ in range(groups):
        # selector, its arguments, then: number of paths, arguments each has
        _arguments, rest = _counted(rest[1:])
        count, each = int(rest[0]), int(rest[1])
        rest = rest[2:]
        for _ in range(count):
            paths.append(rest[0])
            rest = rest[1 + each :]
    return LegTable(tuple(paths), _HOLD in features)


def read_leg_status(status: tuple[Target, ...]) -> tuple[tuple[str, PathCondition], ...]:
    """The condition of each path, by device number (drivers/md/dm-mpath.c, multipath_status)."""
    if len(status) != 1 or status[0].kind != _MULTIPATH:
        return ()
    words = status[0].parameters.split()
    _features, rest = _counted(words)
    _handler, rest = _counted(rest)
    groups, rest = _groups(rest)
    paths: list[tuple[str, PathCondition]] = []
    for _ in range(groups):
        # group's state letter, the selector's own status, then: paths, arguments each has
        _arguments, rest = _counted(rest[1:])
        count, each = int(rest[0]), int(rest[1])
        rest = rest[2:]
        for _ in range(count):
            number, letter = rest[0], rest[1]
            condition = PathCondition.ACTIVE if letter == "A" else PathCondition.FAILED
            paths.append((number, condition))
            rest = rest[3 + each :]  # number, letter, count of failures
    return tuple(paths)


def _counted(words: list[str]) -> tuple[list[str], list[str]]:
    """A list with its length before it, and what follows."""
    count = int(words[0])
    return words[1 : 1 + count], words[1 + count :]


def _groups(words: list[str]) -> tuple[int, list[str]]:
    """The number of path groups; the number of the group in use is passed over."""
    return int(words[0]), words[2:]
