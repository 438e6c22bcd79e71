"""vastskyctl top: its page on a recorded console, its rates, and itself on a terminal."""

import io
import re
import signal
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tests.cli.conftest import Run
from tests.cli.test_terminal import Terminal
from tests.dbus.fake_cluster import DISKS, EVENTS, GIB, NODES, STATUS, VOLUMES, FakeCluster, job
from vastskyd.cli.dashboard import RATE_SAMPLES, Rates, Snapshot, page, share
from vastskyd.core.errors import UnreachableError
from vastskyd.core.ids import DiskId, JobId, NodeId
from vastskyd.core.model import Job, JobKind, Record

T = TypeVar("T", bound=Record)


def snapshot(time_s: float = 0.0, *jobs: Job, **other: object) -> Snapshot:
    of = {"status": STATUS, "nodes": NODES, "disks": DISKS, "volumes": VOLUMES, "events": EVENTS}
    return Snapshot(time_s=time_s, jobs=jobs, **(of | other))  # type: ignore[arg-type]


def copying(done_bytes: int, message: str = "") -> Job:
    begun = job(JobKind.REBUILD, done_bytes=done_bytes, total_bytes=100 * GIB, message=message)
    return msgspec.structs.replace(begun, segment=3)


def drawn(
    of: Snapshot,
    rates: Rates | None = None,
    *,
    columns: int = 100,
    height: int = 40,
    note: str = "",
) -> str:
    console = Console(record=True, file=io.StringIO(), width=columns, height=height)
    console.print(page(of, rates or Rates(), columns=columns, height=height, note=note))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def test_a_page() -> None:
    rates = Rates()
    rates.see(snapshot(0, copying(GIB)))
    now = snapshot(10, copying(3 * GIB, message="[red]x"))
    rates.see(now)
    said = re.sub(r"\d{4}-\d\d-\d\d \d\d:", "2023-11-14 22:", drawn(now, rates))  # any time zone
    assert said == (
        """\
demo  degraded  volumes 1/2 redundant  nodes 2/3  disks 2/2  3.0 GiB of 8.0 EiB free
  volume data has lost a leg on store2

VOLUME  HEALTH    SIZE     HEAD  STATE     MESSAGE
empty   unknown   1.0 GiB        creating
data    degraded  4.0 GiB  m1    attached  rebuilding

JOB           DONE                        LEFT   RATE         MESSAGE
rebuild data  3 %   ╸┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄  8 min  204.8 MiB/s  segment 3: [red]x

NODE    STATE              ROLES                 RACK
store2  unreachable 5 min  storage
m1      online             manager,storage,head  a

DISK         STATE   SIZE       USED                        MESSAGE
m1:/dev/sdb  online  100.0 GiB  50 %  ━━━━━━━━━━┄┄┄┄┄┄┄┄┄┄

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
    assert "  ... 94 more problems" in lines
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
    given_ = share([wanted], room)
    assert sum(given_) == min(sum(wanted), max(room, 0))
    assert all(0 <= got <= want for got, want in zip(given_, wanted, strict=True))
    cut = [at for at, want in enumerate(wanted) if given_[at] < want]
    assert all(given_[at] >= got for at in cut for got in given_[at:]), "the first have more"


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=5), st.integers(0, 60))
def test_who_needs_more_comes_after_what_all_need(wants: list[tuple[int, int]], room: int) -> None:
    first = [least for least, _ in wants]
    given_ = share([first, [least + more for least, more in wants]], room)
    lacking = any(got < least for got, least in zip(given_, first, strict=True))
    assert not lacking or all(got <= least for got, least in zip(given_, first, strict=True))


# None of them is in another, nor in what else is said.
NAMES = st.from_regex(r"v[0-9-]{10,60}e", fullmatch=True)
PATHS = st.from_regex(r"/dev/disk/by-id/v[0-9-]{0,60}[a-f]{6}", fullmatch=True)
TEXTS = st.text("AB C/:\u540d\u0301\t\x1b", max_size=120)  # wide, narrow, and no text at all
HEALTHS = ("redundant", "rebuilding", "degraded", "stalled", "unavailable", "unknown")


def views(one: T, by: str, **members: st.SearchStrategy[object]) -> st.SearchStrategy[list[T]]:
    many = st.builds(msgspec.structs.replace, st.just(one), **members)
    return st.lists(many, max_size=8, unique_by=lambda each: getattr(each, by)[-6:])


SNAPSHOTS = st.builds(
    lambda jobs, texts, **others: snapshot(
        1.0, *jobs, **{name: tuple(some) for name, some in others.items()},
        status=msgspec.structs.replace(STATUS, problems=tuple(texts)),
        events=tuple(msgspec.structs.replace(EVENTS[0], message=text) for text in texts),
    ),
    texts=st.lists(TEXTS, max_size=4),
    volumes=views(VOLUMES[0], "name", name=NAMES, health=st.sampled_from(HEALTHS), message=TEXTS,
                  head=st.just("m1")),
    nodes=views(NODES[1], "id", id=NAMES,
                state=st.sampled_from(("online", "unreachable", "joining"))),
    disks=views(DISKS[0], "path", node=NAMES, path=PATHS, message=TEXTS,
                state=st.sampled_from(("online", "failed", "failing", "unreachable"))),
    jobs=views(copying(GIB), "about", about=NAMES, message=TEXTS,
               kind=st.sampled_from((JobKind.REBUILD, JobKind.CREATE))),
)  # fmt: skip


@dataclass
class Shown:
    """A section as it was drawn: its lines one after the other, without what breaks names apart."""

    text: str
    hidden: int
    hidden_urgent: int


def section(lines: list[str], title: str) -> Shown | None:
    titles = ("VOLUME ", "JOB ", "NODE ", "DISK ", "TIME ")
    starts = [at for at, line in enumerate(lines) if line.startswith(titles)]
    for at, end in pairwise([*starts, len(lines)]):
        if lines[at].startswith(f"{title} "):
            said = "".join(lines[at + 1 : end])
            more = re.search(r"\.\.\. (\d+) more(?:, (\d+) of them)?", said)
            hidden, urgent = more.groups(default="0") if more else ("0", "0")
            return Shown(said, int(hidden), int(urgent))
    return None


Told = list[tuple[bool, tuple[str, ...]]]  # of each: is it urgent, and what is said of it


def told(of: Snapshot) -> dict[str, Told]:
    return {
        "VOLUME": [(v.health != "redundant", (v.name, v.health)) for v in of.volumes],
        "JOB": [(j.kind is JobKind.REBUILD, (f"{j.kind} {j.about}", "1 %")) for j in of.jobs],
        "NODE": [(n.state != "online", (n.id, n.state)) for n in of.nodes],
        "DISK": [(d.state != "online", (d.path[-6:], f"{d.node}:", d.state)) for d in of.disks],
    }


@given(SNAPSHOTS, st.integers(60, 220), st.integers(4, 70))
def test_names_and_states_are_whole_and_what_is_unwell_is_first(
    of: Snapshot, columns: int, height: int
) -> None:
    lines = drawn(of, columns=columns, height=height).splitlines()
    assert len(lines) <= height
    assert all(cell_len(line) <= columns for line in lines)
    well_shown = urgent_hidden = 0
    for title, rows in told(of).items():
        shown = section(lines, title)
        if shown is None:
            continue
        there = [row for row in rows if row[1][0] in shown.text]
        assert all(word in shown.text for row in there for word in row[1])
        assert len(there) == len(rows) - shown.hidden, "each row that is shown, whole"
        urgent = sum(each for each, _ in rows)
        urgent_there = sum(each for each, _ in there)
        assert urgent - urgent_there == shown.hidden_urgent
        well = len(there) - urgent_there
        well_shown += well if shown.hidden or well > 1 else 0  # one takes the line "1 more"
        urgent_hidden += shown.hidden_urgent
        places = [(shown.text.index(words[0]), not each) for each, words in there]
        order = [well for _, well in sorted(places)]
        assert order == sorted(order)
    assert not (well_shown and urgent_hidden)


@pytest.mark.parametrize("columns", [60, 80, 100, 132, 200])
def test_the_worst_volume_is_first_and_the_free_space_last(columns: int) -> None:
    many = tuple(
        msgspec.structs.replace(VOLUMES[0], name=f"v-{health}", health=health) for health in HEALTHS
    )
    status = msgspec.structs.replace(STATUS, name="a-cluster-with-quite-a-name", health="critical")
    said = drawn(snapshot(volumes=many, status=status), columns=columns)
    names = re.findall(r"^v-(\w+)", said, re.M)
    assert names == ["unavailable", "stalled", "unknown", "degraded", "rebuilding", "redundant"]
    first = said.splitlines()[0]
    assert first.startswith("a-cluster-with-quite-a-name  critical  volumes 1/2")
    assert ("free" in first) == (columns >= 100)


def test_why_is_told_where_there_is_room_for_it() -> None:
    """On more lines, as long as none of what is not well has to go for it."""
    why = "segment 0: writes wait for store2:/dev/disk/by-id/ata-WDC_WD30EFRX-68EUZN0_WD-WCC4N0"
    stalled = [
        msgspec.structs.replace(VOLUMES[0], name=f"v{n}", health="stalled", message=why)
        for n in range(6)
    ]
    loose = drawn(snapshot(volumes=(stalled[0],)), columns=80)
    assert "_WD-WCC4N0" in loose
    tight = drawn(snapshot(volumes=tuple(stalled)), columns=80, height=20)
    assert tight.count("stalled") == 6
    assert "_WD-WCC4N0" not in tight
    assert "\n\n" not in tight


def test_the_managers_rate_is_shown_before_one_was_seen() -> None:
    fast = msgspec.structs.replace(copying(50 * GIB), rate_bytes=GIB)
    assert re.search(r"50 % .* 50 s +1\.0 GiB/s", drawn(snapshot(0, fast)))


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


def test_the_screen_comes_back_also_from_who_is_ended(cluster: FakeCluster) -> None:
    """By timeout(1), say: its status is that of one who was."""
    with Terminal("top") as terminal:
        terminal.read_until("thing 1 happened")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.finish() == -signal.SIGTERM
        assert "\x1b[?1049l" in terminal.said
        assert terminal.said.rindex("\x1b[?25h") > terminal.said.rindex("\x1b[?25l"), "the cursor"
        assert "Traceback" not in terminal.said


def test_in_a_pipe_it_says_what_to_use(run: Run, cluster: FakeCluster) -> None:
    done = run("top")
    assert done.exit_code == 2
    assert "vastskyctl status --watch" in done.stderr
    assert not cluster.asked
