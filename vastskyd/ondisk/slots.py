"""Which of the two slots speaks for the disk, and which is written next.

Slots are written in turn, so the one that speaks is never the one being written: a write that is
cut short leaves the description before it.
"""

from dataclasses import dataclass

from vastskyd.core.description import DiskDescription
from vastskyd.core.errors import DamagedError
from vastskyd.core.ondisk_layout import SLOT_OFFSETS_BYTES
from vastskyd.ondisk.codec import MAGIC, NewerVersionError, decode


@dataclass(frozen=True)
class Current:
    """`other_damaged` says what is wrong with the other slot: "" if it is whole or was never
    written. The next write mends it."""

    description: DiskDescription
    generation: int
    slot: int
    other_damaged: str = ""


@dataclass(frozen=True)
class Empty:
    """Nothing of ours is there."""


@dataclass(frozen=True)
class Damaged:
    """A description was there and cannot be relied on. `generation` is the highest that was read
    from a whole slot, or 0."""

    message: str
    generation: int = 0


@dataclass(frozen=True)
class NextWrite:
    slot: int
    generation: int


def choose(slots: tuple[bytes, ...]) -> Current | Empty | Damaged:
    """The newest whole description.

    A slot in a later format is never passed over for an older one beside it: that one's epochs may
    be over.
    """
    whole: list[Current] = []
    damaged: list[str] = []
    for index, content in enumerate(slots):
        if not content.startswith(MAGIC):
            continue
        try:
            description, generation = decode(content)
        except NewerVersionError as error:
            return Damaged(f"slot {index}: {error.message}", error.generation)
        except DamagedError as error:
            damaged.append(f"slot {index}: {error.message}")
        else:
            whole.append(Current(description, generation, index))
    if not whole:
        return Damaged("; ".join(damaged)) if damaged else Empty()
    newest = max(whole, key=lambda current: current.generation)
    for current in whole:
        if current.generation == newest.generation and current.description != newest.description:
            return Damaged(
                f"both slots say generation {newest.generation} and differ", newest.generation
            )
    return Current(newest.description, newest.generation, newest.slot, "; ".join(damaged))


def next_slot(found: Current | Empty | Damaged) -> NextWrite:
    """Where the next description goes, and its generation.

    To enrol a disk on which something was found, write twice: then no older description is left.
    """
    match found:
        case Current():
            return NextWrite((found.slot + 1) % len(SLOT_OFFSETS_BYTES), found.generation + 1)
        case Damaged():
            return NextWrite(0, found.generation + 1)
        case Empty():
            return NextWrite(0, 1)
