"""Which bytes the number of a grain stands for.

A number that a program wrote stands for itself, over and over, and 0 for zeros. What no program
wrote whole (a grain of which a part was written, or a bit flipped) gets a number of its own, below
zero.
"""

from vastskyd.core.units import GRAIN_BYTES

_WORD_BYTES = 8


class Contents:
    """One for all the hosts of a world, since disks move between them."""

    def __init__(self) -> None:
        self._mixed: list[bytes] = []
        self._numbers: dict[bytes, int] = {}

    def of(self, number: int) -> bytes:
        if number < 0:
            return self._mixed[-number - 1]
        return number.to_bytes(_WORD_BYTES) * (GRAIN_BYTES // _WORD_BYTES)

    def patched(self, at: int, content: bytes, number: int) -> int:
        """The number of what `number` stands for with `content` written at `at`."""
        before = self.of(number)
        return self._number(before[:at] + content + before[at + len(content) :])

    def flipped(self, at: int, number: int) -> int:
        """The number of what `number` stands for with a bit of the byte at `at` flipped."""
        return self.patched(at, bytes([self.of(number)[at] ^ 1]), number)

    def _number(self, content: bytes) -> int:
        word = content[:_WORD_BYTES]
        if content == word * (GRAIN_BYTES // _WORD_BYTES) and word[0] < 0x80:
            return int.from_bytes(word)
        number = self._numbers.setdefault(content, -len(self._mixed) - 1)
        if number == -len(self._mixed) - 1:
            self._mixed.append(content)
        return number
