"""vastskyctl top: its page on a recorded console, its rates, and itself on a terminal."""

import io
import re
import signal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.cli.conftest import Run
from tests.cli.test_terminal import Terminal
from tests.dbus.fake_cluster import DISKS, EVENTS, GIB, NODES, STATUS, VOLUMES, FakeCluster, job
from vastskyd.cli.dashboard import RATE_SAMPLES, Rates, Snapshot, allot, page
from vastskyd.core.errors import UnreachableError
from vastskyd.core.ids import DiskId, JobId, NodeId
from vastskyd.core.model import Job, JobKind


def snapshot(time_s: float = 0.0, *jobs: Job, **other: object) -> Snapshot:
    of = {"status": STATUS, "nodes": NODES, "disks": DISKS, "volumes": VOLUMES, "events": EVENTS}
    return Snapshot(time_s=time_s, jobs=jobs, **(of | other))  # type: ignore[arg-type]


def copying(done_bytes: int, message: str = "") -> Job:
    return job(JobKind.REBUILD, done_bytes=done_bytes, total_bytes=100 * GIB, message=message)


def drawn(of: Snapshot, rates: Rates | None = None, *, height: int = 40, note: str = "") -> str:
    console = Console(record=True, file=io.StringIO(), width=100, height=height)
    console.print(page(of, rates or Rates(), height=height, note=note))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def test_a_page() -> None:
    rates = Rates()
    rates.see(snapshot(0, copying(GIB)))
    now = snapshot(10, copying(3 * GIB, message="[red]x"))
    rates.see(now)
    said = re.sub(r"\d{4}-\d\d-\d\d \d\d:", "2023-11-14 22:", drawn(now, rates))  # any time zone
    assert said == (
        "demo  degraded  nodes 2/3  disks 2/2  volumes 1/2 redundant"
        "  3.0 GiB of 8.0 EiB free\n"
        """\
  volume data has lost a leg on store2

NODE    STATE              ROLES                 RACK
store2  unreachable 5 min  storage
m1      online             manager,storage,head  a

DISK         STATE   SIZE       USED                        MESSAGE
m1:/dev/sdb  online  100.0 GiB  ━━━━━━━━━━            50 %

VOLUME  HEALTH    SIZE     HEAD  STATE     MESSAGE
data    degraded  4.0 GiB  m1    attached  rebuilding
empty   unknown   1.0 GiB        creating

JOB           DONE                        RATE         LEFT   MESSAGE
rebuild data  ╸                      3 %  204.8 MiB/s  8 min  [red]x

TIME                 SEVERITY  EVENT
2023-11-14 22:13:25  warning   thing 5 happened
2023-11-14 22:13:24  warning   thing 4 happened
2023-11-14 22:13:23  warning   thing 3 happened
2023-11-14 22:13:22  warning   thing 2 happened
2023-11-14 22:13:21  warning   thing 1 happened"""
    )


def test_what_is_old_says_so() -> None:
    assert drawn(snapshot(), note="this is from 4 s ago").splitlines()[2] == "this is from 4 s ago"


def test_without_anything_there_are_no_empty_tables() -> None:
    nothing = snapshot(nodes=(), disks=(), volumes=(), events=())
    assert len(drawn(nothing).splitlines()) == 2


def test_what_needs_attention_is_what_there_is_room_for() -> None:
    well = tuple(msgspec.structs.replace(NODES[0], id=NodeId(f"n{n}")) for n in range(30))
    disks = tuple(msgspec.structs.replace(DISKS[0], id=DiskId(f"d{n}")) for n in range(30))
    failed = msgspec.structs.replace(DISKS[0], path="/dev/zz", state="failed")
    said = drawn(snapshot(nodes=(*well, NODES[1]), disks=(*disks, failed)), height=24)
    assert "store2" in said
    assert "m1:/dev/zz" in said
    assert "more\n" in said


def test_many_problems_leave_room_for_the_rest() -> None:
    problems = tuple(f"problem {n}" for n in range(99))
    status = msgspec.structs.replace(STATUS, problems=problems)
    lines = drawn(snapshot(status=status), height=24).splitlines()
    assert len(lines) <= 24
    assert "  ... 92 more problems" in lines
    assert any("NODE" in line for line in lines)


@given(
    st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 9),
    st.integers(4, 60),
)  # fmt: skip
def test_a_page_fits(nodes: int, disks: int, volumes: int, problems: int, height: int) -> None:
    of = snapshot(
        status=msgspec.structs.replace(STATUS, problems=("p",) * problems),
        nodes=NODES[:1] * nodes,
        disks=DISKS[:1] * disks,
        volumes=VOLUMES[:1] * volumes,
    )
    lines = drawn(of, height=height, note="x").splitlines()
    assert len(lines) <= height


@given(st.lists(st.integers(0, 50), max_size=6), st.integers(-5, 100))
def test_room_is_shared(wanted: list[int], room: int) -> None:
    given_ = allot(wanted, room)
    assert sum(given_) == min(sum(wanted), max(room, 0))
    assert all(0 <= got <= want for got, want in zip(given_, wanted, strict=True))
    cut = [got for got, want in zip(given_, wanted, strict=True) if got < want]
    assert not cut or max(given_) <= min(cut) + 1, "nobody has more than who went short"


@given(st.integers(0, GIB), st.integers(2, 3 * RATE_SAMPLES))
def test_a_steady_rate_is_what_it_is(speed: int, looks: int) -> None:
    rates = Rates()
    assert rates.of(JobId("j1")) is None
    for look in range(looks):
        rates.see(snapshot(2.0 * look, copying(2 * look * speed)))
    assert rates.of(JobId("j1")) == pytest.approx(speed)


def test_a_rate_is_of_what_was_just_seen() -> None:
    rates = Rates()
    for look in range(RATE_SAMPLES):
        rates.see(snapshot(look, copying(look * GIB)))
    rates.see(snapshot(99, copying(0)))
    assert rates.of(JobId("j1")) is None, "it began anew"
    rates.see(snapshot(100, copying(7)))
    assert rates.of(JobId("j1")) == 7
    rates.see(snapshot(101))
    rates.see(snapshot(102, copying(9)))
    assert rates.of(JobId("j1")) is None, "ended jobs are forgotten"


def test_on_a_terminal(cluster: FakeCluster) -> None:
    with Terminal("top") as terminal:
        terminal.read_until("thing 1 happened")
        assert "\x1b[?1049h" in terminal.said
        cluster.fault = UnreachableError("the manager did not answer")
        terminal.read_until("the manager did not answer: this is from")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130
        assert "\x1b[?1049l" in terminal.said, "the screen is as it was before"
        assert "Traceback" not in terminal.said


def test_in_a_pipe_it_says_what_to_use(run: Run, cluster: FakeCluster) -> None:
    done = run("top")
    assert done.exit_code == 2
    assert "vastskyctl status --watch" in done.stderr
    assert not cluster.asked
