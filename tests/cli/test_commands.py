"""Each command: what it asks, what it prints for people and for programs, how it ends."""

import asyncio
import os
import re
import shlex
import subprocess
import sys

import click
import msgspec
import pytest

from tests.cli.conftest import Run, runner
from tests.dbus.fake_cluster import (
    DISKS,
    EVENTS,
    GIB,
    JOIN,
    NODES,
    PLACEMENT,
    STATUS,
    VOLUMES,
    FakeCluster,
    job,
)
from vastskyd.cli import client
from vastskyd.cli.main import main
from vastskyd.core import answers, api
from vastskyd.core.errors import InvalidError, UnreachableError, from_code
from vastskyd.core.ids import JobId, NodeId
from vastskyd.core.model import Apart, Encryption, Job, JobKind, JobState, Layout, Record, Role
from vastskyd.dbus.errors import ProtocolError
from vastskyd.dbus.messages import Message
from vastskyd.dbus.server import DbusServer
from vastskyd.wire.token import parse_token


def typed(parameter: object) -> str:
    return " ".join(parameter) if isinstance(parameter, list) else ""


JSON: list[tuple[list[str], Record]] = [
    (["status"], STATUS),
    (["node", "list"], answers.NodeList(nodes=NODES)),
    (["node", "show", "store2"], NODES[1]),
    (["node", "remove", "store2"], api.Done()),
    (["volume", "list"], answers.VolumeList(volumes=VOLUMES)),
    (["volume", "show", "data"], VOLUMES[0]),
    (["job", "list"], answers.JobList(jobs=(job(done_bytes=1, total_bytes=4),))),
    (["job", "show", "j1"], job(state=JobState.DONE)),
    (["job", "wait", "j1"], job(state=JobState.DONE)),
    (["job", "cancel", "j1"], job(state=JobState.DONE)),
    (["volume", "explain", "2T"], PLACEMENT),
    (["events", "-n", "2"], answers.EventList(events=EVENTS[-2:])),
    (["events", "-n", "0"], answers.EventList(events=())),
    (["cluster", "init"], JOIN),
    (["cluster", "set", "--copies-apart", "disk"], STATUS),
    (["cluster", "token"], api.Token(token="vsky1-secret")),
    (["join", "t"], JOIN),
    (["volume", "create", "data", "1G"], job(state=JobState.DONE)),
]


@pytest.mark.parametrize(("arguments", "answer"), JSON, ids=typed)
def test_json_is_the_api_type(run: Run, arguments: list[str], answer: Record) -> None:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    assert msgspec.json.decode(done.stdout, type=type(answer)) == answer
    assert not done.stderr


def test_json_of_a_job_that_goes_on(run: Run, cluster: FakeCluster) -> None:
    cluster.steps = [job()]
    done = run("volume", "create", "data", "1G", "--no-wait", "--json")
    assert msgspec.json.decode(done.stdout, type=Job) == job()


def test_json_of_disks_leaves_out_what_the_table_does(run: Run) -> None:
    enrolled = msgspec.json.decode(run("disk", "list", "--json").stdout, type=answers.DiskList)
    assert [each.id for each in enrolled.disks] == ["d1"]
    every = msgspec.json.decode(
        run("disk", "list", "--all", "--json").stdout, type=answers.DiskList
    )
    assert len(every.disks) == len(DISKS)


ASKED: list[tuple[list[str], Record]] = [
    (["volume", "create", "data", "1.5T"],
     api.CreateVolume(name="data", size_bytes=1536 * GIB)),
    (["volume", "create", "a", "1G", "--layout", "linear"],
     api.CreateVolume(name="a", size_bytes=GIB, copies=1, layout=Layout.LINEAR)),
    (["volume", "create", "a", "1G", "--copies", "3"],
     api.CreateVolume(name="a", size_bytes=GIB, copies=3)),
    (["volume", "attach", "data", "m1"], api.AttachVolume(volume="data", head=NodeId("m1"))),
    (["volume", "attach", "data", "m1", "--force"],
     api.AttachVolume(volume="data", head=NodeId("m1"), force=True)),
    (["volume", "detach", "data"], api.DetachVolume(volume="data")),
    (["volume", "scrub", "data"], api.ScrubVolume(volume="data")),
    (["volume", "delete", "data", "--yes"], api.DeleteVolume(volume="data")),
    (["disk", "enrol", "m1", "/dev/sdb"], api.EnrolDisk(node=NodeId("m1"), path="/dev/sdb")),
    (["disk", "enrol", "m1:/dev/sdb", "--wipe"],
     api.EnrolDisk(node=NodeId("m1"), path="/dev/sdb", wipe=True)),
    (["disk", "enrol", "m1:/dev/sdb", "--failing"],
     api.EnrolDisk(node=NodeId("m1"), path="/dev/sdb", failing=True)),
    (["disk", "show", "d1"], api.ListDisks(disk="d1")),
    (["disk", "enrol", "/dev/sdb"], api.EnrolDisk(node=NodeId("m1"), path="/dev/sdb")),
    (["disk", "retire", "d1"], api.RetireDisk(disk="d1")),
    (["disk", "list", "--node", "m1"], api.ListDisks(node="m1")),
    (["volume", "explain", "1G", "--layout", "linear"],
     api.ExplainPlacement(size_bytes=GIB, copies=1, layout=Layout.LINEAR)),
    (["job", "cancel", "j1"], api.CancelJob(job=JobId("j1"))),
    (["job", "list", "--running"], api.ListJobs(running=True)),
    (["cluster", "init", "--name", "x", "--address", "a", "--address", "b", "--rack", "r",
      "--node", "n", "--role", "manager", "--role", "head", "--data-encryption", "none"],
     api.InitCluster(name="x", addresses=("a", "b"), rack="r", node="n",
                     encryption=Encryption.NONE, roles=(Role.MANAGER, Role.HEAD))),
    (["cluster", "init", "--single"], api.InitCluster(name="vastsky", single=True)),
    (["cluster", "set", "--copies-apart", "host"], api.SetCopiesApart(copies_apart=Apart.HOST)),
    (["cluster", "set", "--copies-apart", "disk"], api.SetCopiesApart(copies_apart=Apart.DISK)),
    (["cluster", "token", "--valid", "30m"],
     api.CreateToken(roles=(Role.STORAGE, Role.HEAD), valid_s=1800)),
    (["join", "t", "--address", "a", "--rack", "r", "--role", "storage"],
     api.JoinCluster(token="t", addresses=("a",), rack="r", roles=(Role.STORAGE,))),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "request_"), ASKED, ids=typed)
def test_what_is_asked(
    run: Run, cluster: FakeCluster, arguments: list[str], request_: Record
) -> None:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert cluster.wanted[0] == request_


DRY_RUNS = [
    ["volume", "create", "data", "1G", "--attach"], ["volume", "attach", "data", "m1"],
    ["volume", "detach", "data"], ["volume", "scrub", "data"], ["volume", "delete", "data"],
    ["volume", "failover", "data", "m1"], ["volume", "set", "data", "--standby", "m1"],
    ["disk", "enrol", "/dev/sdb", "--wipe"], ["disk", "retire", "d1"], ["node", "remove", "store2"],
    ["job", "cancel", "j1"], ["cluster", "set", "--copies-apart", "host"],
]  # fmt: skip


@pytest.mark.parametrize("arguments", DRY_RUNS, ids=typed)
def test_a_dry_run_asks_nobody_and_changes_nothing(
    run: Run, cluster: FakeCluster, arguments: list[str]
) -> None:
    done = run(*arguments, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "nothing was changed" in done.stdout
    acts = [each for each in cluster.asked if isinstance(each, api.Act)]
    assert [each.dry_run for each in acts] == [True]
    assert run(*arguments, "--dry-run", "--json").stdout.strip() == "{}"
    cluster.fault = from_code("Conflict", "it is not so")
    assert run(*arguments, "--dry-run").exit_code == 4


@pytest.mark.parametrize("arguments", DRY_RUNS, ids=typed)
def test_a_key_goes_along(run: Run, cluster: FakeCluster, arguments: list[str]) -> None:
    """So that a script may ask again."""
    run(*arguments, "--idempotency-key", "nightly", *(["--yes"] if _asks(arguments) else []))
    keys = [each.idempotency_key for each in cluster.wanted if isinstance(each, api.Act)]
    assert keys
    assert {key.partition(":")[0] for key in keys} == {"nightly"}
    assert len(set(keys)) == len(keys)


def test_several_disks_have_a_key_each(run: Run, cluster: FakeCluster) -> None:
    """One alone has it as it was given: with another disk it is refused."""
    run("disk", "enrol", "/dev/sdb", "--idempotency-key", "k")
    run("disk", "enrol", "/dev/sdb", "store2:/dev/sdc", "--idempotency-key", "k")
    keys = [each.idempotency_key for each in cluster.wanted if isinstance(each, api.EnrolDisk)]
    assert keys == ["k", "k:m1:/dev/sdb", "k:store2:/dev/sdc"]


def _asks(arguments: list[str]) -> bool:
    return any("--yes" in param.opts for param in _command(tuple(arguments[:2])).params)


def test_every_act_has_a_dry_run() -> None:
    others = {("cluster", "init"), ("cluster", "token"), ("join",), ("cluster", "recover"),
              ("volume", "take"), ("volume", "leave")}  # fmt: skip
    reads = {"status", "top", "list", "show", "explain", "wait", "events"}
    acts = {path for path in _commands(main) if path[-1] not in reads}
    assert {tuple(each[:2]) for each in DRY_RUNS} == acts - others


@pytest.mark.parametrize(
    "arguments",
    [["volume", "set", "data", "--no-standby"], ["job", "cancel", "j1"],
     ["cluster", "set", "--copies-apart", "host"], ["node", "remove", "store2"]],
    ids=typed,
)  # fmt: skip
def test_what_is_done_at_once_says_so(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).stdout.endswith(": done\n")


def test_several_disks_are_enrolled(run: Run, cluster: FakeCluster) -> None:
    done = run("disk", "enrol", "/dev/sdb", "store2:/dev/sdc", "--json")
    assert done.exit_code == 0, done.output
    assert len(msgspec.json.decode(done.stdout, type=answers.JobList).jobs) == 2
    assert [each for each in cluster.wanted if isinstance(each, api.EnrolDisk)] == [
        api.EnrolDisk(node=NodeId("m1"), path="/dev/sdb"),
        api.EnrolDisk(node=NodeId("store2"), path="/dev/sdc"),
    ]
    done = run("disk", "enrol", "/dev/sdb", "sdc")
    assert done.exit_code == 2
    assert "'sdc' does not name a disk" in done.stderr


def test_a_volume_is_made_and_attached_here(run: Run, cluster: FakeCluster) -> None:
    done = run("volume", "create", "data", "1G", "--attach")
    assert done.exit_code == 0, done.output
    assert [each for each in cluster.wanted if isinstance(each, api.Act)] == [
        api.CreateVolume(name="data", size_bytes=GIB),
        api.AttachVolume(volume="data", head=NodeId("m1")),
    ]
    refused = run("volume", "create", "data", "1G", "--attach", "--no-wait")
    assert refused.exit_code == 2
    done = run("volume", "create", "data", "1G", "--attach", "--json")
    both = msgspec.json.decode(done.stdout, type=answers.JobList)
    assert [job.state for job in both.jobs] == [JobState.DONE] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["volume", "create", "t1", "99999999999T"], "99999999999T is more than can be"),
        (["volume", "explain", "9E", "--copies", "2"], "9E is more than can be"),
        (["job", "wait", ""], "the name of the job is empty"),
        (["node", "remove", ""], "the name of the node is empty"),
        (["volume", "create", "t1", "1G", "--idempotency-key", ""], "it is empty: leave it out"),
        (["volume", "create", "t1", "1G", "--copies", "6"], "6 is not in the range 1<=x<=5"),
    ],
)
def test_what_cannot_be_meant_is_a_wrong_usage(
    run: Run, cluster: FakeCluster, arguments: list[str], said: str
) -> None:
    done = run(*arguments)
    assert (done.exit_code, said in done.stderr) == (2, True), done.output
    assert not cluster.changes()


def test_a_vastskyd_that_does_not_answer_is_not_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the name, and is stuck."""
    monkeypatch.setattr(client, "ALIVE_TIMEOUT_S", 0.2)

    async def never(self: DbusServer, call: Message, sender: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(DbusServer, "_answer", never)
    done = run("volume", "list")
    assert done.exit_code == 5
    assert "vastskyd is there, and does not answer" in done.stderr


def test_of_several_jobs_those_are_told_that_were_begun(run: Run, cluster: FakeCluster) -> None:
    """The first that fails ends it."""
    cluster.steps = [job(state=JobState.FAILED, message="too few legs", error_code="Conflict")]
    done = run("volume", "create", "data", "1G", "--attach", "--json")
    assert done.exit_code == 4
    assert "too few legs" in done.stderr
    (only,) = msgspec.json.decode(done.stdout, type=answers.JobList).jobs
    assert only.state is JobState.FAILED
    assert [type(each) for each in cluster.changes()] == [api.CreateVolume]
    assert run("disk", "enrol", "/dev/sdb", "/dev/sdc", "--dry-run", "--json").stdout == "{}\n"


def test_a_single_host_says_where_others_reach_it(run: Run) -> None:
    said = run("cluster", "init", "--single").stdout
    assert "hosts that join later reach it at 10.0.0.1\n" in said


@pytest.mark.parametrize("single", [["--single"], []])
def test_a_host_that_no_other_reaches_says_so(run: Run, single: list[str]) -> None:
    said = run("cluster", "init", *single, "--address", "127.0.0.1").stdout
    assert "no other host can ever join it: 127.0.0.1 leads each host to itself\n" in said
    assert "cluster token" not in said
    assert "disk enrol" in said


def test_a_token_can_come_by_pipe(run: Run, cluster: FakeCluster) -> None:
    assert run("join", "-", typed="secret\n").exit_code == 0
    assert cluster.asked == [api.JoinCluster(token="secret")]


def test_status_for_people(run: Run) -> None:
    said = run("status").stdout
    assert "Health     degraded\n" in said
    assert "Nodes      2 of 3 online\n" in said
    assert "\nProblems:\n  volume data has lost a leg on store2\n" in said
    assert "\nNotes:\n  the copies of data share hosts, and are being moved apart\n" in said
    assert "Copies     on different disks\n" in said
    assert "m1: manager, storage, head; connected to the manager" in said
    assert "\x1b" not in said


def test_tables(run: Run) -> None:
    assert run("volume", "list").stdout.splitlines() == [
        "VOLUME  SIZE     COPIES  LAYOUT  HEALTH    HEAD  STATE     MESSAGE",
        "data    4.0 GiB  2       raid1   degraded  m1    attached  rebuilding",
        "empty   1.0 GiB  1       linear  unknown   -     creating  -",
    ]
    assert run("node", "list").stdout.splitlines() == [
        "NODE    STATE              ROLES                 RACK  ADDRESSES",
        "m1      online             manager,storage,head  a     10.0.0.1,10.1.0.1",
        "store2  unreachable 5 min  storage               -     -",
    ]
    assert len(run("disk", "list").stdout.splitlines()) == 2
    assert "ext4 filesystem" in run("disk", "list", "--all").stdout


def test_a_node_shows_what_is_on_it(run: Run) -> None:
    assert run("node", "show", "m1").stdout.splitlines() == [
        "Node       m1",
        "State      online",
        "Roles      manager, storage, head",
        "Addresses  10.0.0.1, 10.1.0.1",
        "Rack       a",
        "Volumes    data (degraded)",
        "",
        "DISK      SIZE       FREE      STATE   VOLUMES",
        "/dev/sdb  100.0 GiB  50.0 GiB  online  data",
    ]
    refused = run("node", "show", "nosuch")
    assert (refused.exit_code, "there is no node nosuch" in refused.stderr) == (3, True)


def test_a_disk_shows_what_it_says_of_itself(run: Run) -> None:
    shown = run("disk", "show", "d1").stdout
    for said in ("Volumes       data", "Health        passed", "Wear          93 %",
                 "Reallocated   12 sectors", "Powered on    48000 h (2000 d)",
                 "Warnings      its reallocated sectors grew from 4 to 12"):  # fmt: skip
        assert said in shown, shown
    assert "Pending" not in shown
    view = msgspec.json.decode(run("disk", "show", "d1", "--json").stdout, type=answers.DiskView)
    assert view.smart == DISKS[0].smart
    assert "25 %" in run("job", "list").stdout


def test_a_volume_is_a_tree(run: Run) -> None:
    assert run("volume", "show", "data").stdout.splitlines()[-3:] == [
        "Segment 0  4.0 GiB",
        "├─ m1      /dev/sdb  in-sync",
        "└─ store2  /dev/sdb  rebuilding  25 %, slow, unreachable",
    ]
    assert "Volume  empty (v2)" in run("volume", "show", "v2").stdout
    scrubbed = "8.0 KiB differed and were repaired from the majority"
    assert re.search(rf"^Scrubbed +20.+: {scrubbed}$", run("volume", "show", "data").stdout, re.M)


def test_an_explanation_is_a_table(run: Run) -> None:
    assert run("volume", "explain", "2T").stdout.splitlines() == [
        "It does not fit: no room",
        "hint: enrol more disks",
        "NODE  PATH      TAKES  FREE     IN ONE PIECE  WHY",
        "m1    /dev/sdb  0 B    1.0 GiB  1.0 GiB       it is full",
    ]


def test_a_list_is_all_of_its_pages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.dbus.fake_cluster.PAGE_MOST", 1)
    assert len(run("volume", "list").stdout.splitlines()) == 1 + len(VOLUMES)
    assert len(run("node", "list").stdout.splitlines()) == 1 + len(NODES)


def test_events_for_people(run: Run) -> None:
    titles, *lines = run("events", "-n", "2").stdout.splitlines()
    assert titles.split() == ["TIME", "SEVERITY", "MESSAGE"]
    assert titles.index("MESSAGE") == lines[0].index("thing")
    assert [re.split(" {2,}", line)[1:] for line in lines] == [
        ["warning", "thing 4 happened"],
        ["warning", "thing 5 happened"],
    ]


def test_a_job_is_waited_for(run: Run, cluster: FakeCluster) -> None:
    cluster.steps = [job(done_bytes=n, total_bytes=9) for n in range(9)] + [
        job(state=JobState.DONE)
    ]
    done = run("volume", "create", "data", "1G")
    assert done.stdout == "create data: done\n"  # one line, nobody is watching
    seen = [each.seen for each in cluster.asked if isinstance(each, api.ShowJob)]
    assert seen == [job(), *(job(done_bytes=n, total_bytes=9) for n in range(9))]


def test_a_job_need_not_be_waited_for(run: Run, cluster: FakeCluster) -> None:
    cluster.steps = [job(JobKind.DETACH)]
    assert run("volume", "detach", "data", "--no-wait").stdout == "detach data: job j1 has begun\n"
    assert cluster.wanted[0] == api.DetachVolume(volume="data")


def test_a_failed_job_fails_the_command(run: Run, cluster: FakeCluster) -> None:
    cluster.steps = [
        job(JobKind.DETACH, state=JobState.FAILED, message="mounted on /srv", error_code="Busy")
    ]
    done = run("volume", "detach", "data")
    assert done.exit_code == 4
    assert done.stderr == (
        "vastskyctl: detach data failed: mounted on /srv\nhint: end what uses it, then try again\n"
    )
    done = run("volume", "detach", "data", "--json")
    assert done.exit_code == 4
    assert msgspec.json.decode(done.stdout, type=Job).state is JobState.FAILED


def test_a_failed_job_has_a_hint_of_its_own(run: Run, cluster: FakeCluster) -> None:
    failed = job(state=JobState.FAILED, message="mounted", error_code="Busy", hint="unmount it")
    cluster.steps = [failed]
    for command in (["volume", "detach", "data"], ["job", "wait", "j1"]):
        assert run(*command).stderr.endswith("failed: mounted\nhint: unmount it\n")
        done = run(*command, "--json")
        assert msgspec.json.decode(done.stdout, type=Job).hint == "unmount it"
        assert done.stderr.endswith("hint: unmount it\n")
    assert re.search(r"\nMessage +mounted\nHint +unmount it\n", run("job", "show", "j1").stdout)
    said = run("job", "show", "j1", "--json").stdout
    assert msgspec.json.decode(said, type=Job).hint == "unmount it"


CODES = {
    "Invalid": 2, "NotFound": 3, "Exists": 4, "Busy": 4, "Conflict": 4, "Unreachable": 5,
    "Denied": 6, "DeniedCanObtain": 6, "DeniedDismissed": 6, "NoSpace": 7,
    "Device": 1, "Damaged": 1, "Failed": 1,
}  # fmt: skip


@pytest.mark.parametrize(("code", "exit_code"), CODES.items())
def test_exit_codes(run: Run, cluster: FakeCluster, code: str, exit_code: int) -> None:
    cluster.fault = from_code(code, "it is so", "do that")
    done = run("volume", "list")
    assert done.exit_code == exit_code
    assert done.stderr == "vastskyctl: it is so\nhint: do that\n"
    assert not done.stdout


@pytest.mark.parametrize("code", CODES)
def test_every_error_has_a_next_step(run: Run, cluster: FakeCluster, code: str) -> None:
    cluster.fault = from_code(code, "it is so", "")
    said = run("volume", "list").stderr
    assert re.fullmatch(r"vastskyctl: it is so\nhint: \S.+\n", said)


@pytest.mark.parametrize(
    "arguments",
    [
        ["volume", "create", "x", "10Q"],
        ["volume", "create", "x", "1G", "--copies", "0"],
        ["volume", "delete", "x"],
        ["disk", "enrol", "nonsense"],
        ["cluster", "token", "--valid", "soon"],
        ["frobnicate"],
    ],
)
def test_wrong_usage(run: Run, cluster: FakeCluster, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert not cluster.asked


@pytest.mark.parametrize("arguments", [["cluster", "token"], ["join", "t"]], ids=typed)
def test_who_joins_is_offered_no_role_that_the_manager_refuses(
    run: Run, cluster: FakeCluster, arguments: list[str]
) -> None:
    done = run(*arguments, "--role", "manager")
    assert done.exit_code == 2
    assert "'manager' is not one of 'storage', 'head'" in done.stderr
    assert not cluster.asked
    said = run(*arguments[:2], "--help").stdout
    assert "--role [storage|head]" in said
    assert "--role [manager|storage|head]" in run("cluster", "init", "--help").stdout


def test_what_is_not_there(run: Run) -> None:
    done = run("volume", "show", "none")
    assert done.exit_code == 3
    assert "hint: see `vastskyctl volume list`" in done.stderr


def test_too_many_who_ask(run: Run, cluster: FakeCluster) -> None:
    cluster.fault = ProtocolError("LimitsExceeded", "vastskyd is answering too many calls")
    done = run("status")
    assert done.exit_code == 4
    assert done.stderr.startswith(
        "vastskyctl: vastskyd is answering too many calls\nhint: try again"
    )


def test_a_fault_within_vastskyd(run: Run, cluster: FakeCluster) -> None:
    cluster.fault = KeyError("inside")
    done = run("status")
    assert done.exit_code == 1
    assert "journalctl" in done.stderr
    assert "inside" not in done.output


def test_a_manager_away_while_waiting(run: Run, cluster: FakeCluster) -> None:
    cluster.fault = UnreachableError("the manager did not answer")
    done = run("job", "wait", "j1")
    assert done.exit_code == 5


@pytest.mark.usefixtures("bus_address")
def test_without_vastskyd() -> None:
    done = runner().invoke(main, ["status"])
    assert done.exit_code == 5
    assert done.stderr == (
        "vastskyctl: vastskyd is not running on this host\n"
        "hint: start it with `systemctl start vastskyd`\n"
    )


def test_without_a_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    done = runner().invoke(main, ["status"])
    assert done.exit_code == 5
    assert "systemctl status dbus" in done.stderr


PROGRAM = "from vastskyd.cli.main import main; main(prog_name='vastskyctl')"


def as_program(*arguments: str, to: str = "/dev/null", **more: str) -> tuple[int, str]:
    """Its exit status, and what it wrote to standard error."""
    with open(to, "wb") as out:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], stdout=out, stderr=subprocess.PIPE,
            text=True, env=os.environ | more, check=False,
        )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "arguments",
    [["volume", "list"], ["status", "--json"], ["--help"], ["--version"], ["status", "--help"]],
    ids=typed,
)
def test_where_nothing_can_be_written_it_says_so_and_fails(arguments: list[str]) -> None:
    status, said = as_program(*arguments, to="/dev/full")
    assert (status, said.count("\n")) == (1, 1), said
    assert "No space left on device" in said


CLOSED = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["volume", "list"], 0),
        (["volume", "create", "x", "1G"], 0),
        (["volume", "show", "none"], 3),
        (["volume", "delete", "data"], 2),
        (["join", "-"], 0),
        (["top"], 2),
    ],
    ids=lambda each: typed(each) if isinstance(each, list) else "",
)
def test_who_closed_a_stream_is_answered_as_others(
    closed: str, arguments: list[str], status: int
) -> None:
    """As if it were /dev/null: what was done is not told as failed."""
    ctl = shlex.join([sys.executable, "-c", PROGRAM, *arguments])
    done = subprocess.run(
        ["sh", "-c", f"{ctl} {CLOSED[closed]}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == status


@pytest.mark.parametrize("kind", ["node", "disk", "volume"])
def test_an_empty_name_is_nobodys(run: Run, cluster: FakeCluster, kind: str) -> None:
    """A variable that is not set, in a script: it would be shown whatever is first."""
    cluster.volumes = cluster.volumes[:1]
    done = run(kind, "show", "")
    assert done.exit_code == 2
    assert "it is empty" in done.stderr
    assert not cluster.asked


def test_a_token_that_is_no_text_is_none(cluster: FakeCluster) -> None:
    done = runner().invoke(main, ["join", "-"], input=b"\xff\xfe\n")
    assert done.exit_code == 2
    assert not cluster.asked


@pytest.mark.usefixtures("cluster")
def test_a_terminal_that_lacks_letters_gets_others() -> None:
    latin = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    assert as_program("volume", "show", "data", **latin) == (0, "")


WITHOUT_JSON = {("top",)}  # a page for people


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    found = []
    for name, below in command.commands.items():
        found += _commands(below, (*path, name))
    return found


@pytest.mark.parametrize("path", _commands(main), ids=" ".join)
def test_help_teaches_with_an_example(path: tuple[str, ...]) -> None:
    said = runner().invoke(main, [*path, "--help"]).output
    assert f"vastskyctl {' '.join(path)}" in said.partition("Example")[2]
    assert ("With --json" in said) == (path not in WITHOUT_JSON)


def test_a_token_is_shown_as_they_begin() -> None:
    said = runner().invoke(main, ["join", "--help"]).output
    (token,) = re.findall(r"vastskyctl join (\w\S+) ", said)
    with pytest.raises(InvalidError, match="incomplete"):  # and not: this is none
        parse_token(token)


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--json"]])
def test_little_is_loaded(cluster: FakeCluster, arguments: list[str]) -> None:
    program = (
        "import sys; from vastskyd.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*(m for m in ('rich', 'dbus_next') if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.split() == (["dbus_next"] if "status" in arguments else [])


ELSEWHERE = {("config", "show"), ("job", "wait"), *WITHOUT_JSON}  # of files; ends as the job does


@pytest.mark.parametrize("path", sorted(set(_commands(main)) - ELSEWHERE), ids=" ".join)
def test_what_only_reads_can_be_watched(path: tuple[str, ...]) -> None:
    reads = path[-1] in ("list", "show", "status")
    options = {name for param in _command(path).params for name in param.opts}
    assert ("--watch" in options) == (reads and path != ("job", "show"))
    assert "--json" in options


def _command(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command
