"""prctl(2), which Python has not."""

import ctypes
import os

# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_IO_FLUSHER = 57


def prctl(option: int, value: int) -> None:
    """OSError if the kernel refuses it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
