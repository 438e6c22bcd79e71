"""The manager's way to its store: while nothing can be written there, the manager goes on by what
it has, and says so."""

import logging

import msgspec

from vastskyd.core.answers import ClusterStatus
from vastskyd.core.errors import NoSpaceError
from vastskyd.core.model import Generation
from vastskyd.core.state import Draft, load
from vastskyd.ports import Store

log = logging.getLogger(__name__)


class Ledger:
    """`trouble` says why the last commit was not done; empty if it was."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trouble = ""

    def load(self) -> Draft:
        return Draft(load(self._store.load()))

    def begin(self, state: Draft) -> int:
        """The number of this life of the manager. NoSpaceError: it cannot begin yet."""
        before = state.generation.get("manager")
        number = 1 if before is None else before.number + 1
        draft = Draft(state)
        draft.put(Generation(number=number))
        self.commit(draft)
        state.generation = draft.generation
        return number

    def commit(self, draft: Draft) -> None:
        """Durable when it returns. NoSpaceError: nothing of it was done."""
        try:
            self._store.commit(draft.puts(), draft.deletes())
        except NoSpaceError as error:
            if not self.trouble:
                log.error("nothing can be recorded: %s", error.message)
            self.trouble = error.message
            raise
        self.trouble = ""
        draft.settle()

    def try_again(self, state: Draft) -> None:
        """Whether there is room by now, asked with a record that says nothing new."""
        probe = Draft(state)
        for record in state.generation.values():
            probe.delete(record)
            probe.put(record)
        self.commit(probe)

    def told(self, status: ClusterStatus) -> ClusterStatus:
        """The status, with the trouble in it."""
        if not self.trouble:
            return status
        said = f"manager {status.manager} cannot record anything: {self.trouble}"
        return msgspec.structs.replace(status, health="critical", problems=(said, *status.problems))
