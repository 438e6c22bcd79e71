"""What lies where on a segment's legs, between what the volume carries and the ends of devices.

    leg, under md   | md's own | guard | data | guard |
    array, or leg   |          | guard | data | guard |
    volume                             | data | data of the next segment ...

LVM, the kernel and blkid know a PV, a partition table or a file system by what stands near the
start of a device, and some things (the second header of a GPT, md's older superblocks, vendors'
RAIDs) by its end. With the guards they find that on the volume and on nothing below it, where
they would work past the volume; at the end of a disk, too, which an extent may reach.
"""

from vastskyd.core.units import MD_DATA_OFFSET_BYTES, MIB

# Reads as zeros, since an extent is wiped before its use and nothing maps it. On the extents' grid.
GUARD_BYTES = MIB


def guarded_length(data_bytes: int) -> int:
    """Of the array, or of a leg without one."""
    return GUARD_BYTES + data_bytes + GUARD_BYTES


def extent_length(data_bytes: int, *, with_array: bool) -> int:
    """Of the segment's extents: under md, with the room that md needs for its own."""
    return guarded_length(data_bytes) + (MD_DATA_OFFSET_BYTES if with_array else 0)
