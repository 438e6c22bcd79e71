"""The description as the bytes of one slot, and back. docs/on-disk.md has the table.

Place and meaning of the header's fields, and what its checksum covers, are the same in every format
version: so a description of a later version is told from a damaged one.
"""

import hashlib
import struct

import msgspec

from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.description import DiskDescription, problem
from vastskyd.core.errors import DamagedError, InvalidError
from vastskyd.core.ondisk_layout import SLOT_BYTES, SLOT_MAGIC

MAGIC = SLOT_MAGIC
FORMAT_VERSION = 1

# A slot is written in whole blocks, as direct I/O wants.
BLOCK_BYTES = 4096

# magic, format version, body length, generation; then the checksum.
_FIELDS = struct.Struct("<8sIIQ")
CHECKSUM_BYTES = 32
HEADER_BYTES = _FIELDS.size + CHECKSUM_BYTES
BODY_MAX_BYTES = SLOT_BYTES - HEADER_BYTES


class NewerVersionError(DamagedError):
    """The slot is whole, and of a format that this program does not know."""

    def __init__(self, version: int, generation: int) -> None:
        super().__init__(
            f"the description is of format {version}; this vastskyd knows format {FORMAT_VERSION}",
            hint="upgrade vastskyd on this host",
        )
        self.generation = generation


def encode(description: DiskDescription, generation: int) -> bytes:
    """The slot's content, whole blocks of it. InvalidError for what decode would refuse."""
    if wrong := problem(description):
        raise InvalidError(f"the description of disk {description.disk} is wrong: {wrong}")
    body = msgspec.msgpack.encode(description)
    if len(body) > BODY_MAX_BYTES:
        raise InvalidError(f"the description of disk {description.disk} does not fit its slot")
    fields = _FIELDS.pack(MAGIC, FORMAT_VERSION, len(body), generation)
    padding = bytes(-(HEADER_BYTES + len(body)) % BLOCK_BYTES)
    return fields + _checksum(fields, body + padding) + body + padding


def decode(slot: bytes) -> tuple[DiskDescription, int]:
    """Description and generation of a slot as read; what follows the description is not looked at.

    DamagedError for everything that encode did not make; NewerVersionError where a later one did.
    """
    if len(slot) < BLOCK_BYTES or not slot.startswith(MAGIC):
        raise DamagedError("there is no description")
    _, version, body_bytes, generation = _FIELDS.unpack_from(slot)
    end = -(-(HEADER_BYTES + body_bytes) // BLOCK_BYTES) * BLOCK_BYTES
    if end > min(len(slot), SLOT_BYTES):
        raise DamagedError("the description is cut short")
    checksum = slot[_FIELDS.size : HEADER_BYTES]
    if _checksum(slot[: _FIELDS.size], slot[HEADER_BYTES:end]) != checksum:
        raise DamagedError("the description's checksum is wrong")
    if version != FORMAT_VERSION:
        raise NewerVersionError(version, generation)
    return _description(slot[HEADER_BYTES : HEADER_BYTES + body_bytes]), generation


def _description(body: bytes) -> DiskDescription:
    try:
        description = msgspec.msgpack.decode(body, type=DiskDescription)
    except DECODE_ERRORS as error:
        raise DamagedError(f"the description is not one: {error}") from error
    if wrong := problem(description):
        raise DamagedError(f"the description contradicts itself: {wrong}")
    return description


def _checksum(fields: bytes, rest: bytes) -> bytes:
    return hashlib.blake2b(fields + rest, digest_size=CHECKSUM_BYTES).digest()
