"""device-mapper's ioctl messages: encode, decode, and the one call that sends them.

Written after include/uapi/linux/dm-ioctl.h. `call` may sleep in the kernel: by way of `calls.py`.
"""

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag

CONTROL = "/dev/mapper/control"

_VERSION = (4, 0, 0)
_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
_TARGET = struct.Struct("=Q Q i I 16s")
_MESSAGE = struct.Struct("=Q")
_ANSWER_BYTES = 16 * 1024
_ANSWER_MAX_BYTES = 1024 * 1024


class Command(IntEnum):
    DEV_CREATE = 3
    DEV_REMOVE = 4
    DEV_RENAME = 5
    DEV_SUSPEND = 6  # without Flag.SUSPEND: resume
    DEV_STATUS = 7
    TABLE_LOAD = 9
    TABLE_STATUS = 12
    TARGET_MESSAGE = 14
    DEV_ARM_POLL = 16


class Flag(IntFlag):
    NONE = 0
    SUSPEND = 1 << 1
    STATUS_TABLE = 1 << 4
    ACTIVE_PRESENT = 1 << 5
    BUFFER_FULL = 1 << 8
    SKIP_LOCKFS = 1 << 10
    NOFLUSH = 1 << 11


class UdevFlag(IntFlag):
    """What udev's device-mapper rules are told, in the upper half of the cookie.

    A cookie whose lower half is zero names no semaphore: `dmsetup udevcomplete`, which
    95-dm-notify.rules runs, then succeeds at once (lvm2, tools/dmsetup.c, _udevcomplete).
    """

    DISABLE_SUBSYSTEM_RULES = 0x02
    DISABLE_DISK_RULES = 0x04
    DISABLE_OTHER_RULES = 0x08
    DISABLE_LIBRARY_FALLBACK = 0x20
    PRIMARY_SOURCE = 0x40


PUBLIC = UdevFlag.PRIMARY_SOURCE
INTERNAL = (
    UdevFlag.PRIMARY_SOURCE
    | UdevFlag.DISABLE_SUBSYSTEM_RULES
    | UdevFlag.DISABLE_DISK_RULES
    | UdevFlag.DISABLE_OTHER_RULES
    | UdevFlag.DISABLE_LIBRARY_FALLBACK
)


@dataclass(frozen=True)
class Target:
    """One line of a table, or of a status."""

    start_sectors: int
    length_sectors: int
    kind: str
    parameters: str


@dataclass(frozen=True)
class Answer:
    flags: Flag
    open_count: int
    event_number: int
    minor: int
    uuid: str
    targets: tuple[Target, ...]


def cookie(flags: UdevFlag) -> int:
    return int(flags) << 16


def request_number(command: Command) -> int:
    """_IOWR(0xfd, command, struct dm_ioctl)"""
    return (3 << 30) | (_HEADER.size << 16) | (0xFD << 8) | int(command)


def encode(
    name: str,
    *,
    uuid: str = "",
    flags: Flag = Flag.NONE,
    event_number: int = 0,
    target_count: int = 0,
    content: bytes = b"",
    room_bytes: int = _ANSWER_BYTES,
) -> bytearray:
    """struct dm_ioctl, its content behind it, and room for the answer."""
    total = max(_HEADER.size + len(content), room_bytes)
    header = _HEADER.pack(
        *_VERSION,
        total,
        _HEADER.size,
        target_count,
        0,
        int(flags),
        event_number,
        0,
        0,
        name.encode(),
        uuid.encode(),
        b"",
    )
    message = bytearray(total)
    message[: len(header)] = header
    message[len(header) : len(header) + len(content)] = content
    return message


def encode_table(targets: tuple[Target, ...]) -> bytes:
    """The targets for TABLE_LOAD: `next` counts from the start of the current target."""
    encoded = bytearray()
    for target in targets:
        parameters = target.parameters.encode() + b"\0"
        parameters += bytes(-(_TARGET.size + len(parameters)) % 8)
        encoded += _TARGET.pack(
            target.start_sectors,
            target.length_sectors,
            0,
            _TARGET.size + len(parameters),
            target.kind.encode(),
        )
        encoded += parameters
    return bytes(encoded)


def encode_target_message(text: str) -> bytes:
    return _MESSAGE.pack(0) + text.encode() + b"\0"


def decode(message: bytes) -> Answer:
    fields = _HEADER.unpack_from(message)
    data_start, target_count, open_count, flags, event_number = (
        fields[4], fields[5], fields[6], fields[7], fields[8],
    )  # fmt: skip
    return Answer(
        flags=Flag(flags),
        open_count=open_count,
        event_number=event_number,
        minor=_minor(fields[10]),
        uuid=_text(fields[12]),
        targets=_decode_targets(message[data_start:], target_count),
    )


def _decode_targets(content: bytes, count: int) -> tuple[Target, ...]:
    """Status and tables: `next` counts from the start of the first target."""
    targets = []
    position = 0
    for _ in range(count):
        if position + _TARGET.size > len(content):
            break
        start, length, _status, following, kind = _TARGET.unpack_from(content, position)
        parameters = content[position + _TARGET.size : following]
        targets.append(Target(start, length, _text(kind), _text(parameters)))
        position = following
    return tuple(targets)


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")


def _minor(device: int) -> int:
    """Of the kernel's huge_encode_dev form."""
    return (device & 0xFF) | ((device >> 12) & 0xFFF00)


def call(
    command: Command,
    name: str,
    *,
    uuid: str = "",
    flags: Flag = Flag.NONE,
    udev: UdevFlag | None = None,
    table: tuple[Target, ...] = (),
    message: str = "",
    new_name: str = "",
) -> Answer:
    """One ioctl. OSError as the kernel says: ENXIO no such device, EBUSY in use or exists.

    Opens the control node for the call: it keeps no state between calls but the event number.
    """
    content = encode_target_message(message) if message else encode_table(table)
    if new_name:
        content = new_name.encode() + b"\0"
    room = _ANSWER_BYTES
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            buffer = encode(
                name,
                uuid=uuid,
                flags=flags,
                event_number=0 if udev is None else cookie(udev),
                target_count=len(table),
                content=content,
                room_bytes=room,
            )
            fcntl.ioctl(control, request_number(command), buffer, True)
            # A query's answer carries its targets; other answers repeat what was sent.
            answer = decode(
                bytes(buffer) if command is Command.TABLE_STATUS else bytes(buffer[:512])
            )
            if not answer.flags & Flag.BUFFER_FULL:
                return answer
            room *= 4
            if room > _ANSWER_MAX_BYTES:
                raise OSError(errno.ENOSPC, f"the status of {name} is longer than any of ours")
    finally:
        os.close(control)


def open_events() -> int:
    """A control node to poll: readable when an event came since it was armed."""
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    arm(control)
    return control


def arm(control: int) -> None:
    """Does not sleep: it notes the number of the last event."""
    fcntl.ioctl(control, request_number(Command.DEV_ARM_POLL), encode("", room_bytes=0), True)
