"""Whether the copies of a volume are the same, read where nothing of the stack is in between."""

import hashlib
from collections.abc import Iterable
from typing import Any

from tests.demo import writer
from tests.demo.hosts import MIB, Hosts
from tests.demo.narrator import require
from vastskyd.core.guards import GUARD_BYTES, guarded_length

Array = dict[str, Any]  # as evidence.py tells of it
ZEROS = hashlib.blake2b(bytes(GUARD_BYTES), digest_size=8).hexdigest()


def compare_copies(
    hosts: Hosts, head: str, stores: Iterable[str], copies: int, wanted: Iterable[int] = ()
) -> str:
    """Each leg of what has so many copies and is attached to `head`, read on its own storage host:
    all are equal, and each copy holds the blocks `wanted`. What was compared, in words."""
    arrays = [array for array in hosts.evidence(head, "legs") if len(array["legs"]) == copies]
    require(bool(arrays), f"{head} has nothing with {copies} legs")
    scanned = _scan(hosts, stores, arrays)
    held: list[dict[str, str]] = [{} for _ in range(copies)]
    for array in arrays:
        for copy, extent in zip(held, _extents(array), strict=True):
            copy.update(scanned[extent]["blocks"])
    for number, copy in enumerate(held, start=1):
        lost = [each for each in wanted if copy.get(str(each)) != writer.digest_of(each)]
        require(not lost, f"copy {number} lacks {len(lost)} acknowledged blocks: {lost[:10]}")
    size = sum(array["size"] - guarded_length(0) for array in arrays)
    return f"{len(arrays)} segments, {size // MIB} MiB"


def compare_all_copies(hosts: Hosts, head: str, stores: Iterable[str]) -> None:
    """All legs of what is attached to `head`, each read on its own storage host, hold the same as
    the others of their segment."""
    arrays = hosts.evidence(head, "legs")
    require(bool(arrays), f"{head} has nothing with legs")
    _scan(hosts, stores, arrays)


def _extents(array: Array) -> list[str]:
    return [leg["extent"] for leg in array["legs"]]


def _scan(hosts: Hosts, stores: Iterable[str], arrays: list[Array]) -> dict[str, dict[str, Any]]:
    """By extent. All of an array are the same, and their guards are as they were made."""
    asked = [
        f"{leg['extent']}:{leg['offset']}:{array['size']}"
        for array in arrays
        for leg in array["legs"]
    ]
    scanned: dict[str, dict[str, Any]] = {}
    for found in hosts.each(
        lambda guest: hosts.evidence(guest.name, "scan", *asked), stores
    ).values():
        scanned |= found
    for array in arrays:
        extents = _extents(array)
        require(all(e in scanned for e in extents), f"a leg of {extents} is on no server")
        same = all(scanned[extent] == scanned[extents[0]] for extent in extents)
        require(same, f"the copies of {array['array']} differ: {extents}")
        digests = scanned[extents[0]]["digests"]
        intact = digests[0] == digests[-1] == ZEROS
        require(intact, f"the guards of {array['array']} were written to: {extents}")
    return scanned
