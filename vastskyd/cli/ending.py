"""SIGTERM ends vastskyctl as it ends others, but first the terminal is as it was."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class _Ended(BaseException):
    """Passes through all that tidies up, and is caught by nobody else."""


def _end(number: int, frame: object) -> None:
    raise _Ended


@contextmanager
def ended_in_order() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except _Ended:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
