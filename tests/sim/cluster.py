"""A simulated cluster of real daemons, and those who use it: an administrator and programs.

Make it inside `loop.run`. The administrator asks any daemon that lives, again and again while the
manager is away, as a person would.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from tests.sim.blocks import IoError, PowerLostError
from tests.sim.fake_array import FakeArray
from tests.sim.fake_disks import FakeMedia
from tests.sim.fake_dm import DmBlock
from tests.sim.fake_nbd import NbdBlock
from tests.sim.faults import FaultPlan
from tests.sim.loop import EPOCH_S
from tests.sim.refusals import is_documented
from tests.sim.world import DaemonPorts, World
from vastskyd.core import answers, api
from vastskyd.core.errors import ExistsError, NotFoundError, UnreachableError, VastskyError
from vastskyd.core.guards import GUARD_BYTES
from vastskyd.core.ids import ClusterId, DiskId, JobId, NodeId
from vastskyd.core.model import (
    Apart,
    AttachmentState,
    Cluster,
    Extent,
    Generation,
    Job,
    JobState,
    Node,
    Record,
    Role,
    Volume,
    VolumeState,
)
from vastskyd.core.names import parse_extent_uuid
from vastskyd.core.reaching import EXPORT_PORT_FIRST
from vastskyd.core.state import ClusterState, Draft, load
from vastskyd.core.turn import Policy
from vastskyd.core.units import GRAIN_BYTES, MD_DATA_OFFSET_BYTES, MIB
from vastskyd.ondisk.slots import Current, choose
from vastskyd.roles.member import Member, Ports, Tuning
from vastskyd.store.identity import Identity

T = TypeVar("T")

CLUSTER = ClusterId("c" * 16)
PORT = 8884
LEG_TIMEOUT_S = 3.0
REBUILD_DELAY_S = 40.0
SMART_INTERVAL_S = 30.0
TUNING = Tuning(LEG_TIMEOUT_S, SMART_INTERVAL_S)
ASK_AGAIN_S = 0.5
JOB_WAIT_S = 5.0

POLICY = Policy(
    rebuild_delay_s=REBUILD_DELAY_S,
    segment_max_bytes=16 * MIB,
    attach_timeout_s=60.0,
)

# name → roles and number of disks
Shape = dict[str, tuple[tuple[Role, ...], int]]
APART: Shape = {
    "h1": ((Role.MANAGER, Role.HEAD), 0),
    "h2": ((Role.HEAD,), 0),
    "s1": ((Role.STORAGE,), 1),
    "s2": ((Role.STORAGE,), 1),
    "s3": ((Role.STORAGE,), 1),
}
TOGETHER: Shape = {
    "n1": ((Role.MANAGER, Role.STORAGE, Role.HEAD), 1),
    "n2": ((Role.STORAGE, Role.HEAD), 1),
    "n3": ((Role.STORAGE, Role.HEAD), 2),
}
# Storage hosts in two racks, a host alone in the third.
RACKED: Shape = {
    "h1": ((Role.MANAGER, Role.HEAD), 0),
    "h2": ((Role.HEAD,), 0),
    "a1": ((Role.STORAGE,), 1),
    "a2": ((Role.STORAGE,), 1),
    "b1": ((Role.STORAGE,), 1),
    "b2": ((Role.STORAGE, Role.HEAD), 1),
    "c1": ((Role.STORAGE,), 1),
}
RACKS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c"}


# All roles on one host.
ALONE: Shape = {"n1": ((Role.MANAGER, Role.STORAGE, Role.HEAD), 3)}
# It got company: of three copies it has two.
UNEVEN: Shape = ALONE | {"n2": ((Role.STORAGE, Role.HEAD), 2)}


def kept_apart(seed: int, shape: Shape) -> tuple[Shape, Apart]:
    """Of some seeds the cluster is one that began with a single host."""
    began_alone = random.Random(f"{seed}:apart").random() < 0.3
    return (UNEVEN, Apart.DISK) if began_alone else (shape, Apart.HOST)


class OpenIssuer:
    """roles.joining.Issuer without cryptography: the secret is the token."""

    def issue(self, csr_pem: str, node: NodeId, addresses: tuple[str, ...]) -> str:
        return f"certificate of {node}"

    def ca_pem(self) -> str:
        return "certificate of the CA"

    def token(
        self,
        cluster: ClusterId,
        manager: Node,
        secret: str,
        expires_s: float,
        roles: tuple[Role, ...],
    ) -> str:
        return secret


class SimCluster:
    """`shape` says which hosts there are, `racks` where. Their daemons start at once."""

    def __init__(
        self,
        seed: int,
        shape: Shape | None = None,
        plan: FaultPlan | None = None,
        *,
        policy: Policy = POLICY,
        restart_s: float | None = 1.0,
        reboot_s: float | None = None,
        disk_bytes: int = 128 * MIB,
        racks: dict[str, str] | None = None,
        copies_apart: Apart = Apart.HOST,
    ) -> None:
        self.world = World(seed, plan, restart_s=restart_s, reboot_s=reboot_s)
        self.policy = policy
        self.tuning = TUNING
        self.racks = racks or {}
        self.members: dict[str, Member] = {}
        self.checker = Checker(self)
        self._seen: tuple[int, ClusterState] | None = None
        shape = APART if shape is None else shape
        for name, (roles, disks) in shape.items():
            self.world.add_host(name, *roles, disks=disks, disk_bytes=disk_bytes)
        self.manager = next(n for n, (roles, _) in shape.items() if Role.MANAGER in roles)
        self.heads = tuple(n for n, (roles, _) in shape.items() if Role.HEAD in roles)
        self._write_records(copies_apart)
        for name in shape:
            self.start(name)

    def _write_records(self, copies_apart: Apart) -> None:
        store = self.world.stores[self.manager]
        draft = Draft(load(store.load()))
        manager = NodeId(self.manager)
        cluster = Cluster(id=CLUSTER, name="sim", manager=manager, created_s=EPOCH_S)
        draft.put(msgspec.structs.replace(cluster, copies_apart=copies_apart))
        for number, host in enumerate(self.world.hosts.values()):
            draft.put(
                Node(
                    id=host.node,
                    roles=host.roles,
                    addresses=host.addresses,
                    port=PORT,
                    export_port=EXPORT_PORT_FIRST + number,
                    rack=self.racks.get(host.name, ""),
                )
            )
        draft.put(Generation(number=0))
        store.commit(draft.puts(), draft.deletes())

    def start(self, name: str) -> None:
        self.world.start_daemon(name, self.member)

    async def join(self, name: str, *roles: Role, disks: int = 0, disk_bytes: int) -> None:
        """One host more, let in by a token, and its disks enrolled."""
        host = self.world.add_host(name, *roles, disks=disks, disk_bytes=disk_bytes)
        made: api.Token = await self.ask(api.CreateToken(roles=roles))
        manager = self.members[self.manager].manager
        if manager is None:
            raise TypeError(f"{self.manager} is no manager")
        await manager.admit(
            api.Join(
                secret=made.token,
                node=host.node,
                roles=roles,
                addresses=host.addresses,
                port=PORT,
                rack="",
                csr_pem="",
            )
        )
        self.start(name)
        if Role.HEAD in roles:
            self.heads = (*self.heads, name)
        await self.until(f"{name} is online", 15, self._all_online)
        for media in host.media:
            await self._enrol(api.EnrolDisk(node=host.node, path=f"/dev/disk/by-id/{media.serial}"))

    def member(self, ports: DaemonPorts) -> Member:
        """A host's daemon, as roles.daemon makes it."""
        manager = self.world.hosts[self.manager]
        identity = Identity(
            cluster=CLUSTER,
            cluster_name="sim",
            node=ports.node,
            roles=ports.roles,
            addresses=ports.addresses,
            port=PORT,
            rack="",
            manager=manager.node,
            manager_addresses=manager.addresses,
            manager_port=PORT,
        )
        manages = Role.MANAGER in ports.roles
        doors = Ports(
            kernel=ports.kernel,
            exports=ports.exports,
            disks=ports.disks,
            smart=ports.smart,
            peers=ports.peers,
            clock=ports.clock,
            vault=ports.vault if manages else None,
            issuer=OpenIssuer() if manages else None,
        )
        member = self.members[ports.node] = Member(identity, doors, self.policy, self.tuning)
        return member

    def power_on(self, *names: str) -> None:
        for name in names:
            self.world.power_on(name, self.member)

    # --- the administrator ----------------------------------------------------------------------

    async def ask(self, request: Record, by: str = "") -> Any:
        """The answer of a live daemon, of `by` if that is given; tries until the manager answers.
        Errors are raised, but for its being away."""
        while True:
            answer = await self._ask_once(request, by)
            if answer is not None:
                return answer
            await asyncio.sleep(ASK_AGAIN_S)

    async def _ask_once(self, request: Record, by: str) -> Record | None:
        """None: nobody answered. What was asked may have been done."""
        names = [by] if by else sorted(self.world.daemons)
        frozen = self.world.network.frozen
        live = [
            name
            for name in names
            if name in self.world.daemons and name in self.members and name not in frozen
        ]
        if not live:
            return None
        name = next((n for n in live if n == self.manager), live[0])
        task = self.world.daemons[name].door.spawn(self.members[name].ask(request))
        task.add_done_callback(_heard)  # also where who asked waits no longer
        await asyncio.wait((task,))
        if task.cancelled():
            return None
        error = task.exception()
        if isinstance(error, UnreachableError) and "unreachable" not in error.message:
            return None
        if error is not None and not isinstance(error, VastskyError):
            return None
        if error is not None:
            assert is_documented(request, error), f"{type(request)}: {error!r}"
        answer: Record = task.result()
        return answer

    async def insist(self, request: Record, within_s: float = 120.0) -> None:
        """As `do`, by somebody who does not know whether the manager did it before it died."""
        try:
            await self.do(request, within_s)
        except ExistsError:
            if not isinstance(request, api.CreateVolume):
                raise
            name = request.name
            await self.until(f"{name} is created", within_s, lambda: self.available(name))
        except NotFoundError:
            if not isinstance(request, api.DeleteVolume):
                raise

    async def start_job(self, request: Record) -> Job:
        answer = await self.ask(request)
        if not isinstance(answer, api.JobStarted):
            raise TypeError(f"{request} is answered by {answer}")
        return answer.job

    async def job(self, job: Job) -> Job:
        """The job once it has ended."""
        while True:
            request = api.ShowJob(job=JobId(job.id), wait_s=JOB_WAIT_S)
            shown: answers.JobList = await self.ask(request)
            if shown.jobs[0].state is not JobState.RUNNING:
                return shown.jobs[0]

    async def do(self, request: Record, within_s: float = 120.0) -> Job:
        """The job that the request starts, ended well."""
        async with asyncio.timeout(within_s):
            ended = await self.job(await self.start_job(request))
        if ended.state is not JobState.DONE:
            raise AssertionError(f"{request}: {ended.error_code}: {ended.message}")
        return ended

    async def volume(self, name: str) -> answers.VolumeView:
        shown: answers.VolumeList = await self.ask(api.ListVolumes(volume=name))
        return shown.volumes[0]

    async def find(self, name: str) -> answers.VolumeView | None:
        try:
            return await self.volume(name)
        except NotFoundError:
            return None

    async def status(self) -> answers.ClusterStatus:
        answer: answers.ClusterStatus = await self.ask(api.ShowStatus())
        return answer

    async def events(self) -> tuple[str, ...]:
        answer: answers.EventList = await self.ask(api.ListEvents(limit=1000))
        return tuple(event.kind for event in answer.events)

    async def until(self, what: str, within_s: float, so: Callable[[], Any]) -> float:
        """Waits until `so()` (a value, or a coroutine's) is true; how long that took."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        said: object = None
        while loop.time() < began_s + within_s:
            said = so()
            if asyncio.iscoroutine(said):
                try:
                    async with asyncio.timeout(began_s + within_s - loop.time()):
                        said = await said
                except TimeoutError:
                    break
            if said:
                return loop.time() - began_s
            await asyncio.sleep(0.1)
        state = self.state()
        jobs = [job for job in state.jobs.values() if job.state is JobState.RUNNING]
        detail = "\n".join(map(str, (*jobs, *state.volumes.values())))
        raise AssertionError(
            f"not within {within_s:g} s: {what}; last: {said}; at {loop.time():.1f} s:\n{detail}"
        )

    async def enrol_all(self) -> None:
        await self.until("all nodes are online", 15, self._all_online)
        requests = [
            api.EnrolDisk(node=host.node, path=f"/dev/disk/by-id/{media.serial}")
            for host in self.world.hosts.values()
            for media in host.media
        ]
        await asyncio.gather(*(self._enrol(request) for request in requests))

    async def _enrol(self, request: api.EnrolDisk) -> None:
        while True:
            with contextlib.suppress(NotFoundError, UnreachableError):  # not reported yet
                await self.do(request)
                return
            await asyncio.sleep(ASK_AGAIN_S)

    async def _all_online(self) -> bool:
        shown: answers.NodeList = await self.ask(api.ListNodes())
        return all(node.state == "online" for node in shown.nodes)

    async def create(self, name: str = "v", size_bytes: int = 40 * MIB, copies: int = 2) -> None:
        await self.do(api.CreateVolume(name=name, size_bytes=size_bytes, copies=copies))

    async def attach(self, name: str = "v", head: str = "", *, force: bool = False) -> None:
        head = head or self.heads[0]
        await self.do(api.AttachVolume(volume=name, head=NodeId(head), force=force))

    async def detach(self, name: str = "v") -> None:
        await self.do(api.DetachVolume(volume=name))

    async def delete(self, name: str = "v") -> None:
        await self.do(api.DeleteVolume(volume=name))

    async def redundant(self, name: str = "v") -> bool:
        view = await self.volume(name)
        return view.health == "redundant" and all(
            leg.state == "in-sync" for segment in view.segments for leg in segment.legs
        )

    # --- what is so, seen from above ------------------------------------------------------------

    def state(self) -> ClusterState:
        """What the manager has committed."""
        store = self.world.stores[self.manager]
        if self._seen is None or self._seen[0] != store.commits:
            self._seen = (store.commits, load(store.records))
        return self._seen[1]

    def owner(self, name: str) -> str:
        """The head that the volume is, or is being, attached on; or empty."""
        for volume in self.state().volumes.values():
            if volume.name == name and (attachment := volume.given()) is not None:
                return attachment.head
        return ""

    def mended_on(self, name: str) -> str:
        """The head on which the volume is mended; or empty."""
        for volume in self.state().volumes.values():
            attachment = volume.attachment
            if volume.name == name and attachment is not None and attachment.mending:
                return attachment.head
        return ""

    def attached_on(self, name: str) -> str:
        """The head on which the volume is attached, by the manager's records; or empty."""
        for volume in self.state().volumes.values():
            attachment = volume.given()
            if volume.name == name and attachment is not None:
                attached = attachment.state is AttachmentState.ATTACHED
                return attachment.head if attached else ""
        return ""

    def state_of(self, name: str) -> Volume:
        return self.state().volume(name)

    def stacks(self, host: str) -> list[str]:
        """Names of what stands on the host's kernel that is no extent."""
        return [
            getattr(block, "dm_name", block.name)
            for block in self.world.hosts[host].kernel.blocks.values()
            if isinstance(block, FakeArray | NbdBlock)
            or (isinstance(block, DmBlock) and parse_extent_uuid(block.uuid) is None)
        ]

    def leftovers(self) -> list[str]:
        """What no volume should leave behind, on any host that has power."""
        left = []
        state = self.state()
        for host in self.world.hosts.values():
            for block in host.kernel.blocks.values():
                if isinstance(block, DmBlock | FakeArray | NbdBlock):
                    left.append(f"{host.name}: {getattr(block, 'dm_name', block.name)}")
            left += [f"{host.name}: export server for {head}" for head in host.servers]
            for media in host.media:
                on_it = extents_on(media, set(state.disks))
                left += [f"{host.name}: extent {e} on {media.serial}" for e in on_it]
        left += [f"manager: extent {extent}" for extent in state.extents]
        left += [f"manager: volume {volume.name}" for volume in state.volumes.values()]
        left += [
            f"manager: job {job.kind} {job.about}"
            for job in state.jobs.values()
            if job.state is JobState.RUNNING
        ]
        return left

    async def nothing_left(self, within_s: float = 60.0) -> None:
        try:
            await self.until("nothing is left over", within_s, lambda: not self.leftovers())
        except AssertionError as error:
            raise AssertionError(f"{error}\nleft over: {self.leftovers()}") from None
        disks: answers.DiskList = await self.ask(api.ListDisks())
        state = self.state()
        for disk in disks.disks:
            record = state.disks.get(disk.id)
            if record is not None:
                area_bytes = record.area_end_bytes - record.area_start_bytes
                if disk.free_bytes != area_bytes:
                    raise AssertionError(f"{disk.path}: {disk.free_bytes} of {area_bytes} are free")

    def spawn(self, coro: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        return self.world.spawn(coro)

    def available(self, name: str) -> bool:
        return any(
            volume.name == name and volume.state is VolumeState.AVAILABLE
            for volume in self.state().volumes.values()
        )


def _heard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def data_grain(extent: Extent, *, with_array: bool = True) -> int:
    """Where on its disk a leg has the volume's data."""
    before_bytes = GUARD_BYTES + (MD_DATA_OFFSET_BYTES if with_array else 0)
    return (extent.offset_bytes + before_bytes) // GRAIN_BYTES


def extents_on(media: FakeMedia, known: set[DiskId]) -> tuple[str, ...]:
    """The extents in the description of a disk that the manager knows."""
    found = choose(tuple(media.slots))
    if not isinstance(found, Current) or found.description.disk not in known:
        return ()
    return tuple(extent.id for extent in found.description.extents)


@dataclass
class Grain:
    """`acked`: the last acknowledged tag. `maybe`: tags of later writes that were not."""

    acked: int = 0
    maybe: set[int] = field(default_factory=set)
    busy: bool = False

    def allowed(self) -> set[int]:
        return {self.acked, *self.maybe}


class Checker:
    """Programs on the heads that know what was acknowledged to them."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._tag = 0
        self.grains: dict[str, dict[int, Grain]] = {}
        self.acknowledged = 0
        self.tasks: list[asyncio.Task[None]] = []

    def grain(self, volume: str, number: int) -> Grain:
        return self.grains.setdefault(volume, {}).setdefault(number, Grain())

    def forget(self, volume: str) -> None:
        self.grains.pop(volume, None)

    async def write(self, head: str, volume: str, number: int) -> bool:
        """Whether it was acknowledged. Waits as long as the stack makes it wait."""
        grain = self.grain(volume, number)
        if grain.busy:
            return False
        self._tag += 1
        tag = self._tag
        grain.busy = True
        grain.maybe.add(tag)
        try:
            await self._cluster.world.hosts[head].write(volume, number, tag)
        except NotFoundError:
            grain.maybe.discard(tag)  # there was no device
            return False
        except (IoError, PowerLostError):
            return False
        finally:
            grain.busy = False
        self._cluster.world.log(f"{head} wrote {volume}[{number}] = {tag}")
        grain.acked = tag
        grain.maybe.clear()
        self.acknowledged += 1
        return True

    async def read(self, head: str, volume: str, number: int) -> bool:
        """Whether there was an answer. AssertionError if it is wrong."""
        grain = self.grain(volume, number)
        allowed = grain.allowed()
        try:
            value = await self._cluster.world.hosts[head].read(volume, number)
        except (NotFoundError, IoError, PowerLostError):
            return False
        allowed |= grain.allowed()
        if value not in allowed:
            raise AssertionError(
                f"{head}: {volume}[{number}] reads {value}; right would be {sorted(allowed)},"
                f" acknowledged was {grain.acked}"
            )
        return True

    async def read_all(self, head: str, volume: str) -> None:
        """Every grain ever written, twice: reads go to the legs in turn."""
        for number in sorted(self.grains.get(volume, {})):
            for _ in range(3):
                async with asyncio.timeout(60):
                    if not await self.read(head, volume, number):
                        raise AssertionError(f"{head}: {volume}[{number}] cannot be read")

    async def keep_writing(self, head: str, volume: str, grains: int, pause_s: float) -> None:
        """Until cancelled; one write after the other, and a read in between."""
        number = 0
        while True:
            await self.write(head, volume, number % grains)
            try:
                await self.read(head, volume, (number * 7) % grains)
            except AssertionError as error:
                self._cluster.world.failures.append(str(error))
                return
            number += 1
            await asyncio.sleep(pause_s)
