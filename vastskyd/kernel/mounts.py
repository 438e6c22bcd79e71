"""Reading /proc/PID/mountinfo: proc(5)."""

from dataclasses import dataclass

_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


@dataclass(frozen=True)
class Mount:
    """`number` is "major:minor" of the file system's device."""

    id: int
    number: str
    point: str


def read_mounts(mountinfo: str) -> list[Mount]:
    """In the order of the text; lines that are none are left out.

    >>> read_mounts("36 35 98:0 /mnt1 /mnt\\\\0402 rw,noatime master:1 - ext3 /dev/root rw")
    [Mount(id=36, number='98:0', point='/mnt 2')]
    """
    mounts = []
    for line in mountinfo.splitlines():
        fields = line.split()
        if len(fields) > 4 and fields[0].isdigit():
            mounts.append(Mount(int(fields[0]), fields[2], _unescape(fields[4])))
    return mounts


def mount_points(mountinfo: str, number: str) -> tuple[str, ...]:
    """Where the device "major:minor" is mounted, each place once."""
    points = (mount.point for mount in read_mounts(mountinfo) if mount.number == number)
    return tuple(dict.fromkeys(points))


def _unescape(path: str) -> str:
    for code, character in _ESCAPES:
        path = path.replace(code, character)
    return path
