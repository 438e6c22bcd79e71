"""The kernel's and udev's broadcasts of devices that came, went or changed."""

import errno
import logging
import socket

log = logging.getLogger(__name__)

_NETLINK_KOBJECT_UEVENT = 15
# The kernel's own events, and udev's after its rules have run (links are there then).
_GROUPS = 1 | 2
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 8 * 1024 * 1024
_DATAGRAM_BYTES = 65536
# The rest has its turn when the loop comes round again.
_DATAGRAMS_AT_ONCE = 1024


class Uevents:
    """Heard from the moment it is made; readable when there is something to take."""

    def __init__(self, buffer_bytes: int = _BUFFER_BYTES) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_KOBJECT_UEVENT)
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except PermissionError:  # then as much as net.core.rmem_max allows
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        return self._socket.fileno()

    def take(self) -> bool:
        """Whether block devices are to be looked at: one was spoken of, or some events were lost,
        whatever they said."""
        told = False
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                datagram = self._socket.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return told
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                log.warning("uevents came faster than they were read, and some are lost:"
                            " all block devices are looked at again")  # fmt: skip
                told = True
            else:
                told = told or b"SUBSYSTEM=block\0" in datagram
        return told

    def close(self) -> None:
        self._socket.close()
