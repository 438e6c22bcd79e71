"""What systemd passes a host in confidence: systemd.exec(5), "Credentials".

They may come from the machine's firmware or its image, encrypted for its TPM or not, and are in
memory that is not swapped. All are optional.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from vastskyd.core.errors import DamagedError

JOIN_TOKEN = "vastsky.join-token"  # noqa: S105 — its name
ADDRESSES = "vastsky.addresses"
NODE_KEY = "vastsky.node-key"

# A token, a few addresses, a key: 2 KiB at most.
_MOST_BYTES = 65536


@dataclass(frozen=True)
class Credentials:
    """`directory` None: there are none."""

    directory: Path | None

    @staticmethod
    def given() -> "Credentials":
        named = os.environ.get("CREDENTIALS_DIRECTORY", "")
        return Credentials(Path(named) if named else None)

    def join_token(self) -> str:
        """Empty: none."""
        return self._text(JOIN_TOKEN)

    def addresses(self) -> tuple[str, ...]:
        """This host's, one for each data network; none: those of the configuration."""
        return tuple(self._text(ADDRESSES).replace(",", " ").split())

    def node_key(self) -> str:
        """This host's private key, as PEM. Empty: none."""
        return self._text(NODE_KEY)

    def _text(self, name: str) -> str:
        if self.directory is None:
            return ""
        try:
            with (self.directory / name).open("rb") as file:
                return file.read(_MOST_BYTES).decode("ascii").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise DamagedError(f"the credential {name} cannot be read: {error}") from error
