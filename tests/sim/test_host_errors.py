"""What a host could not do ends the job by the host's own error, with its hint."""

import asyncio
from dataclasses import dataclass

import pytest

from tests.sim.cluster import SimCluster
from tests.sim.faults import Fault, FaultKind
from tests.sim.test_cluster import simulate
from tests.sim.test_foreign_disks import ENROL, PATH, plugged_in
from vastskyd.core import api
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Job, JobState
from vastskyd.core.units import MIB

ATTACH = api.AttachVolume(volume="v", head=NodeId("h2"))
DETACH = api.DetachVolume(volume="v")


@dataclass
class Failing:
    """A point of one host that fails whenever it is passed."""

    host: str
    point: str

    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        return Fault(FaultKind.FAIL) if (host, point) == (self.host, self.point) else None


async def failed(cluster: SimCluster, request: api.Act) -> Job:
    job = await cluster.job(await cluster.start_job(request))
    assert job.state is JobState.FAILED
    return job


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        ("ext4 filesystem",
         f"on s1: to destroy what is on it: `vastskyctl disk enrol {PATH} --wipe`"),
        ("in use: mounted on /srv",
         f"on s1: `lsblk -f {PATH}` shows what uses it; end that first"),
    ],
)  # fmt: skip
def test_an_enrolment_that_is_refused_says_how_to_go_on(found: str, hint: str) -> None:
    async def body(cluster: SimCluster) -> None:
        media = await plugged_in(cluster)
        media.found = found  # after the manager looked
        job = await failed(cluster, ENROL)
        assert (job.error_code, job.hint) == ("Conflict", hint)
        assert f"is not empty: {found}" in job.message

    simulate(body, lambda: SimCluster(84))


def test_an_enrolment_of_a_disk_that_is_pulled_meanwhile() -> None:
    async def body(cluster: SimCluster) -> None:
        await plugged_in(cluster)
        cluster.world.hosts["s1"].pull("extra")
        job = await failed(cluster, ENROL)
        assert job.error_code == "NotFound"
        assert job.hint == "on s1: `vastskyctl disk list --all` shows those that are there"

    simulate(body, lambda: SimCluster(85))


def test_an_enrolment_over_which_the_disk_breaks() -> None:
    async def body(cluster: SimCluster) -> None:
        await plugged_in(cluster)
        cluster.world.plan = Failing("s1", "disks.write_slot")
        assert (await failed(cluster, ENROL)).error_code == "Device"

    simulate(body, lambda: SimCluster(86))


def test_a_head_that_cannot_build_or_take_down_a_volume() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=8 * MIB)
        cluster.world.plan = Failing("h2", "md.create")
        job = await failed(cluster, ATTACH)
        assert (job.error_code, "md.create: failed" in job.message) == ("Device", True)
        cluster.world.plan = Failing("h2", "nothing")
        await asyncio.sleep(30)  # what there is of it is taken down
        await cluster.do(ATTACH)
        cluster.world.plan = Failing("h2", "md.stop")
        job = await failed(cluster, DETACH)
        assert (job.error_code, "md.stop: failed" in job.message) == ("Device", True)

    simulate(body, lambda: SimCluster(87))


def test_a_head_that_waits_for_legs_has_refused_nothing() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=8 * MIB)
        for host in ("s1", "s2"):
            cluster.world.power_cut(host)
        job = await failed(cluster, ATTACH)
        assert job.error_code == "Unreachable"
        assert "`vastskyctl volume show v`" in job.hint

    simulate(body, lambda: SimCluster(88))


def test_a_scrub_that_its_head_cannot_do() -> None:
    async def body(cluster: SimCluster) -> None:
        await cluster.create(size_bytes=8 * MIB)
        await cluster.do(ATTACH)
        cluster.world.plan = Failing("h2", "md.start_check")
        job = await failed(cluster, api.ScrubVolume(volume="v"))
        assert (job.error_code, "md.start_check: failed" in job.message) == ("Device", True)

    simulate(body, lambda: SimCluster(89))
