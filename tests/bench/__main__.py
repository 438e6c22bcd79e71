"""`python -m tests.bench`: what a program loses to repair, as a ratio.

A program writes block after block, each flushed; then it does the same while a lost copy is
rebuilt. Both are measured on the same hosts, one right after the other, several times in turn.
The first figure alone says nothing: the hosts are emulated.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.cluster import Cluster, Writer, eventually, make_cluster
from tests.lab.lab import Lab
from vastskyd.core import answers

SIZE_MIB = 72
LOOK_S = 12.0
ROUNDS = 3
RATES_KIB_S = (1024, 4096)
"""What a rebuild may do at most while it is measured."""


def rate(writer: Writer, seconds: float, going_on: Callable[[], bool]) -> float:
    """Blocks a second; `going_on` is asked at the end: what was measured must have lasted."""
    begun, before = time.monotonic(), writer.count()
    time.sleep(seconds)
    done = (writer.count() - before) / (time.monotonic() - begun)
    if not going_on():
        raise SystemExit("the rebuild was over before it was measured: choose a lower rate")
    return done


def rebuilding(cluster: Cluster) -> bool:
    jobs = cluster.hosts.look(answers.JobList, "ListJobs").jobs
    return any(job.kind == "rebuild" and job.state == "running" for job in jobs)


def one_round(cluster: Cluster, writer: Writer, rate_kib_s: int) -> float:
    """Writes while a copy is rebuilt at that rate, by writes while all is well."""
    cluster.healthy("bench")
    alone = rate(writer, LOOK_S, lambda: True)
    cluster.put_settings(f"[rebuild]\nrate_min_kib_s = 0\nrate_max_kib_s = {rate_kib_s}\n")
    node, disk = cluster.leg_disks("bench")[0]
    cluster[node].unplug_disk(disk)
    eventually("the rebuild begins", lambda: rebuilding(cluster), 60)
    shared = rate(writer, LOOK_S, lambda: rebuilding(cluster))
    cluster.put_settings("")  # the rest as fast as it can
    cluster.healthy("bench", limit_s=300)
    cluster[node].plug_disk(disk)
    eventually("the disk is used again", lambda: cluster.disk_of(node, disk).state == "online", 60)
    return shared / alone


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--deb", type=Path, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with Lab() as lab:
        cluster = make_cluster(lab, options.deb)
        with cluster.new_volume("bench", SIZE_MIB, "head2") as device:
            writer = Writer(cluster["head2"], device, "bench").begin()
            writer.goes_on(50)
            for limit in RATES_KIB_S:
                ratios = [one_round(cluster, writer, limit) for _ in range(options.rounds)]
                each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
                print(
                    f"writes during a rebuild of at most {limit / 1024:g} MiB/s, by writes without:"
                    f" {statistics.median(ratios):.2f} ({each})",
                    flush=True,
                )
            writer.end()
            writer.verify()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
