"""The writer must notice what it is there to notice."""

import argparse
import threading
import time
from pathlib import Path

import pytest

from tests.demo import writer

SLOTS = 16
SIZE = SLOTS * 3 * writer.BLOCK_BYTES


@pytest.fixture
def written(tmp_path: Path) -> argparse.Namespace:
    """A file that was written to for a while."""
    arguments = argparse.Namespace(
        target=tmp_path / "blocks",
        notes=tmp_path / "notes",
        stop=tmp_path / "stop",
        slots=SLOTS,
        size=SIZE,
        pause=0.0,
        first=0,
    )
    thread = threading.Thread(target=writer.write, args=(arguments,))
    thread.start()
    end = time.monotonic() + 30
    while not arguments.notes.exists() or arguments.notes.stat().st_size < 40 * writer.NOTE.size:
        assert time.monotonic() < end
        time.sleep(0.01)
    arguments.stop.touch()
    thread.join(30)
    return arguments


def test_what_was_written_is_found(written: argparse.Namespace) -> None:
    assert writer.summary(written.notes)["acknowledged"] >= 40
    assert writer.verify(written) == 0


def test_every_place_is_used() -> None:
    assert {writer.slot_of(number, SLOTS) for number in range(SLOTS)} == set(range(SLOTS))


def test_an_older_block_is_a_lost_write(written: argparse.Namespace) -> None:
    slot, number = next(iter(writer.last_acknowledged(written.notes, SLOTS).items()))
    with written.target.open("r+b") as target:
        target.seek(writer.slot_offset(slot, SLOTS, SIZE))
        target.write(writer.make_block(number - SLOTS))
    assert writer.verify(written) == 1


def test_a_flipped_bit_is_a_lost_write(written: argparse.Namespace) -> None:
    slot = next(iter(writer.last_acknowledged(written.notes, SLOTS)))
    with written.target.open("r+b") as target:
        target.seek(writer.slot_offset(slot, SLOTS, SIZE) + 2000)
        byte = target.read(1)[0]
        target.seek(-1, 1)
        target.write(bytes([byte ^ 4]))
    assert writer.verify(written) == 1


def test_a_note_cut_short_does_not_count(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_bytes(writer.NOTE.pack(0, 1.0, 1.5) + writer.NOTE.pack(1, 2.0, 2.1)[:-1])
    assert [number for number, _, _ in writer.read_notes(notes)] == [0]
