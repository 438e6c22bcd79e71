"""The fault matrix: the manager. docs/failures.md has a line for each of these."""

from functools import partial

import pytest

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.matrix import HEAD, row
from tests.demo.hosts import MANAGER

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("rows")]

AWAY_S = 20.0
HOUR_S = 3600
DATABASE = "/var/lib/vastsky/manager.db"
# What has grown of its write-ahead log is used again without new room: it is given back first. The
# last blocks are asked for one by one, so that ext4 keeps none for what is to be written.
FILL = f"""\
python3 -c 'import sqlite3
busy, *_ = sqlite3.connect("{DATABASE}").execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
raise SystemExit(busy)' || exit 3
fallocate -l $(( $(stat -f -c '%a * %S' /var/tmp) - (8 << 20) )) /var/tmp/filler || exit 4
dd if=/dev/zero of=/var/tmp/filler2 bs=4k oflag=sync status=none
test "$(stat -f -c %a /var/tmp)" -lt 8"""


def test_manager_killed(cluster: Cluster) -> None:
    """Again and again while volumes are made and deleted: nothing of it is left half done."""
    with row(cluster, "manager-killed", "two", "three") as it:
        before = cluster.leftovers()
        for number in range(3):
            cluster[MANAGER].run("vastskyctl volume create brief 16M --no-wait", 60, check=False)
            it.strike(lambda: cluster.kill_daemon(MANAGER))
            eventually(
                f"it is deleted, round {number}",
                lambda: (
                    cluster[MANAGER].run("vastskyctl volume list --json", 60).stdout.find('"brief"')
                    < 0
                    or cluster.ctl("volume delete brief --yes").exit == 0
                ),
                60,
            )
        it.goes_on()
        cluster.clean(besides=before)


def test_manager_away_while_a_leg_dies(cluster: Cluster) -> None:
    """With two copies the head may not go on with one by itself: writes wait, and it says so."""
    with row(cluster, "manager-away-while-a-leg-dies", "two", "three") as it:
        victim = cluster.stores_of("two")[0]
        stop_manager(cluster)
        it.strike(cluster[victim].kill, told=False)
        it.local_status_says(HEAD, r"two.*stalled|two.*wait")
        it.until(AWAY_S)
        it.writers["three"].goes_on(5)
        before = it.writers["two"].count()
        it.writers["three"].goes_on(5)
        assert it.writers["two"].count() == before
        start_manager(cluster)
        it.goes_on()
        cluster.power_on(victim)


def stop_manager(cluster: Cluster) -> None:
    cluster[MANAGER].run(
        "mkdir -p /run/systemd/system/vastskyd.service.d && cd $_"
        " && printf '[Service]\\nRestart=no\\n' > away.conf && systemctl daemon-reload"
        " && systemctl kill --kill-whom=main -s KILL vastskyd"
    )


def start_manager(cluster: Cluster) -> None:
    cluster[MANAGER].run(
        "rm /run/systemd/system/vastskyd.service.d/away.conf && systemctl daemon-reload"
        " && systemctl reset-failed vastskyd; systemctl start vastskyd",
        60,
    )


def test_manager_disk_full(cluster: Cluster) -> None:
    """What it cannot write down it does not do, and says so; what runs goes on."""
    with row(cluster, "manager-disk-full", "two") as it:
        manager = cluster[MANAGER]
        it.strike(lambda: manager.run(FILL, 300))
        refused = manager.run("vastskyctl volume create none 16M", 60, check=False)
        assert refused.exit != 0
        assert "space" in refused.stderr or "full" in refused.stderr, refused
        it.goes_on()
        manager.run("rm /var/tmp/filler /var/tmp/filler2")
        cluster.ctl("volume create some 16M", 60)
        cluster.ctl("volume delete some --yes", 60)


def test_manager_clock_jumps(cluster: Cluster) -> None:
    with row(cluster, "manager-clock-jumps", "two") as it:
        for jump_s in (HOUR_S, -2 * HOUR_S, HOUR_S):
            it.strike(partial(jump, cluster, jump_s))
            it.goes_on(10)
            it.says_nothing()
        cluster.kill_daemon(HEAD)
        cluster.online()
        it.goes_on()


def jump(cluster: Cluster, seconds: int) -> None:
    now_s = float(cluster[MANAGER].run("date +%s.%N").stdout)
    cluster[MANAGER].set_clock(now_s + seconds)
