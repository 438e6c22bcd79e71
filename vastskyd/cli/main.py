"""vastskyctl: the commands put together, and how each ends."""

import io
import os
import sys
from typing import Any

import click

from vastskyd.cli import cluster, config, disk, events, exits, job, node, status, top, volume
from vastskyd.cli.ending import ended_in_order
from vastskyd.cli.output import say
from vastskyd.core.errors import VastskyError


class Program(click.Group):
    """Errors by meaning become a sentence, a hint and an exit code."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Also what --help and --version print may find no room."""
        _open_streams()
        try:
            with ended_in_order():
                return super().main(*args, **more)
        except OSError as error:  # not that nobody reads on: click ends that quietly
            say(f"vastskyctl: the output cannot be written: {error.strerror}", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it is not tried again
            sys.exit(exits.FAILED)

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # of a terminal that does not know all letters
        try:
            return super().invoke(ctx)
        except VastskyError as error:
            exits.tell(error)
            ctx.exit(exits.exit_code(error))
        except KeyboardInterrupt:
            ctx.exit(exits.INTERRUPTED)


def _open_streams() -> None:
    """One that was closed reads and writes nothing. In the order of their numbers: else what is
    opened next would have that of one, and get what is said to people."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exits.HELP,
)
@click.option("--no-ask-password", is_flag=True, help="Do not ask for a password on the terminal.")
@click.version_option(package_name="vastskyd", prog_name="vastskyctl")
def main(no_ask_password: bool) -> None:
    """Show and change a Vastsky cluster, from any of its nodes.

    Commands speak to the vastskyd of this host. Those that change something wait until it is so.
    All know --help, and all but top --json.

    \b
    A first cluster:
      vastskyctl cluster init --name demo --address 192.0.2.10
      vastskyctl cluster token     (then on each other host: vastskyctl join TOKEN --address ...)
      vastskyctl disk enrol store1:/dev/sdb
      vastskyctl volume create data 100G
      vastskyctl volume attach data head1     (it is /dev/vastsky/data there)
    """


main.add_command(status.status)
main.add_command(top.top)
main.add_command(node.node)
main.add_command(disk.disk)
main.add_command(volume.volume)
main.add_command(job.job)
main.add_command(events.events)
main.add_command(config.config)
main.add_command(cluster.cluster)
main.add_command(cluster.join)
