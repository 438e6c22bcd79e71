"""Several names in one command: each is tried, and what fails is told with its reason."""

import signal
from collections.abc import Callable

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.cli.test_terminal import Terminal
from tests.dbus.fake_cluster import FakeCluster, job
from vastskyd.core import answers, api
from vastskyd.core.errors import (
    BusyError,
    ConflictError,
    DeniedError,
    NoSpaceError,
    VastskyError,
)
from vastskyd.core.model import Job, JobState, Record

Refuse = Callable[[Record], VastskyError | None]

A, B, C = "m1:/dev/sda", "m1:/dev/sdb", "store2:/dev/sdc"
# A command, and which of its names a request is about.
COMMANDS: list[tuple[list[str], Callable[[api.Act], str]]] = [
    (["disk", "enrol"], lambda act: f"{act.node}:{act.path}"),  # type: ignore[attr-defined]
    (["disk", "retire"], lambda act: act.disk),  # type: ignore[attr-defined]
    (["volume", "detach"], lambda act: act.volume),  # type: ignore[attr-defined]
    (["volume", "scrub"], lambda act: act.volume),  # type: ignore[attr-defined]
    (["volume", "delete", "--yes"], lambda act: act.volume),  # type: ignore[attr-defined]
    (["node", "remove"], lambda act: act.node),  # type: ignore[attr-defined]
]
each_command = pytest.mark.parametrize(
    ("command", "about"), COMMANDS, ids=[" ".join(command) for command, _ in COMMANDS]
)


def acts(cluster: FakeCluster) -> list[api.Act]:
    return [each for each in cluster.wanted if isinstance(each, api.Act)]


def refusing(about: Callable[[api.Act], str], errors: dict[str, VastskyError]) -> Refuse:
    def refuse(request: Record) -> VastskyError | None:
        return errors.get(about(request)) if isinstance(request, api.Act) else None

    return refuse


@each_command
def test_each_is_tried(
    run: Run, cluster: FakeCluster, command: list[str], about: Callable[[api.Act], str]
) -> None:
    cluster.refuse = refusing(about, {B: NoSpaceError("it is so", hint="do that")})
    done = run(*command, A, B, C)
    assert [about(act) for act in acts(cluster)] == [A, B, C]
    assert done.exit_code == 7
    assert done.stdout.count(": done\n") == 2
    told, hint, summary, last = done.stderr.splitlines()
    assert told == f"vastskyctl: {B}: it is so"
    assert hint == "hint: do that"
    assert summary == f"vastskyctl: 1 of 3 failed: {B}"
    assert last.startswith("hint: why is told above; the others are ")


@each_command
def test_one_alone_fails_as_it_does(
    run: Run, cluster: FakeCluster, command: list[str], about: Callable[[api.Act], str]
) -> None:
    cluster.refuse = refusing(about, {B: NoSpaceError("it is so", hint="do that")})
    done = run(*command, B)
    assert (done.exit_code, done.stderr) == (7, "vastskyctl: it is so\nhint: do that\n")
    assert not done.stdout


@each_command
def test_all_is_well_if_none_fails_and_each_is_asked_for_once(
    run: Run, cluster: FakeCluster, command: list[str], about: Callable[[api.Act], str]
) -> None:
    done = run(*command, A, B, A)
    assert (done.exit_code, done.stderr) == (0, "")
    assert [about(act) for act in acts(cluster)] == [A, B]


@each_command
def test_who_may_not_is_told_so_once(
    run: Run, cluster: FakeCluster, command: list[str], about: Callable[[api.Act], str]
) -> None:
    """And not asked for a password again for each."""
    cluster.refuse = refusing(about, dict.fromkeys((A, B, C), DeniedError("not you")))
    done = run(*command, A, B, C)
    assert [about(act) for act in acts(cluster)] == [A]
    assert done.exit_code == 6
    assert f"1 of 3 failed: {A}; not tried: {B}, {C}\nhint: why is told above\n" in done.stderr


@each_command
def test_a_dry_run_tries_each(
    run: Run, cluster: FakeCluster, command: list[str], about: Callable[[api.Act], str]
) -> None:
    done = run(*command, A, B, C, "--dry-run", "--json")
    assert (done.exit_code, done.stdout) == (0, "{}\n")
    cluster.asked.clear()
    cluster.refuse = refusing(about, {A: BusyError(f"{A} is in use")})
    done = run(*command, A, B, C, "--dry-run", "--json")
    assert all(act.dry_run for act in acts(cluster))
    assert [about(act) for act in acts(cluster)] == [A, B, C]
    assert (done.exit_code, done.stdout) == (4, "")
    assert f"vastskyctl: {A} is in use\n" in done.stderr
    assert "nothing stands in the way of the others" in done.stderr


@each_command
def test_each_has_a_key_of_its_own(
    run: Run, cluster: FakeCluster, command: list[str], about: Callable[[api.Act], str]
) -> None:
    """One alone has it as it was given: with another name it is refused."""
    run(*command, A, "--idempotency-key", "k")
    run(*command, A, C, "--idempotency-key", "k")
    assert [act.idempotency_key for act in acts(cluster)] == ["k", f"k:{A}", f"k:{C}"]


@each_command
def test_json_is_one_document(
    run: Run, cluster: FakeCluster, command: list[str], about: Callable[[api.Act], str]
) -> None:
    starts_jobs = command != ["node", "remove"]
    done = run(*command, A, B, "--json")
    if starts_jobs:
        assert len(msgspec.json.decode(done.stdout, type=answers.JobList).jobs) == 2
    else:
        assert done.stdout == "{}\n"
    cluster.refuse = refusing(about, {A: BusyError("it is so")})
    done = run(*command, A, B, "--json")
    assert done.exit_code == 4
    if starts_jobs:
        (only,) = msgspec.json.decode(done.stdout, type=answers.JobList).jobs
        assert only.state is JobState.DONE
    else:
        assert not done.stdout
    cluster.refuse = refusing(about, {A: BusyError("it is so"), B: ConflictError("it is")})
    assert not run(*command, A, B, "--json").stdout


@pytest.mark.parametrize("command", [command for command, _ in COMMANDS[1:-1]], ids=" ".join)
def test_one_is_its_job(run: Run, command: list[str]) -> None:
    assert msgspec.json.decode(run(*command, A, "--json").stdout, type=Job).state is JobState.DONE


def test_a_job_that_fails_ends_none_of_the_others(run: Run, cluster: FakeCluster) -> None:
    cluster.steps = [job(state=JobState.FAILED, message="too few legs", error_code="Conflict")]
    done = run("volume", "detach", "a", "b", "--json")
    assert done.exit_code == 4
    assert done.stderr.count("too few legs") == 2
    assert "2 of 2 failed: a, b\nhint: why is told above\n" in done.stderr
    jobs = msgspec.json.decode(done.stdout, type=answers.JobList).jobs
    assert [each.state for each in jobs] == [JobState.FAILED] * 2


def test_all_are_begun_before_one_is_waited_for(
    run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Legs of a disk do not move to one that is retired with it."""
    begun: list[int] = []

    def wait(client: object, started: Job, *, bar: bool) -> Job:
        begun.append(len(acts(cluster)))
        return started

    monkeypatch.setattr("vastskyd.cli.jobs._wait", wait)
    run("disk", "retire", A, B)
    assert begun == [2, 2]
    done = run("disk", "retire", A, B, "--no-wait")
    assert done.stdout.count("has begun") == 2


def test_what_is_enrolled_already_is_no_failure(run: Run, cluster: FakeCluster) -> None:
    """The manager says so by a job that is done."""
    cluster.steps = [job(state=JobState.DONE, message=f"{A} is enrolled already, as disk d1")]
    done = run("disk", "enrol", A, B)
    assert done.exit_code == 0
    assert f"({A} is enrolled already, as disk d1)" in done.stdout


def test_leaving_several_alone(cluster: FakeCluster) -> None:
    cluster.steps = [job(message="copying")]
    with Terminal("volume", "detach", "a", "b") as terminal:
        terminal.read_until("copying")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.finish() == 130
        assert terminal.said.count("vastskyctl job wait j1") == 2
        assert "failed" not in terminal.said


def test_deleting_several_asks_once(cluster: FakeCluster) -> None:
    with Terminal("volume", "delete", "a", "b") as terminal:
        terminal.read_until("Delete volumes a, b and all their data?")
        terminal.write("y\n")
        assert terminal.finish() == 0
    assert acts(cluster) == [api.DeleteVolume(volume="a"), api.DeleteVolume(volume="b")]


def test_nothing_is_begun_if_one_is_no_name(run: Run, cluster: FakeCluster) -> None:
    done = run("disk", "enrol", "/dev/sdb", "sdc")
    assert done.exit_code == 2
    assert "'sdc' does not name a disk" in done.stderr
    assert not acts(cluster)
    assert run("node", "remove").exit_code == 2
