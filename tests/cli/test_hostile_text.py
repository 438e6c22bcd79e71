"""Names of programs, disks and hosts come from elsewhere: on a terminal they are text, no more."""

import re
from collections.abc import Callable

import msgspec
import pytest
from click.testing import Result
from rich.console import Console

from tests.cli.test_terminal import Terminal
from tests.dbus.fake_cluster import DISKS, EVENTS, GIB, STATUS, VOLUMES, FakeCluster, job
from vastskyd.cli.dashboard import Rates, Snapshot, page
from vastskyd.cli.output import plain
from vastskyd.core.errors import BusyError
from vastskyd.core.model import JobState

Run = Callable[..., Result]

HOSTILE = "fio\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n[/] \x1b[31mtail"
NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_what_is_no_text_is_shown_as_such() -> None:
    assert not NOT_TEXT.search(plain(HOSTILE).replace("\x1b[31m", ""))
    assert plain("déjà vu ✓ \x1b[31mred\x1b[0m") == "déjà vu ✓ \x1b[31mred\x1b[0m", (
        "our own colours"
    )
    assert "fio" in plain(HOSTILE)
    assert "tail" in plain(HOSTILE)


@pytest.mark.parametrize(
    "arguments", [("volume", "list"), ("volume", "show", "data"), ("events",), ("job", "list")]
)
def test_in_tables(cluster: FakeCluster, run: Run, arguments: tuple[str, ...]) -> None:
    cluster.volumes = (msgspec.structs.replace(VOLUMES[0], message=HOSTILE),)
    cluster.events = (msgspec.structs.replace(EVENTS[0], message=HOSTILE),)
    cluster.running = (job(message=HOSTILE),)
    done = run(*arguments)
    assert done.exit_code == 0
    assert not NOT_TEXT.search(done.output)
    (line,) = [line for line in done.output.splitlines() if "fio" in line]
    assert "tail" in line, "a line break in it does not begin another row"


def test_in_errors(cluster: FakeCluster, run: Run) -> None:
    cluster.fault = BusyError(f"in use by {HOSTILE}", hint=HOSTILE)
    done = run("volume", "detach", "data")
    assert done.exit_code == 4
    assert not NOT_TEXT.search(done.stderr)


def test_as_json_nothing_is_lost(cluster: FakeCluster, run: Run) -> None:
    cluster.events = (msgspec.structs.replace(EVENTS[0], message=HOSTILE),)
    said = msgspec.json.decode(run("events", "--json").stdout)
    assert said["events"][0]["message"] == HOSTILE


def test_on_the_bar(cluster: FakeCluster) -> None:
    cluster.steps = [
        *(job(done_bytes=n * GIB, total_bytes=4 * GIB, message=HOSTILE) for n in range(4)),
        job(state=JobState.DONE, done_bytes=4 * GIB, total_bytes=4 * GIB),
    ]
    with Terminal("volume", "create", "x", "4G") as terminal:
        assert terminal.finish() == 0
        assert "fio" in terminal.said
        assert "owned\x07" not in terminal.said
        assert "\x1b[2J" not in terminal.said


def test_on_the_dashboard() -> None:
    console = Console(width=300, height=40, force_terminal=True)
    with console.capture() as drawn:
        console.print(
            page(
                Snapshot(
                    time_s=0.0,
                    status=msgspec.structs.replace(STATUS, problems=(HOSTILE,)),
                    nodes=(),
                    disks=(msgspec.structs.replace(DISKS[0], message=HOSTILE),),
                    volumes=(msgspec.structs.replace(VOLUMES[0], message=HOSTILE),),
                    jobs=(job(message=HOSTILE),),
                    events=(msgspec.structs.replace(EVENTS[0], message=HOSTILE),),
                ),
                Rates(),
                columns=300,
                height=40,
            )
        )
    said = drawn.get()
    assert said.count("tail") == 5
    assert not NOT_TEXT.search(re.sub(r"\x1b\[[0-9;]*m", "", said))
