"""Clients of the two line protocols of a guest: QEMU's monitor and the agent."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

from .host import LabError

Message = dict[str, Any]


class ClosedError(LabError):
    """The other side went away."""


def connect_socket(path: Path, is_alive: Callable[[], bool], timeout_s: float) -> socket.socket:
    """Connect to a socket that a starting QEMU is about to make."""
    end = time.monotonic() + timeout_s
    while True:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            client.close()
            if not is_alive():
                raise ClosedError(f"{path.parent.name}: QEMU ended at its start") from error
            if time.monotonic() > end:
                raise LabError(f"{path}: no connection within {timeout_s:.0f} s") from error
            time.sleep(0.01)
        else:
            return client


class LineClient:
    """JSON lines over a unix socket; a thread reads, replies are matched by their id."""

    def __init__(self, name: str, client: socket.socket) -> None:
        self.name = name
        self._socket = client
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count()
        self._waiting: dict[str, Future[Message]] = {}
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._read, name=f"lab-{name}", daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._socket.makefile("rb") as stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    message = json.loads(line)
                    if isinstance(message, dict):
                        self._receive(message)
        self.close()

    def _receive(self, message: Message) -> None:
        with self._lock:
            future = self._waiting.pop(str(message.get("id")), None)
        if future is None:
            self.on_event(message)
        else:
            with contextlib.suppress(InvalidStateError):
                future.set_result(message)

    def on_event(self, message: Message) -> None:
        """A message that answers no request."""

    def send(self, message: Mapping[str, Any]) -> tuple[str, Future[Message]]:
        """Send a request; the future gets its reply."""
        number = f"{self._prefix}{next(self._numbers)}"
        future: Future[Message] = Future()
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self.name}: connection closed")
            self._waiting[number] = future
        data = json.dumps({**message, "id": number}).encode() + b"\n"
        try:
            with self._send_lock:
                self._socket.sendall(data)
        except OSError as error:
            raise ClosedError(f"{self.name}: {error}") from error
        return number, future

    def ask(self, message: Mapping[str, Any], timeout_s: float) -> Message:
        """Send a request and wait for its reply."""
        number, future = self.send(message)
        try:
            return future.result(timeout_s)
        except FutureTimeout:
            with self._lock:
                self._waiting.pop(number, None)
            raise LabError(f"{self.name}: no answer within {timeout_s:.0f} s") from None

    def close(self) -> None:
        """Close; whoever waits gets an error."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for future in waiting.values():
            with contextlib.suppress(InvalidStateError):
                future.set_exception(ClosedError(f"{self.name}: connection closed"))


class Agent(LineClient):
    """The agent in the guest."""

    def call(self, operation: str, timeout_s: float = 10, **arguments: Any) -> Message:
        """Do one operation; an error in the guest is a LabError here."""
        reply = self.ask({"op": operation, **arguments}, timeout_s)
        if "error" in reply:
            raise LabError(f"{self.name}: {operation}: {reply['error']}")
        return reply


class Monitor(LineClient):
    """QEMU's monitor (QMP); remembers events."""

    def __init__(self, name: str, client: socket.socket) -> None:
        self._events: list[Message] = []
        self._changed = threading.Condition()
        super().__init__(name, client)
        self.execute("qmp_capabilities")

    def on_event(self, message: Message) -> None:
        """Remember an event."""
        if "event" in message:
            with self._changed:
                self._events.append(message)
                self._changed.notify_all()

    def execute(self, command: str, /, timeout_s: float = 20, **arguments: Any) -> Any:
        """Run a command; underscores in the names of its arguments stand for dashes."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.execute_with(command, named, timeout_s)

    def execute_with(
        self, command: str, arguments: Mapping[str, Any], timeout_s: float = 20
    ) -> Any:
        """Run a command with its arguments as they are."""
        reply = self.ask({"execute": command, "arguments": dict(arguments)}, timeout_s)
        if "error" in reply:
            raise LabError(f"{self.name}: {command}: {reply['error'].get('desc')}")
        return reply.get("return")

    def count(self, event: str, **data: Any) -> int:
        """How many events of this kind have come."""
        with self._changed:
            return self._count(event, data)

    def _count(self, event: str, data: Mapping[str, Any]) -> int:
        return sum(
            1
            for seen in self._events
            if seen["event"] == event
            and all(seen.get("data", {}).get(key) == value for key, value in data.items())
        )

    def wait_event(self, event: str, more_than: int, timeout_s: float, **data: Any) -> None:
        """Wait until more events of a kind have come than there were."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count(event, data) > more_than, timeout_s):
                raise LabError(f"{self.name}: no event {event} within {timeout_s:.0f} s")
