"""dbus-next, as far as we use it.

Its package also imports its GLib half, and with it GObject introspection where that is installed:
a fifth of what a short vastskyctl command takes, for nothing. It does without where there is none.
"""

import sys

_without = "gi" not in sys.modules
if _without:
    sys.modules["gi"] = None  # type: ignore[assignment]  # an import of it fails: ImportError
try:
    from dbus_next.aio.message_bus import MessageBus
    from dbus_next.constants import (
        BusType,
        MessageFlag,
        MessageType,
        NameFlag,
        RequestNameReply,
    )
    from dbus_next.message import Message
    from dbus_next.signature import SignatureTree, Variant
finally:
    if _without:
        del sys.modules["gi"]

__all__ = [
    "BusType",
    "Message",
    "MessageBus",
    "MessageFlag",
    "MessageType",
    "NameFlag",
    "RequestNameReply",
    "SignatureTree",
    "Variant",
]
