"""Where things lie on an enrolled disk.

The two description slots stand behind anything a partition table or a boot loader would put at the
start; the area of the extents begins at AREA_START_BYTES.
"""

from vastskyd.core.units import KIB, MIB

# What every slot that was ever written begins with.
SLOT_MAGIC = b"VASTSKY\0"
SLOT_BYTES = MIB
# Not a MiB apart: partitions begin at whole ones, and the first slot of one must not be where the
# disk that it is a part of has its second.
SLOT_OFFSETS_BYTES = (64 * KIB, 64 * KIB + MIB + MIB // 2)
AREA_START_BYTES = 4 * MIB

# Extents of one disk: as many always fit a slot, whatever their names and numbers.
EXTENTS_MAX = 800
# Legs that an extent names of its segment, and deleted volumes that a description remembers.
LEGS_MAX = 5
DELETED_MAX = 128
