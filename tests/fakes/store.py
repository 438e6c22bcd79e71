"""ports.Store without a disk."""

import copy


class MemoryStore:
    """Keeps `records` past any number of daemons: hand the same dict to the next one.

    `commits` counts them. What goes wrong with the file under them is said by `damage`,
    `missing` and `unreadable`; `kept` are the records that were set aside.
    """

    def __init__(self, records: dict[str, dict[str, bytes]] | None = None) -> None:
        self.records = {} if records is None else records
        self.commits = 0
        self.damage = ""
        self.missing = False
        self.unreadable = ""
        self.kept: list[dict[str, dict[str, bytes]]] = []

    def lose(self) -> None:
        """Somebody removes the file."""
        self.records.clear()
        self.missing = True
        self.commits += 1

    def set_aside(self) -> str:
        if self.missing:
            return ""
        self.kept.append(copy.deepcopy(self.records))
        self.lose()
        self.damage = ""
        return f"kept-{len(self.kept)}"

    def renew(self, puts: tuple[tuple[str, str, bytes], ...]) -> None:
        self.missing = False
        self.commit(puts, ())

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
