"""How many calls may be under way: of one connection, of one user, and of all."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from vastskyd.dbus.errors import ProtocolError

K = TypeVar("K")

MAX_CALLS = 256
MAX_CALLS_EACH = 32  # of one connection
MAX_CALLS_USER = MAX_CALLS // 4
MAX_CALLS_USERS = MAX_CALLS - MAX_CALLS // 4  # of all users but root: there is room for root


class InFlight:
    """A call is let in twice: as its connection's when it comes, and as its user's when the bus has
    said whose it is. ProtocolError: there are too many."""

    def __init__(self) -> None:
        self._connections: Counter[str] = Counter()
        self._users: Counter[int] = Counter()
        self._not_roots = 0

    def come(self, connection: str) -> None:
        """Until it has `gone`."""
        if self._connections[connection] >= MAX_CALLS_EACH:
            raise _too_many(f"{MAX_CALLS_EACH} calls of this connection: wait for their answers")
        self._connections[connection] += 1

    def gone(self, connection: str) -> None:
        _one_less(self._connections, connection)

    @contextmanager
    def of_user(self, uid: int, *, is_root: bool) -> Iterator[None]:
        """While it is answered. `is_root`: whoever may all."""
        self._check(uid, is_root=is_root)
        self._users[uid] += 1
        self._not_roots += not is_root
        try:
            yield
        finally:
            _one_less(self._users, uid)
            self._not_roots -= not is_root

    def _check(self, uid: int, *, is_root: bool) -> None:
        if not is_root and self._users[uid] >= MAX_CALLS_USER:
            raise _too_many(
                f"{MAX_CALLS_USER} calls of uid {uid}: end programs of this user that wait for"
                " jobs, or wait for their answers"
            )
        full = self._users.total() >= MAX_CALLS
        if full or (not is_root and self._not_roots >= MAX_CALLS_USERS):
            raise _too_many("too many calls: try again soon" + ("" if is_root else ", or as root"))


def _one_less(of: Counter[K], whose: K) -> None:
    of[whose] -= 1
    if not of[whose]:
        del of[whose]  # connections come and go


def _too_many(said: str) -> ProtocolError:
    return ProtocolError("LimitsExceeded", f"vastskyd is answering {said}")
