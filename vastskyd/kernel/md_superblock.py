"""md's superblock, version 1.2: the part that vastskyd reads.

After include/uapi/linux/raid/md_p.h, struct mdp_superblock_1: little-endian, 4 KiB from the start.
"""

import struct

from vastskyd.ports import Superblock

OFFSET_BYTES = 4096
READ_BYTES = 4096

_MAGIC = 0xA92B4EFC
_MAJOR = 1
_HEAD = struct.Struct("<II")
_SET_UUID = slice(16, 32)
_EVENTS = struct.Struct("<Q")
_EVENTS_AT = 200
_DEV_NUMBER = struct.Struct("<I")
_DEV_NUMBER_AT = 160
_MAX_DEV = struct.Struct("<I")
_MAX_DEV_AT = 220
_ROLES_AT = 256
_ROLE = struct.Struct("<H")

# Roles from here up are no places in the array: journal, faulty, spare.
_ROLE_SPECIAL = 0xFFFD


def parse(block: bytes) -> Superblock | None:
    """None: this is no md superblock. Its checksum is not looked at: md does that."""
    if len(block) < _ROLES_AT:
        return None
    magic, major = _HEAD.unpack_from(block)
    if magic != _MAGIC or major != _MAJOR:
        return None
    (number,) = _DEV_NUMBER.unpack_from(block, _DEV_NUMBER_AT)
    (count,) = _MAX_DEV.unpack_from(block, _MAX_DEV_AT)
    role_at = _ROLES_AT + _ROLE.size * number
    in_array = False
    if number < count and role_at + _ROLE.size <= len(block):
        in_array = _ROLE.unpack_from(block, role_at)[0] < _ROLE_SPECIAL
    return Superblock(
        array_uuid=block[_SET_UUID].hex(),
        events=_EVENTS.unpack_from(block, _EVENTS_AT)[0],
        in_array=in_array,
    )
