"""ports.Store without a disk."""

import copy


class MemoryStore:
    """Keeps `records` past any number of daemons: hand the same dict to the next one.

    `commits` counts them.
    """

    def __init__(self, records: dict[str, dict[str, bytes]] | None = None) -> None:
        self.records = {} if records is None else records
        self.commits = 0

    def load(self) -> dict[str, dict[str, bytes]]:
        return copy.deepcopy({kind: keys for kind, keys in self.records.items() if keys})

    def commit(
        self, puts: tuple[tuple[str, str, bytes], ...], deletes: tuple[tuple[str, str], ...]
    ) -> None:
        self.commits += 1
        for kind, key in deletes:
            self.records.get(kind, {}).pop(key, None)
        for kind, key, content in puts:
            self.records.setdefault(kind, {})[key] = bytes(content)
