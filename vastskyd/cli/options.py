"""Options and argument types that several commands share."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click
import msgspec
from click.core import ParameterSource

from vastskyd.core.api import Act
from vastskyd.core.errors import InvalidError
from vastskyd.core.model import JOINING_ROLES, Role
from vastskyd.core.units import parse_duration_s, parse_size

A = TypeVar("A", bound=Act)
F = TypeVar("F", bound=Callable[..., Any])


def size_bytes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Callback: bytes of "512M", "10G"."""
    try:
        return parse_size(value)
    except InvalidError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}", ctx, param) from None


def duration_s(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Callback: seconds of "90s", "30m", "1h", "2d"."""
    try:
        return parse_duration_s(value)
    except InvalidError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}", ctx, param) from None


def not_empty(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Callback: no name at all would be taken for any."""
    if not value:
        raise click.BadParameter("it is empty", ctx, param)
    return value


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Return once the job has begun; see `vastskyctl job list`."
)


@dataclass(frozen=True)
class Manner:
    """How a change is to be asked for. `key`: asked again under the same one, after no answer, it
    is done once."""

    dry_run: bool = False
    key: str = ""

    def of(self, request: A, part: str = "") -> A:
        """The request in this manner; `part` tells apart several of one command."""
        key = f"{self.key}:{part}" if self.key and part else self.key
        return msgspec.structs.replace(request, dry_run=self.dry_run, idempotency_key=key)

    def of_each(self, requests: Mapping[str, A]) -> dict[str, A]:
        """One alone has the key as it was given; of several each has its own."""
        alone = len(requests) == 1
        return {name: self.of(each, "" if alone else name) for name, each in requests.items()}


def _key(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Callback: a variable that is not set is no key."""
    if not value and ctx.get_parameter_source("key") is ParameterSource.COMMANDLINE:
        raise click.BadParameter("it is empty: leave it out, or give one", ctx, param)
    return value


def act_options(command: Callable[..., None]) -> Callable[..., None]:
    """--dry-run and --idempotency-key, as `manner`."""

    @click.option(
        "--dry-run", is_flag=True, help="Only check whether it can be done; change nothing."
    )
    @click.option(
        "--idempotency-key", "key", default="", metavar="KEY", callback=_key,
        help="For scripts: asked again under the same KEY, it is done once.",
    )  # fmt: skip
    @wraps(command)
    def with_manner(*args: object, dry_run: bool, key: str, **options: object) -> None:
        command(*args, manner=Manner(dry_run, key), **options)

    return with_manner


def _roles_option(roles: Iterable[Role]) -> Callable[[F], F]:
    return click.option(
        "--role", "roles", multiple=True, type=click.Choice([role.value for role in roles]),
        help="A role of the node; may be given more than once.",
    )  # fmt: skip


roles_option = _roles_option(Role)
# The manager is there before anybody joins, and stays the only one.
joining_roles_option = _roles_option(JOINING_ROLES)
addresses_option = click.option(
    "--address", "addresses", multiple=True, metavar="ADDRESS",
    help="An address of this host in the data network; once for each network, in the same order"
    " on every host. [default: as configured]",
)  # fmt: skip
rack_option = click.option(
    "--rack", default="", metavar="RACK",
    help="Where it stands: its failure domain. [default: as configured]",
)  # fmt: skip
node_option = click.option(
    "--node", default="", metavar="NODE", help="The node's name. [default: the host's]"
)


def roles_of(words: tuple[str, ...]) -> tuple[Role, ...]:
    return tuple(Role(word) for word in words)
