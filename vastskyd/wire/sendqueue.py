"""What waits to be sent on one session: bounded in frames and in bytes."""

import asyncio
from collections import deque

from vastskyd.core.errors import UnreachableError


class SendQueue:
    """Many put, one gets. Who finds it full waits, until there is room or it is closed."""

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()

    def offer(self, frame: bytes) -> bool:
        """Put without waiting; False if there is no room."""
        if self._closed or not self._has_room(frame):
            return False
        self._frames.append(frame)
        self._bytes += len(frame)
        self._filled.set()
        return True

    async def put(self, frame: bytes) -> None:
        """UnreachableError once the queue is closed."""
        while not self.offer(frame):
            if self._closed:
                raise UnreachableError("the session ended")
            self._drained.clear()
            await self._drained.wait()

    async def get(self) -> bytes:
        # Nothing is taken before the last await, so that a cancelled get loses no frame.
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        self._drained.set()
        return frame

    def close(self) -> None:
        """Wakes all who wait to put; what was queued is dropped."""
        self._closed = True
        self._frames.clear()
        self._bytes = 0
        self._drained.set()

    def _has_room(self, frame: bytes) -> bool:
        if not self._frames:
            return True
        fits = self._bytes + len(frame) <= self._max_bytes
        return fits and len(self._frames) < self._max_frames
