"""The one place that imports the client: asyncio and dbus-next cost more to load than most
commands take, and neither --help nor a wrong usage needs them."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vastskyd.cli.client import Client


def connect(timeout_s: float | None = None) -> "Client":
    """A client of this host's vastskyd, to be used in a `with`. `timeout_s`: for each question, if
    that is less than vastskyd itself takes to answer, or to say why not."""
    from vastskyd.cli.client import CALL_TIMEOUT_S, Client  # noqa: PLC0415

    return Client(timeout_s=min(timeout_s or CALL_TIMEOUT_S, CALL_TIMEOUT_S), may_ask=_may_ask())


def _may_ask() -> bool:
    """For a password: unless --no-ask-password stands before the command."""
    return not click.get_current_context().find_root().params["no_ask_password"]
