"""What a daemon tells systemd: that it is ready, that it lives, and its log.

python3-systemd is a Debian package; where it is missing (a developer's virtual environment) the
log goes to stderr and nobody is told.
"""

import logging
import os
import sys

_WATCHDOG_DEFAULT_S = 10.0


def notify(state: str) -> None:
    """A line of sd_notify(3)."""
    if "NOTIFY_SOCKET" in os.environ:
        from systemd import daemon  # noqa: PLC0415 — only under systemd

        daemon.notify(state)


def watchdog_interval_s() -> float:
    """A third of what the unit allows."""
    allowed_us = os.environ.get("WATCHDOG_USEC", "")
    return int(allowed_us) / 3e6 if allowed_us.isdigit() else _WATCHDOG_DEFAULT_S


def journal_handler() -> logging.Handler:
    """The journal, with each record's extra members as fields."""
    if "JOURNAL_STREAM" in os.environ:
        from systemd.journal import JournalHandler  # noqa: PLC0415 — only under systemd

        handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER="vastskyd")
        return handler
    return logging.StreamHandler(sys.stderr)
