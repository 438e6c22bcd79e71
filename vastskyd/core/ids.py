"""Identities: what each one names, and the shape it must have.

An id is a plain string with a type of its own, so that mypy keeps a disk's id out of a
volume's place. Nodes are named by people (their host name); the others are drawn at random.
"""

import re
from typing import NewType

from vastskyd.core.errors import InvalidError

NodeId = NewType("NodeId", str)
ClusterId = NewType("ClusterId", str)
DiskId = NewType("DiskId", str)
ExtentId = NewType("ExtentId", str)
VolumeId = NewType("VolumeId", str)
JobId = NewType("JobId", str)

# md's array UUID is 128 bits: 96 bits of volume and 32 bits of segment number.
VOLUME_ID_DIGITS = 24
SHORT_ID_DIGITS = 16

# The directory in /dev/vastsky that has a link for each volume's id.
BY_ID = "by-id"

_VOLUME_ID = re.compile(rf"[0-9a-f]{{{VOLUME_ID_DIGITS}}}")
_NODE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def node_id(text: str) -> NodeId:
    """A node's name: one host name label, lower case, at most 63 characters.

    >>> node_id("store1")
    'store1'
    """
    if not _NODE.fullmatch(text):
        raise InvalidError(
            f"{text!r} is not a node name",
            hint="use 1 to 63 lower-case letters, digits and inner hyphens, as in a host name",
        )
    return NodeId(text)


def volume_name(text: str) -> str:
    """A volume's name: what stands in /dev/vastsky/NAME."""
    if text == BY_ID:
        raise InvalidError(
            f"no volume can be called {text}: /dev/vastsky/{text} has the links by id",
            hint="choose another name",
        )
    if _VOLUME_ID.fullmatch(text):
        raise InvalidError(
            f"no volume can be called {text}: that is a volume's id, and both name one",
            hint="choose another name",
        )
    if not _VOLUME_NAME.fullmatch(text):
        raise InvalidError(
            f"{text!r} is not a volume name",
            hint="use 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or a digit",
        )
    return text
