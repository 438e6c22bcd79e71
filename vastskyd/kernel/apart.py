"""The process that makes the kernel calls which may sleep; `calls.py` is how they are asked for.

An ioctl, an open, a read or a sysfs write may sleep in the kernel for as long as a leg's I/O is
held or a disk is dying. A thread that sleeps so outlives SIGKILL, and until it wakes its process
keeps all its locks and sockets, and systemd waits for it. Here sleeps a process that has none:
vastskyd ends, and is started anew, whatever the kernel does. It is killed with vastskyd, before
anybody hears of that: no call begins once there may be another vastskyd.
"""

import os
import pickle
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vastskyd.core.errors import DeviceError, VastskyError
from vastskyd.core.units import MIB
from vastskyd.kernel.memory import hold_memory
from vastskyd.kernel.prctl import PR_SET_PDEATHSIG, prctl

# The number of a call, and how many bytes of pickle follow: what is to be called, or the answer.
HEADER = struct.Struct("=QI")
FRAME_MAX_BYTES = 16 * MIB

# What ps and the kernel's messages call it: 15 characters at most.
_NAME = b"vastskyd-kernel"


@dataclass(frozen=True)
class Apart:
    """The process, and the end to talk to it by. It ends when that is closed, be it by the end of
    its maker."""

    pid: int
    channel: socket.socket


def start() -> Apart:
    """Forks it: before there are threads or an event loop."""
    ours, theirs = socket.socketpair()
    maker = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            _die_with(maker)
            _serve(theirs)
        except BaseException:  # noqa: BLE001  # nothing of its maker's goes on here
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(0)
    theirs.close()
    return Apart(pid, ours)


def _die_with(maker: int) -> None:
    """The kernel sends the signal before it tells of the maker's end (exit_notify in
    kernel/exit.c)."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != maker:
        os._exit(0)  # it has ended just now


def _serve(channel: socket.socket) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for its maker, whose end is its own
    with open("/proc/self/comm", "wb") as comm:
        comm.write(_NAME)
    hold_memory()  # not inherited; its maker has said what was refused
    answering = threading.Lock()
    while (header := _receive(channel, HEADER.size)) is not None:
        number, length = HEADER.unpack(header)
        frame = _receive(channel, length)
        if frame is None:
            return
        work = threading.Thread(
            target=_answer, args=(channel, answering, number, frame), daemon=True
        )
        try:
            work.start()
        except RuntimeError as error:
            failed = DeviceError(f"no thread can be started: {error}")
            _send(channel, answering, number, _packed((False, failed)))


def _receive(channel: socket.socket, length: int) -> bytes | None:
    """None: the other side has gone."""
    found = bytearray()
    while len(found) < length:
        try:
            part = channel.recv(length - len(found))
        except ConnectionError:
            return None
        if not part:
            return None
        found += part
    return bytes(found)


def _answer(channel: socket.socket, answering: threading.Lock, number: int, frame: bytes) -> None:
    try:
        act: Callable[[], Any] = pickle.loads(frame)  # noqa: S301  # its maker's own
        answer = _packed((True, act()))
    except BaseException as error:  # noqa: BLE001  # handed to the caller whatever it is
        answer = _packed((False, _portable(error)))
    _send(channel, answering, number, answer)


def _packed(answer: tuple[bool, Any]) -> bytes:
    packed = pickle.dumps(answer)
    if len(packed) > FRAME_MAX_BYTES:
        raise DeviceError(f"an answer of {len(packed)} bytes is too long")
    return packed


def _portable(error: BaseException) -> BaseException:
    """What can be unpickled again. Of an error of the program itself, with where it was."""
    if not isinstance(error, VastskyError | OSError):
        error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # just made
    except Exception:  # noqa: BLE001  # whatever it is that cannot be taken along
        return DeviceError(f"{type(error).__name__}: {error}")
    return error


def _send(channel: socket.socket, answering: threading.Lock, number: int, packed: bytes) -> None:
    try:
        with answering:
            channel.sendall(HEADER.pack(number, len(packed)) + packed)
    except ConnectionError:
        return  # nobody is left to hear of it
