"""vastskyctl cluster recover: what it shows, what it asks, and when it does nothing."""

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.dbus.fake_cluster import RECOVERED, RECOVERY, FakeCluster
from vastskyd.core import answers, api

SHOW, BEGIN = api.ShowRecovery(), api.BeginRecovery()


def test_a_dry_run_says_what_would_be_found_and_does_nothing(
    run: Run, cluster: FakeCluster
) -> None:
    said = run("cluster", "recover", "--dry-run").stdout
    assert "Reason   manager.db is missing\n" in said
    assert "data    4.0 GiB  2       m1    1 of 2\n" in said
    assert "\nNot seen:\n  node store2\n" in said
    assert "\nTo know:\n  m1: /dev/sdc: damaged vastsky disk\n" in said
    assert cluster.asked == [SHOW]


def test_json_is_the_view(run: Run) -> None:
    done = run("cluster", "recover", "--dry-run", "--json")
    assert msgspec.json.decode(done.stdout, type=answers.RecoveryView) == RECOVERY
    done = run("cluster", "recover", "--yes", "--without-missing", "--json")
    assert msgspec.json.decode(done.stdout, type=answers.RecoveryView) == RECOVERED


def test_what_is_missing_is_gone_on_without_only_if_told(run: Run, cluster: FakeCluster) -> None:
    done = run("cluster", "recover", "--yes")
    assert done.exit_code == 4
    assert "--without-missing" in done.stderr
    assert cluster.asked == [SHOW]
    done = run("cluster", "recover", "--yes", "--without-missing")
    assert cluster.asked[-1] == api.FinishRecovery(without_missing=True)
    assert "those before are kept as /x/manager.db.1" in done.stdout


def test_what_it_cannot_go_on_without(run: Run, cluster: FakeCluster) -> None:
    cluster.recovery = msgspec.structs.replace(RECOVERY, blocked=("a volume is in use",))
    done = run("cluster", "recover", "--yes", "--without-missing")
    assert done.exit_code == 4
    assert "Cannot go on without:\n  a volume is in use" in done.stdout
    assert cluster.asked == [SHOW]


def test_nobody_can_be_asked_on_a_pipe(run: Run, cluster: FakeCluster) -> None:
    done = run("cluster", "recover", "--without-missing")
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert cluster.asked == [SHOW]


def test_records_that_are_there_are_set_aside_only_if_told(
    run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vastskyd.cli.recover.HEARD_WITHIN_S", 0.0)
    cluster.recovery = answers.RecoveryView(recovering=False, why="")
    done = run("cluster", "recover", "--yes")
    assert done.exit_code == 4
    assert "--again" in done.stderr
    assert "nothing to recover" in run("cluster", "recover", "--dry-run").stdout
    assert BEGIN not in cluster.asked
    assert run("cluster", "recover", "--again", "--yes", "--without-missing").exit_code == 0
    assert cluster.asked[-2:] == [BEGIN, api.FinishRecovery(without_missing=True)]


def test_hosts_that_are_about_to_connect_are_waited_for(
    run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = []

    def sleep(time_s: float) -> None:
        slept.append(time_s)
        if len(slept) == 2:
            cluster.recovery = msgspec.structs.replace(RECOVERY, missing=())

    monkeypatch.setattr("vastskyd.cli.recover.time.sleep", sleep)
    cluster.recovery = msgspec.structs.replace(RECOVERY, listens_s=19.0)
    assert run("cluster", "recover", "--dry-run").exit_code == 0
    assert not slept
    done = run("cluster", "recover", "--yes")
    assert done.exit_code == 0, done.stderr
    assert "hosts may connect for 19 s yet" in done.stderr
    assert slept == [2.0, 2.0]
    assert "store2" not in done.stdout
