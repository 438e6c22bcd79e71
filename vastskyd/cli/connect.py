"""The one place that imports the client: asyncio and dbus-next cost more to load than most
commands take, and neither --help nor a wrong usage needs them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vastskyd.cli.client import Client


def connect() -> "Client":
    """A client of this host's vastskyd, to be used in a `with`."""
    from vastskyd.cli.client import Client  # noqa: PLC0415

    return Client()
