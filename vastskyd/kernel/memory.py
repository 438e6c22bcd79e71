"""Memory that never waits for a volume's I/O: mlockall(2), which Python has not, and prctl(2).

A volume's I/O may wait for vastskyd to decide. Were a page of vastskyd's in swap on that volume,
or were memory for it to be had only once dirty pages of that volume are written, each would wait
for the other.
"""

import ctypes
import os

from vastskyd.kernel.prctl import PR_SET_IO_FLUSHER, prctl

# include/uapi/asm-generic/mman.h
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_MCL_ONFAULT = 4


def hold_memory() -> tuple[str, ...]:
    """What of it was refused, for people; empty: all is well.

    A page stays once it was touched. To lock all at once would fill each thread's stack, 8 MiB,
    and every library; what of those was never touched is on the host's own file system. Programs
    that are started do not inherit the lock; that their memory does not wait for I/O they do.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    refused = []
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        why = os.strerror(ctypes.get_errno())
        refused.append(f"its memory cannot be locked ({why}), and may be swapped out")
    try:
        prctl(PR_SET_IO_FLUSHER, 1)
    except OSError as error:
        refused.append(f"its memory may wait for I/O (PR_SET_IO_FLUSHER: {error.strerror})")
    return tuple(refused)
