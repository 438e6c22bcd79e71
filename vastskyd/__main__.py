"""vastskyd: the program that systemd starts."""

import argparse
import asyncio
import faulthandler
import logging
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from vastskyd import __version__
from vastskyd.config.files import load
from vastskyd.config.settings import DEFAULT_PATH, Config
from vastskyd.core.answers import LocalView
from vastskyd.core.errors import InvalidError, VastskyError
from vastskyd.dbus.server import keep_serving
from vastskyd.kernel import apart
from vastskyd.kernel.calls import CallsApart
from vastskyd.kernel.leftovers import end_leftovers
from vastskyd.kernel.memory import hold_memory
from vastskyd.roles.credentials import Credentials
from vastskyd.roles.daemon import Host, let_go
from vastskyd.systemd import journal_handler, notify, watchdog_interval_s

log = logging.getLogger("vastskyd")


def main() -> None:
    """Exit status: 0 stopped, 1 failed, 2 the configuration is wrong."""
    parser = argparse.ArgumentParser(prog="vastskyd", description="Vastsky's daemon.")
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"instead of {DEFAULT_PATH}")
    parser.add_argument("--check-config", action="store_true", help="check it and exit")
    parser.add_argument(
        "--let-go",
        action="store_true",
        help="take this host's volumes down: for vastsky-let-go.service, when the host shuts down",
    )
    parser.add_argument("--version", action="version", version=f"vastskyd {__version__}")
    arguments = parser.parse_args()
    if arguments.let_go:
        _log_to_journal(Config())
        hold_memory()
        asyncio.run(_let_go(CallsApart(apart.start())))
        return
    read = partial(load, arguments.config or DEFAULT_PATH, needed=arguments.config is not None)
    try:
        loaded = read()
    except InvalidError as error:
        sys.stderr.write(f"{error.message}\n")
        sys.exit(2)
    if arguments.check_config:
        return
    _log_to_journal(loaded)
    faulthandler.enable()  # what the watchdog ends says where it was
    for refused in hold_memory():
        log.warning("while memory is short, volumes may wait for vastskyd: %s", refused)
    if left := end_leftovers():
        log.warning("of an earlier vastskyd, ended now: %s", ", ".join(left))
    calls = CallsApart(apart.start())
    try:
        asyncio.run(_main(loaded, read, calls))
    except* VastskyError as group:
        for leaf in _leaves(group):
            log.critical("%s", leaf)
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _log_to_journal(loaded: Config) -> None:
    logging.basicConfig(
        level=loaded.log_level.upper(), handlers=[journal_handler()], format="%(message)s"
    )


async def _let_go(calls: CallsApart) -> None:
    async with calls:
        await let_go(calls)


async def _main(loaded: Config, read: Callable[[], Config], calls: CallsApart) -> None:
    host = Host(loaded, calls, Credentials.given())
    life = asyncio.create_task(_live(host, calls))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, life.cancel)
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(host, read))
    try:
        await life
    except asyncio.CancelledError:
        log.info("stopped; attached volumes go on")


def _reload(host: Host, read: Callable[[], Config]) -> None:
    """systemd waits for the answer (Type=notify-reload). One mistake, and nothing changes."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
    try:
        _read_anew(host, read)
    finally:
        notify("READY=1")


def _read_anew(host: Host, read: Callable[[], Config]) -> None:
    try:
        fresh = read()
    except InvalidError as error:
        for mistake in error.message.splitlines():
            log.error("%s", mistake)
        log.error("the configuration was not reloaded: all goes on as it was")
    else:
        logging.getLogger().setLevel(fresh.log_level.upper())
        host.reconfigure(fresh)
        log.info("configuration reloaded")


async def _live(host: Host, calls: CallsApart) -> None:
    """Ready once it is on the bus, if there is one: who starts it by a call is answered then."""
    on_bus = asyncio.Event()
    try:
        async with calls, asyncio.TaskGroup() as group:
            group.create_task(calls.ended(), name="kernel calls")
            group.create_task(keep_serving(host, tried=on_bus.set), name="bus")
            group.create_task(host.run(), name="host")
            group.create_task(_keep_watchdog(host), name="watchdog")
            await on_bus.wait()
            notify("READY=1")
    finally:
        notify("STOPPING=1")


async def _keep_watchdog(host: Host) -> None:
    """Tells systemd that the event loop turns and that its roles get on, and what this host is. Of
    a role that does not, systemd hears no more, and starts vastskyd anew."""
    interval_s = watchdog_interval_s()
    told: set[str] = set()
    while True:
        stuck = host.stuck()
        for name in stuck.keys() - told:
            log.critical("%s: no step for %.0f s; left to systemd's watchdog", name, stuck[name])
        told = set(stuck)
        if stuck:
            notify(f"STATUS=stuck: {', '.join(sorted(stuck))}")
        else:
            notify(f"WATCHDOG=1\nSTATUS={_status(host.local())}")
        await asyncio.sleep(interval_s)


def _status(view: LocalView) -> str:
    where = f"node {view.node} of {view.cluster_name}" if view.node else "in no cluster"
    return where + ("" if not view.node or view.connected else ", manager unreachable")


if __name__ == "__main__":
    main()
