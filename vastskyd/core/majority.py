"""Which of several copies is right, block by block."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BLOCK_BYTES = 4096


@dataclass(frozen=True)
class Difference:
    """A block that is not the same in all copies. `right`: what more than half of at least three
    have; None: there is no such majority. `wrong`: the copies, by index, that have something else.
    """

    offset_bytes: int
    right: bytes | None
    wrong: tuple[int, ...]


@dataclass(frozen=True)
class Patch:
    """What is to be written to one copy."""

    copy: int
    offset_bytes: int
    content: bytes


def differences(copies: Sequence[bytes]) -> tuple[Difference, ...]:
    """In order. The copies are of one length, in whole blocks.

    >>> a, b = bytes(4096), b"b" * 4096
    >>> differences([a, a]), differences([a + a, a + b, a + a])[0].wrong
    ((), (1,))
    >>> differences([a, b])[0].right is None
    True
    """
    if all(copy == copies[0] for copy in copies[1:]):
        return ()
    return tuple(_differences(copies))


def _differences(copies: Sequence[bytes]) -> Iterator[Difference]:
    for at in range(0, len(copies[0]), BLOCK_BYTES):
        blocks = [copy[at : at + BLOCK_BYTES] for copy in copies]
        ((most, count),) = Counter(blocks).most_common(1)
        if count == len(copies):
            continue
        if len(copies) >= 3 and 2 * count > len(copies):
            wrong = tuple(index for index, block in enumerate(blocks) if block != most)
            yield Difference(at, most, wrong)
        else:
            yield Difference(at, None, ())


def patches(found: Sequence[Difference]) -> tuple[Patch, ...]:
    """The writes that make wrong copies right, neighbouring blocks in one."""
    runs: list[Patch] = []
    for copy in sorted({copy for difference in found for copy in difference.wrong}):
        for difference in found:
            if difference.right is None or copy not in difference.wrong:
                continue
            last = runs[-1] if runs else None
            if (
                last is not None
                and last.copy == copy
                and last.offset_bytes + len(last.content) == difference.offset_bytes
            ):
                runs[-1] = Patch(copy, last.offset_bytes, last.content + difference.right)
            else:
                runs.append(Patch(copy, difference.offset_bytes, difference.right))
    return tuple(runs)
