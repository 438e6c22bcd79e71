"""What a guest's kernel and disks really hold. Runs in a guest: nothing but the standard library.

Asks nobody: sysfs and the raw devices only.
"""

import argparse
import hashlib
import json
import mmap
import os
import sys
from pathlib import Path

BLOCK = Path("/sys/block")
MIB = 1 << 20
BLOCK_BYTES = 4096
MAGIC = b"VSKYDEMO"
LEG, EXTENT = "vastsky-leg-", "vastsky-extent-"


def text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def legs() -> list[dict[str, object]]:
    """Of each array over our legs: where in which extents its content lies."""
    found: list[dict[str, object]] = []
    for array in sorted(BLOCK.glob("md*")):
        members = []
        for member in sorted((array / "md").glob("dev-*")):
            name = text(member / "block" / "dm" / "name")
            if name.startswith(LEG):
                members.append(
                    {
                        "extent": name.removeprefix(LEG),
                        "state": text(member / "state"),
                        "offset": int(text(member / "offset")) * 512,
                    }
                )
        if members:
            size = int(text(array / "md" / "component_size")) * 1024
            found.append({"array": array.name, "size": size, "legs": members})
    return found


def scan(wanted: list[str]) -> dict[str, dict[str, object]]:
    """The extents EXTENT:OFFSET:SIZE that this host has: a digest of each MiB, and the digest of
    each block of the demo's writer with its number."""
    here = {text(path / "dm" / "name"): f"/dev/{path.name}" for path in BLOCK.glob("dm-*")}
    found = {}
    for each in wanted:
        extent, offset, size = each.split(":")
        device = here.get(EXTENT + extent)
        if device is not None:
            found[extent] = read_range(device, int(offset), int(size))
    return found


def read_range(device: str, offset: int, size: int) -> dict[str, object]:
    digests, blocks = [], {}
    buffer = mmap.mmap(-1, MIB)
    source = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        for start in range(0, size, MIB):
            length = min(MIB, size - start)
            if os.preadv(source, [memoryview(buffer)[:length]], offset + start) != length:
                raise OSError(f"{device}: cut short at {offset + start}")
            chunk = buffer[:length]
            digests.append(hashlib.blake2b(chunk, digest_size=8).hexdigest())
            at = chunk.find(MAGIC)
            while at >= 0:
                if at % BLOCK_BYTES == 0:
                    block = chunk[at : at + BLOCK_BYTES]
                    number = int.from_bytes(block[8:16], "little")
                    blocks[number] = hashlib.blake2b(block, digest_size=8).hexdigest()
                at = chunk.find(MAGIC, at + 1)
    finally:
        os.close(source)
    return {"digests": digests, "blocks": blocks}


def main() -> int:
    top = argparse.ArgumentParser(description=__doc__)
    top.add_argument("what", choices=["legs", "scan"])
    top.add_argument("extents", nargs="*")
    arguments = top.parse_args()
    match arguments.what:
        case "legs":
            print(json.dumps(legs()))
        case _:
            print(json.dumps(scan(arguments.extents)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
