"""What vastsky-attach@.service does: a volume that is to be here, and one that is to be gone."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.dbus.fake_cluster import LOCAL_VOLUME, VIEW, VOLUMES, FakeCluster, job
from vastskyd.cli import here
from vastskyd.core import answers, api
from vastskyd.core.errors import ConflictError, NotFoundError, UnreachableError
from vastskyd.core.ids import NodeId
from vastskyd.core.model import AttachmentState, JobState, Record, VolumeState

DETACHED = msgspec.structs.replace(VOLUMES[0], head="", attachment=None)
ELSEWHERE = msgspec.structs.replace(VOLUMES[0], head="store2")
ATTACH = api.AttachVolume(volume="data", head=NodeId("m1"))
DETACH = api.DetachVolume(volume="data")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "POLL_S", 0.01)


@pytest.fixture
def on(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`on(kind, act)`: when that is asked next, `act` is done after; as often as it is given."""
    acts: list[tuple[type[Record], Callable[[], object]]] = []
    ask = cluster.ask

    async def asked(request: Record) -> Record:
        due = next((each for each in acts if isinstance(request, each[0])), None)
        if due is not None:
            acts.remove(due)
        answer = await ask(request)
        if due is not None:
            due[1]()
        return answer

    monkeypatch.setattr(cluster, "ask", asked)
    return lambda kind, act: acts.append((kind, act))


def is_here(cluster: FakeCluster, state: str = "active") -> None:
    cluster.volumes = VOLUMES
    cluster.view = msgspec.structs.replace(
        VIEW, volumes=(msgspec.structs.replace(LOCAL_VOLUME, state=state),)
    )


def is_gone(cluster: FakeCluster) -> None:
    cluster.volumes = (DETACHED,)
    cluster.view = msgspec.structs.replace(VIEW, volumes=())


def test_one_that_is_detached_is_attached_and_waited_for(
    run: Run, cluster: FakeCluster, on: Callable[..., None]
) -> None:
    is_gone(cluster)
    on(api.AttachVolume, lambda: is_here(cluster))
    done = run("volume", "take", "data", "--within", "5s", "--json")
    assert done.exit_code == 0, done.output
    assert msgspec.json.decode(done.stdout, type=answers.LocalVolume) == LOCAL_VOLUME
    assert [msgspec.structs.replace(e, asked_by="") for e in cluster.changes()] == [ATTACH]


def test_one_that_is_here_is_here_also_without_the_manager(run: Run, cluster: FakeCluster) -> None:
    is_here(cluster, "degraded")
    cluster.fault = UnreachableError("the manager is away")
    assert (
        run("volume", "take", "data", "--within", "5s").stdout
        == "volume data is here: /dev/vastsky/data\n"
    )
    assert not cluster.asked


def test_one_is_taken_and_left_by_its_id(
    run: Run, cluster: FakeCluster, on: Callable[..., None]
) -> None:
    is_gone(cluster)
    on(api.AttachVolume, lambda: is_here(cluster))
    done = run("volume", "take", "v1", "--within", "5s")
    assert (done.exit_code, done.stdout) == (0, "volume data is here: /dev/vastsky/data\n")
    on(api.DetachVolume, lambda: is_gone(cluster))
    assert run("volume", "leave", "v1", "--within", "5s").exit_code == 0
    asked = [type(each) for each in cluster.changes()]
    assert asked == [api.AttachVolume, api.DetachVolume]


@pytest.mark.parametrize("state", ["assembling", "stalled"])
def test_one_that_cannot_be_used_yet_is_not_here(
    run: Run, cluster: FakeCluster, state: str
) -> None:
    is_here(cluster, state)
    done = run("volume", "take", "data", "--within", "1s")
    assert done.exit_code == 5
    assert f"volume data is not here in time: it is {state}" in done.stderr
    assert not cluster.changes()


def test_a_volume_that_another_host_has_is_left_to_it(run: Run, cluster: FakeCluster) -> None:
    """Be that host reachable or not: two hosts with the same fstab do not fight."""
    is_gone(cluster)
    cluster.volumes = (ELSEWHERE,)
    done = run("volume", "take", "data", "--within", "5s")
    assert done.exit_code == 4
    assert "volume data is attached on store2" in done.stderr
    assert "volume failover data m1" in done.stderr
    assert run("volume", "leave", "data", "--within", "5s").exit_code == 0
    assert not cluster.changes()


def test_a_volume_that_another_host_had_and_nobody_has_is_taken(
    run: Run, cluster: FakeCluster, on: Callable[..., None]
) -> None:
    """The attach fences the one that had it."""
    is_gone(cluster)
    cluster.volumes = (msgspec.structs.replace(ELSEWHERE, attachment=AttachmentState.UNFENCED),)
    on(api.AttachVolume, lambda: is_here(cluster))
    assert run("volume", "take", "data", "--within", "5s").exit_code == 0
    assert [type(each) for each in cluster.changes()] == [api.AttachVolume]


def test_a_manager_that_is_late_is_waited_for_and_one_that_is_away_not_for_ever(
    run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_gone(cluster)
    cluster.fault = UnreachableError("there is no session with node m2")
    ask, asked = cluster.ask, 0

    async def late(request: Record) -> Record:
        nonlocal asked
        asked += 1
        if asked == 3:
            cluster.fault = None
            is_here(cluster)
        return await ask(request)

    for command in ("take", "leave"):
        done = run("volume", command, "data", "--within", "0.5s")
        assert done.exit_code == 5
        assert "in time: there is no session with node m2" in done.stderr
    monkeypatch.setattr(cluster, "ask", late)
    assert run("volume", "take", "data", "--within", "20s").exit_code == 0


def test_one_that_is_on_its_way_off_is_attached_when_it_is_off(
    run: Run, cluster: FakeCluster, on: Callable[..., None]
) -> None:
    """The host went down with the detach under way."""
    is_gone(cluster)
    cluster.volumes = (
        msgspec.structs.replace(VOLUMES[0], attachment=AttachmentState.DETACHING),
    )  # fmt: skip
    on(api.ListVolumes, lambda: is_gone(cluster))
    on(api.AttachVolume, lambda: is_here(cluster))
    assert run("volume", "take", "data", "--within", "5s").exit_code == 0
    assert [type(each) for each in cluster.changes()] == [api.AttachVolume]


PASSING = {
    "volume data is still being created": msgspec.structs.replace(
        DETACHED, state=VolumeState.CREATING
    ),
    "volume data is detaching on store2": msgspec.structs.replace(
        ELSEWHERE, attachment=AttachmentState.DETACHING
    ),
}


@pytest.mark.parametrize("why", PASSING)
def test_what_passes_by_itself_is_waited_for(
    run: Run, cluster: FakeCluster, on: Callable[..., None], why: str
) -> None:
    """Exit code 5: vastsky-attach@.service tries again. A host that boots while the one before it
    goes down, and a volume that is made while its unit is enabled."""
    is_gone(cluster)
    cluster.volumes = (PASSING[why],)
    done = run("volume", "take", "data", "--within", "0.5s")
    assert (done.exit_code, f"in time: {why}" in done.stderr) == (5, True), done.stderr
    assert not cluster.changes()
    on(api.ListVolumes, lambda: is_gone(cluster))
    on(api.AttachVolume, lambda: is_here(cluster))
    assert run("volume", "take", "data", "--within", "5s").exit_code == 0


def test_a_job_that_fails_says_why(run: Run, cluster: FakeCluster) -> None:
    failed = job(
        state=JobState.FAILED, message="too few legs", error_code="Conflict", hint="enrol more"
    )
    cluster.steps = [failed]
    is_gone(cluster)
    done = run("volume", "take", "data", "--within", "5s")
    assert (done.exit_code, "too few legs\nhint: enrol more" in done.stderr) == (4, True)
    is_here(cluster)
    done = run("volume", "leave", "data", "--within", "5s")
    assert (done.exit_code, "too few legs\nhint: enrol more" in done.stderr) == (4, True)


def test_one_that_is_here_is_detached(
    run: Run, cluster: FakeCluster, on: Callable[..., None]
) -> None:
    is_here(cluster)
    on(api.DetachVolume, lambda: is_gone(cluster))
    done = run("volume", "leave", "data", "--within", "5s")
    assert (done.exit_code, done.stdout) == (0, "volume data is not on this host\n")
    assert [msgspec.structs.replace(e, asked_by="") for e in cluster.changes()] == [DETACH]
    assert run("volume", "leave", "data", "--within", "5s").exit_code == 0
    assert run("volume", "leave", "nosuch", "--within", "5s").exit_code == 0
    assert len(cluster.changes()) == 1


def test_a_host_without_a_cluster_waits_until_it_is_in_one(
    run: Run,
    cluster: FakeCluster,
    on: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It joins at its first boot, by a credential, with the volume in its fstab."""
    alone = msgspec.structs.replace(VIEW, node="", volumes=())
    cluster.view = alone
    done = run("volume", "take", "data", "--within", "0.5s")
    assert (done.exit_code, "in time: this host belongs to no cluster" in done.stderr) == (5, True)
    assert run("volume", "leave", "data", "--within", "5s").exit_code == 0
    assert not cluster.changes()
    is_gone(cluster)
    views = iter([alone] * 3)
    monkeypatch.setattr(cluster, "local", lambda: next(views, cluster.view))
    on(api.AttachVolume, lambda: is_here(cluster))
    assert run("volume", "take", "data", "--within", "5s").exit_code == 0


def test_a_manager_that_makes_its_records_anew_is_waited_for(
    run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refusals are no answers; and of the job it knows nothing afterwards."""
    is_gone(cluster)
    cluster.fault = ConflictError("the manager has no records: lost")
    done = run("volume", "take", "data", "--within", "0.5s")
    assert (done.exit_code, "in time: the manager has no records" in done.stderr) == (5, True)
    cluster.fault = None
    ask, begun = cluster.ask, 0

    async def forgotten(request: Record) -> Record:
        nonlocal begun
        if isinstance(request, api.ShowJob):
            if request.wait_s:
                await asyncio.sleep(0.2)  # the host itself asks, when it has told of the job
            raise NotFoundError("there is no such job")
        answer = await ask(request)
        if isinstance(request, api.AttachVolume):
            begun += 1
            if begun == 2:
                is_here(cluster)
        return answer

    monkeypatch.setattr(cluster, "ask", forgotten)
    assert run("volume", "take", "data", "--within", "5s").exit_code == 0
    assert [type(each) for each in cluster.changes()] == [api.AttachVolume] * 2
