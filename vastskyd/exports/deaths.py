"""Export servers that end without being asked: told at once, by their pidfds (pidfd_open(2))."""

import asyncio
import os

from vastskyd.core.ids import NodeId


class Deaths:
    """Knows the processes that answered once."""

    def __init__(self) -> None:
        self._watched: dict[NodeId, tuple[int, int]] = {}
        self._ended: dict[NodeId, None] = {}
        self._changed = asyncio.Event()

    def watch(self, head: NodeId, pid: int) -> None:
        """The head's server is this process from now on."""
        if self._watched.get(head, (0, -1))[0] == pid:
            return
        self.forget(head)
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._tell(head)
            return
        self._watched[head] = (pid, pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._gone, head)

    def forget(self, head: NodeId) -> None:
        """Its end is wanted, or seen."""
        _, pidfd = self._watched.pop(head, (0, -1))
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    async def next(self) -> NodeId:
        """Waits for one."""
        while not self._ended:
            self._changed.clear()
            await self._changed.wait()
        head = next(iter(self._ended))
        del self._ended[head]
        return head

    def _gone(self, head: NodeId) -> None:
        self.forget(head)
        self._tell(head)

    def _tell(self, head: NodeId) -> None:
        self._ended[head] = None
        self._changed.set()
