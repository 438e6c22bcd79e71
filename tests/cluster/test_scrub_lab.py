"""Bits flipped on a storage host's disk while the volume is in use: found, repaired or reported."""

import json

import pytest

from tests.cluster.cluster import Cluster, Writer, eventually
from tests.demo.copies import compare_copies
from tests.demo.hosts import MIB
from vastskyd.core import answers
from vastskyd.core.guards import GUARD_BYTES
from vastskyd.core.model import JobState

pytestmark = pytest.mark.lab

SCRUB_S = 180
SECTOR = 512
NOTHING = "no difference in 16.0 MiB"

FLIP = """\
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT | os.O_DSYNC)
block = mmap.mmap(-1, 4096)
for at in map(int, sys.argv[2:]):
    os.preadv(fd, [block], at)
    block[17] ^= 4
    os.pwritev(fd, [block], at)
"""


@pytest.fixture(autouse=True)
def _flip_is_there(cluster: Cluster, empty: None) -> None:
    for name in cluster.hosts.stores:
        cluster[name].put("/root/flip.py", FLIP.encode())


def flip(cluster: Cluster, head: str, leg: int, *places: int) -> str:
    """A bit of the blocks at these places of the volume, on the disk under a leg's extent; the
    host whose disk lies now."""
    (array,) = cluster.hosts.evidence(head, "legs")
    extent, offset = array["legs"][leg]["extent"], array["legs"][leg]["offset"] + GUARD_BYTES
    for name in cluster.hosts.stores:
        table = cluster[name].run("dmsetup table").stdout
        for line in table.splitlines():
            if line.startswith(f"vastsky-extent-{extent}:"):
                disk, start = line.split()[-2:]
                where = " ".join(str(int(start) * SECTOR + offset + place) for place in places)
                cluster[name].run(f"python3 /root/flip.py /dev/block/{disk} {where}")
                return name
    raise AssertionError(f"extent {extent} is on no host: {array}")


def scrub(cluster: Cluster, volume: str) -> str:
    said = cluster.ctl(f"volume scrub {volume} --json", SCRUB_S).stdout
    message: str = json.loads(said)["message"]
    return message


def problems(cluster: Cluster) -> str:
    return "\n".join(json.loads(cluster.ctl("status --json").stdout)["problems"])


def test_of_three_copies_the_majority_is_right(cluster: Cluster) -> None:
    with cluster.new_volume("three", 16, "head2", 3) as device:
        # The writer has the first block of each 64 KiB; what is flipped it does not write anew.
        writer = Writer(cluster["head2"], device, "three").begin()
        writer.goes_on()
        assert scrub(cluster, "three") == NOTHING
        first = flip(cluster, "head2", 0, 9 * MIB + 4096, 9 * MIB + 8192, 15 * MIB + 4096)
        second = flip(cluster, "head2", 2, 12 * MIB + 8192)
        assert scrub(cluster, "three") == "16.0 KiB differed and were repaired from the majority"
        said = cluster.ctl("events").stdout
        (event,) = [
            line for line in said.splitlines() if "repaired from the majority; wrong" in line
        ]
        assert f"{first}:" in event
        assert f"{second}:" in event
        assert "repaired from the majority" in cluster.ctl("volume show three").stdout
        eventually("status is content", lambda: not problems(cluster), 15)
        writer.goes_on()
        assert scrub(cluster, "three") == NOTHING
        print(writer.end())
        writer.verify()
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 3)
        held = cluster["head2"].run("cat /sys/block/md*/md/suspend_*").stdout.split()
        assert set(held) == {"0"}


def test_of_two_copies_nobody_knows_which_is_right(cluster: Cluster) -> None:
    with cluster.new_volume("two", 16, "head2") as device:
        cluster["head2"].run(f"dd if=/dev/urandom of={device} bs=1M count=16 oflag=direct")
        flip(cluster, "head2", 1, 3 * MIB)
        for _ in range(2):
            assert scrub(cluster, "two").startswith("4.0 KiB differ and cannot be decided: ")
            assert "of its copies 4.0 KiB differ" in problems(cluster)
        assert f"the first at byte {3 * MIB} of the volume" in cluster.ctl("events").stdout
        cluster["head2"].run(f"dd if=/dev/urandom of={device} bs=1M count=1 seek=3 oflag=direct")
        assert scrub(cluster, "two") == NOTHING
        eventually("status is content", lambda: not problems(cluster), 15)


def test_daemons_die_while_a_difference_is_looked_for(cluster: Cluster) -> None:
    with cluster.new_volume("killed", 16, "head2", 3) as device:
        writer = Writer(cluster["head2"], device, "killed").begin()
        writer.goes_on()
        for victim in ("head2", "head1"):
            flip(cluster, "head2", 1, *range(8 * MIB + 4096, 16 * MIB, MIB))
            cluster.ctl("volume scrub killed --no-wait")
            cluster.kill_daemon(victim)
            eventually(
                "it is scrubbed",
                lambda: (
                    not [
                        job
                        for job in cluster.hosts.look(answers.JobList, "ListJobs").jobs
                        if job.state is JobState.RUNNING
                    ]
                ),
                SCRUB_S,
            )
            writer.goes_on()
        print(writer.end())
        writer.verify()
        assert scrub(cluster, "killed") == NOTHING
        compare_copies(cluster.hosts, "head2", cluster.hosts.stores, 3)
