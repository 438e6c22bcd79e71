"""Which object a path names, and the path of each object."""

import re
from dataclasses import dataclass
from enum import StrEnum

from vastskyd.core.answers import DiskView, LocalVolume, NodeView, VolumeView
from vastskyd.core.model import Job, Record

BUS_NAME = "org.vastsky.Vastsky1"
ROOT = "/org/vastsky/Vastsky1"
NO_OBJECT = "/"  # in place of a path where there is none: D-Bus has no empty one

_PLAIN = re.compile(r"[A-Za-z0-9]")
_ELEMENT = re.compile(r"(?:[A-Za-z0-9]|_[0-9a-f]{2})+")
_ESCAPED = re.compile(rb"_([0-9a-f]{2})")


class Kind(StrEnum):
    """What stands under the root, by the first part of the path."""

    NODE = "nodes"
    DISK = "disks"
    VOLUME = "volumes"
    ATTACHMENT = "attachments"
    JOB = "jobs"


@dataclass(frozen=True)
class Place:
    """An object: `name` is its id, or what people call it."""

    kind: Kind
    name: str

    @property
    def path(self) -> str:
        return f"{ROOT}/{self.kind}/{encode(self.name)}"

    @staticmethod
    def parse(path: str) -> "Place | None":
        """None: no object has such a path."""
        head, _, element = path.removeprefix(f"{ROOT}/").partition("/")
        if not path.startswith(f"{ROOT}/") or head not in tuple(Kind):
            return None
        name = decode(element)
        return None if name is None else Place(Kind(head), name)


def encode(name: str) -> str:
    """
    >>> encode("store1:/dev/sdb")
    'store1_3a_2fdev_2fsdb'
    """
    return "".join(
        char if _PLAIN.fullmatch(char) else "".join(f"_{byte:02x}" for byte in char.encode())
        for char in name
    )


def decode(element: str) -> str | None:
    """None if `encode` gives no such thing."""
    if not _ELEMENT.fullmatch(element):
        return None
    plain = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), element.encode())
    try:
        name = plain.decode()
    except UnicodeDecodeError:
        return None
    return name if encode(name) == element else None


def place_of(record: Record) -> Place | None:
    """The object that the record describes; None if it describes none."""
    match record:
        case NodeView():
            return Place(Kind.NODE, record.id)
        case DiskView():
            return Place(Kind.DISK, record.id or f"{record.node}:{record.path}")
        case VolumeView():
            return Place(Kind.VOLUME, record.id)
        case LocalVolume():
            return Place(Kind.ATTACHMENT, record.id)
        case Job():
            return Place(Kind.JOB, record.id)
    return None


def called(record: Record) -> str:
    """What people call the object that the record describes."""
    match record:
        case NodeView():
            return record.id
        case DiskView():
            return f"{record.node}:{record.path}"
        case VolumeView() | LocalVolume():
            return record.name
        case Job():
            return record.about
    return ""
