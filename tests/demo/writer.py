"""Writes numbered, checksummed blocks and knows which of them were acknowledged.

Runs in a guest as well as here: one file, nothing but the standard library.

A target (a file or a device) has SLOTS places of one block, spread evenly over it. Block n goes to
a place that jumps about with n, so that all of the target is written to at any time. A block is
acknowledged when fdatasync has returned; only then its number is noted, in a file that is kept
elsewhere. At the end each place must hold the last block acknowledged there, or a later one that
was on its way.
"""

import argparse
import hashlib
import json
import mmap
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

BLOCK_BYTES = 4096
MAGIC = b"VSKYDEMO"
HEAD = struct.Struct("<8sQ")  # magic, number
DIGEST_BYTES = 16
NOTE = struct.Struct("<Qdd")  # number, when it was begun and acknowledged (monotonic seconds)
STRIDE = 797  # prime, so that it meets every place whatever SLOTS is


def make_block(number: int) -> bytes:
    """Block `number`: no two are alike in any sector."""
    head = HEAD.pack(MAGIC, number)
    seed = hashlib.blake2b(head).digest()
    length = BLOCK_BYTES - HEAD.size - DIGEST_BYTES
    body = head + (seed * (length // len(seed) + 1))[:length]
    return body + hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest()


def number_of(block: bytes) -> int | None:
    """The block's number; None if it is not a whole block of ours."""
    magic, number = HEAD.unpack_from(block)
    if magic != MAGIC or make_block(number) != block:
        return None
    return int(number)


def digest_of(number: int) -> str:
    """What tells block `number` from all others; shorter than the block."""
    return hashlib.blake2b(make_block(number), digest_size=8).hexdigest()


def slot_of(number: int, slots: int) -> int:
    return number * STRIDE % slots


def slot_offset(slot: int, slots: int, target_bytes: int) -> int:
    return slot * (target_bytes // slots // BLOCK_BYTES * BLOCK_BYTES)


def read_notes(path: Path) -> Iterator[tuple[int, float, float]]:
    """What was acknowledged; a note cut short at the end was not."""
    content = path.read_bytes()
    yield from NOTE.iter_unpack(content[: len(content) // NOTE.size * NOTE.size])


def last_acknowledged(path: Path, slots: int) -> dict[int, int]:
    """Of each slot that was ever written the number that it must hold."""
    return {slot_of(number, slots): number for number, _, _ in read_notes(path)}


def summary(path: Path) -> dict[str, float]:
    """How many were acknowledged, and the longest that one of them took."""
    count, longest, at = 0, 0.0, 0
    for number, begun, ended in read_notes(path):
        count += 1
        if ended - begun > longest:
            longest, at = ended - begun, number
    return {"acknowledged": count, "longest_stall_s": longest, "at": at}


def open_target(path: Path, flags: int) -> tuple[int, int]:
    target = os.open(path, flags | os.O_DIRECT | os.O_CLOEXEC)
    return target, os.lseek(target, 0, os.SEEK_END)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def write(arguments: argparse.Namespace) -> int:
    """Write until the stop file is there. An error ends it: there must be none.

    Where notes are there already it goes on after them: the one block that may have been
    acknowledged and not noted, when the host lost its power, is written once more.
    """
    if arguments.size:
        with arguments.target.open("xb") as made:
            os.posix_fallocate(made.fileno(), 0, arguments.size)
            os.fsync(made.fileno())
    target, target_bytes = open_target(arguments.target, os.O_RDWR)
    aligned = mmap.mmap(-1, BLOCK_BYTES)
    number = arguments.first
    if arguments.notes.exists():
        number = max((noted + 1 for noted, _, _ in read_notes(arguments.notes)), default=number)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_DSYNC
    notes = os.open(arguments.notes, flags, 0o600)
    sync_directory(arguments.notes.parent)  # its name, too, must outlast a power cut
    while not arguments.stop.exists():
        aligned[:] = make_block(number)
        offset = slot_offset(slot_of(number, arguments.slots), arguments.slots, target_bytes)
        begun = time.monotonic()
        if os.pwritev(target, [aligned], offset) != BLOCK_BYTES:
            raise OSError(f"block {number} was cut short")
        os.fdatasync(target)
        os.write(notes, NOTE.pack(number, begun, time.monotonic()))
        number += 1
        time.sleep(arguments.pause)
    print(json.dumps(summary(arguments.notes)))
    return 0


def verify(arguments: argparse.Namespace) -> int:
    """Read all slots; those that do not hold what was acknowledged are named."""
    target, target_bytes = open_target(arguments.target, os.O_RDONLY)
    aligned = mmap.mmap(-1, BLOCK_BYTES)
    lost = []
    wanted = last_acknowledged(arguments.notes, arguments.slots)
    for slot, number in sorted(wanted.items()):
        os.preadv(target, [aligned], slot_offset(slot, arguments.slots, target_bytes))
        found = number_of(bytes(aligned))
        if found is None or found < number or slot_of(found, arguments.slots) != slot:
            lost.append({"slot": slot, "acknowledged": number, "found": found})
    print(json.dumps({"slots": len(wanted), "lost": lost[:20], "lost_count": len(lost)}))
    return 1 if lost else 0


def show(arguments: argparse.Namespace) -> int:
    print(json.dumps(summary(arguments.notes)))
    return 0


def main() -> int:
    top = argparse.ArgumentParser(description=__doc__)
    commands = top.add_subparsers(required=True)
    for name, do in (("write", write), ("verify", verify), ("show", show)):
        made = commands.add_parser(name)
        made.set_defaults(do=do)
        made.add_argument("--notes", type=Path, required=True)
        if name == "show":
            continue
        made.add_argument("target", type=Path)
        made.add_argument("--slots", type=int, required=True)
        if name == "write":
            made.add_argument("--size", type=int, default=0, help="make a file of so many bytes")
            made.add_argument("--first", type=int, default=0, help="the first block's number")
            made.add_argument("--stop", type=Path, required=True)
            made.add_argument("--pause", type=float, default=0.005)
    arguments = top.parse_args()
    return int(arguments.do(arguments))


if __name__ == "__main__":
    sys.exit(main())
