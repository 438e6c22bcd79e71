"""The enrolled disks of one host: recognised, described, and remembered while they are there."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from vastskyd.core.description import DiskDescription
from vastskyd.core.documents import (
    CandidateFact,
    DiskClaim,
    DiskCondition,
    DiskFact,
    DiskSpec,
)
from vastskyd.core.errors import (
    ConflictError,
    DamagedError,
    LateError,
    NotFoundError,
    VastskyError,
)
from vastskyd.core.ids import ClusterId, DiskId
from vastskyd.core.model import SmartHealth
from vastskyd.core.offers import is_in_use, match
from vastskyd.core.ondisk_layout import AREA_START_BYTES
from vastskyd.core.units import MIB, align_down, format_size
from vastskyd.core.witness import DiskSighting
from vastskyd.ondisk.codec import encode
from vastskyd.ondisk.slots import Current, Damaged, Empty, choose, next_slot
from vastskyd.ports import BlockDevice, Disks
from vastskyd.roles.paces import Paces
from vastskyd.roles.progress import Step, unwatched
from vastskyd.roles.smarts import Smarts

log = logging.getLogger(__name__)

_DISK_MIN_BYTES = 64 * MIB


@dataclass(frozen=True)
class _Foreign:
    """A disk with a description that is not of this cluster, or cannot be read."""

    said: str
    claim: DiskClaim | None = None


_UNREADABLE = DiskClaim(cluster=ClusterId(""), cluster_name="", disk=DiskId(""))


@dataclass
class Member:
    """A disk of ours that is there. `failed` says why it is not to be relied on; `refused_at` is
    the number of the last look at all disks when it first refused its description. `unsure`: a
    write of it did not end well, and may have been done all the same, or be done later."""

    path: str
    kernel_name: str
    size_bytes: int
    current: Current
    drive: str = ""
    file: str = ""
    failed: str = ""
    refused_at: int | None = None
    unsure: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def description(self) -> DiskDescription:
        return self.current.description


class Members:
    """Knows which disks are here, and writes their descriptions."""

    def __init__(self, disks: Disks, cluster: ClusterId, cluster_name: str, smarts: Smarts) -> None:
        """`auto_enroll`: patterns of the disks that are to be offered as such."""
        self.auto_enroll: tuple[str, ...] = ()
        self._disks = disks
        self._smarts = smarts
        self._cluster = cluster
        self._cluster_name = cluster_name
        self._here: dict[DiskId, Member] = {}
        self._foreign: dict[str, _Foreign] = {}
        self._refused: dict[DiskId, VastskyError] = {}
        self._lost: set[DiskId] = set()
        self._retired: set[DiskId] = set()
        self._blocks: tuple[BlockDevice, ...] = ()
        self._looks = 0

    def get(self, disk: DiskId) -> Member | None:
        """The disk, if it is here and whole."""
        member = self._here.get(disk)
        return None if member is None or member.failed else member

    def all(self) -> dict[DiskId, Member]:
        return dict(self._here)

    @property
    def looked(self) -> bool:
        return self._looks > 0

    def sightings(self) -> tuple[DiskSighting, ...]:
        """All disks of this cluster that are here, whether the manager knows them or not."""
        serials = {block.path: block.serial for block in self._blocks}
        return tuple(
            DiskSighting(
                id=disk,
                path=member.path,
                serial=serials.get(member.path, ""),
                size_bytes=member.size_bytes,
                generation=member.current.generation,
                failed=member.failed,
            )
            for disk, member in sorted(self._here.items())
        )

    def foreign(self) -> tuple[str, ...]:
        """Disks that were somebody's and are not of this cluster, or cannot be read: for people."""
        return tuple(f"{path}: {self._foreign[path].said}" for path in sorted(self._foreign))

    async def rescan(self, step: Step = unwatched, *, anew: bool = False) -> None:
        """Notices disks that came and went. `anew`: also what another host may have written."""
        self._blocks = await self._disks.list(anew=anew)
        self._looks += 1
        paths = {block.path: block for block in self._blocks}
        left: dict[DiskId, str] = {}
        for disk, member in list(self._here.items()):
            block = paths.get(member.path)
            if block is not None and block.file == member.file:  # a loop device may change hands
                member.kernel_name, member.drive = block.kernel_name, block.drive
            else:
                left[disk] = member.path
                del self._here[disk]
        known = {member.path for member in self._here.values()}
        self._foreign = {p: why for p, why in self._foreign.items() if p in paths}
        found: dict[DiskId, list[Member]] = {}
        for block in self._blocks:
            if block.member and block.path not in known:
                step()
                one = await self._recognise(block)
                if one is not None:
                    found.setdefault(one.description.disk, []).append(one)
        for disk, members in found.items():
            self._take(disk, members)
        for disk, path in left.items():
            if disk not in self._here:  # not only called by another name
                log.warning("disk %s is gone from %s", disk, path)
                self._retired.discard(disk)
                self._lost.add(disk)

    def _take(self, disk: DiskId, members: list[Member]) -> None:
        """What stands at one place alone. Of two that carry the same description one may be a copy
        from long ago, or both be ways to one disk."""
        if disk in self._here:
            said = f"a copy of disk {disk}, which is at {self._here[disk].path}"
        elif len(members) > 1:
            places = " and ".join(member.path for member in members)
            said = f"disk {disk} is here more than once, at {places}: take away what is a copy"
        else:
            (self._here[disk],) = members
            self._foreign.pop(members[0].path, None)
            self._lost.discard(disk)
            return
        for member in members:
            self._foreign[member.path] = _Foreign(said, _claim(member.description))

    async def _recognise(self, block: BlockDevice) -> Member | None:
        """None: it is not of this cluster, and known as such."""
        try:
            found = choose((await self._disks.read_slots(block.path)).slots)
        except VastskyError as error:
            self._foreign[block.path] = _Foreign(f"cannot be read: {error.message}")
            return None
        match found:
            case Current() if found.description.cluster == self._cluster:
                return Member(
                    block.path,
                    block.kernel_name,
                    block.size_bytes,
                    found,
                    block.drive,
                    block.file,
                )
            case Current():
                claim = _claim(found.description)
                whose = f"disk {claim.disk} of another cluster, {claim.cluster_name}"
                whose += f" ({claim.cluster})" if claim.cluster_name else str(claim.cluster)
                self._foreign[block.path] = _Foreign(whose, claim)
            case Damaged():
                said = f"damaged vastsky disk: {found.message}"
                self._foreign[block.path] = _Foreign(said, _UNREADABLE)
            case Empty():
                self._foreign[block.path] = _Foreign("was a vastsky disk")
        return None

    def to_be_asked(self, specs: tuple[DiskSpec, ...]) -> dict[DiskId, str]:
        """Where the disks are whose health is of interest: ours, and those that are to be. It is
        a drive that has health, not its partitions, nor a file's loop device."""
        paths = {disk: member.drive or member.path for disk, member in self._here.items()}
        drives = {name: b.drive for b in self._blocks for name in (b.path, *b.aliases) if b.drive}
        wanted = {s.id: drives.get(s.path, s.path) for s in specs if s.enrol}
        return wanted | paths

    async def enrol(self, spec: DiskSpec, step: Step = unwatched) -> None:
        """Makes the disk ours, once it was asked for its health; a refusal is kept for the
        report."""
        if not self._smarts.asked(spec.id):
            return
        try:
            await self._enrol(spec, step)
            self._refused.pop(spec.id, None)
        except VastskyError as error:
            self._refused[spec.id] = error.with_traceback(None)

    async def _enrol(self, spec: DiskSpec, step: Step) -> None:
        await self.rescan(step, anew=True)  # it may have been used since
        step()
        block = next(
            (b for b in self._blocks if spec.path == b.path or spec.path in b.aliases), None
        )
        if block is None:
            raise NotFoundError(
                f"there is no disk {spec.path} here",
                hint="`vastskyctl disk list --all` shows those that are there",
            )
        before = next((d for d, m in self._here.items() if m.path == block.path), None)
        await self._refuse_unfit(spec, block, before)
        if block.found:
            await self._disks.erase_signatures(block.path)
            step()
        found = choose((await self._disks.read_slots(block.path)).slots)
        description = DiskDescription(
            cluster=self._cluster,
            disk=spec.id,
            cluster_name=self._cluster_name,
            area_start_bytes=AREA_START_BYTES,
            area_end_bytes=align_down(block.size_bytes) - MIB,
        )
        # Both slots, so that no older description can speak for the disk again.
        first = await self._write(block.path, description, found)
        second = await self._write(block.path, description, first)
        if before is not None:
            del self._here[before]
            self._retired.discard(before)
        self._here[spec.id] = Member(
            block.path, block.kernel_name, block.size_bytes, second, block.drive, block.file
        )
        log.info("disk %s enrolled at %s", spec.id, block.path)

    async def _refuse_unfit(
        self, spec: DiskSpec, block: BlockDevice, before: DiskId | None
    ) -> None:
        """`before`: the disk of this cluster that it is, or was."""
        if before is not None and before not in self._retired:
            raise ConflictError(
                f"{spec.path} is a disk of this cluster already",
                hint=f"`vastskyctl disk show {before}` shows how it is",
            )
        if block.size_bytes < _DISK_MIN_BYTES:
            raise ConflictError(
                f"{spec.path} has {format_size(block.size_bytes)};"
                f" {format_size(_DISK_MIN_BYTES)} is the least",
                hint="enrol a larger one: `vastskyctl disk list --all` shows those that are there",
            )
        smart = self._smarts.reading(spec.id)
        if smart is not None and smart.health is SmartHealth.FAILING and not spec.failing:
            raise ConflictError(
                f"{spec.path} says that it is failing (SMART): {smart.reason}",
                hint=f"to take it all the same: `vastskyctl disk enrol {spec.path} --failing`",
            )
        if block.found and not spec.wipe:
            what, _ = self._what_is_on(block)
            raise ConflictError(
                f"{spec.path} is not empty: {what}",
                hint=f"`lsblk -f {spec.path}` shows what uses it; end that first"
                if is_in_use(block.found)
                else f"to destroy what is on it: `vastskyctl disk enrol {spec.path} --wipe`",
            )
        if spec.unasked and (left := await self._disks.remnants(block.path)):
            raise ConflictError(
                f"{spec.path} is not new: {left}",
                hint=f"to take it all the same: `vastskyctl disk enrol {spec.path}`",
            )

    async def _write(
        self, path: str, description: DiskDescription, found: Current | Empty | Damaged
    ) -> Current:
        to = next_slot(found)
        await self._disks.write_slot(path, to.slot, encode(description, to.generation))
        return Current(description, to.generation, to.slot)

    async def describe(
        self, disk: DiskId, change: Callable[[DiskDescription], DiskDescription]
    ) -> None:
        """Writes the description as `change` makes it; durable on return. One change after the
        other: none is lost. A disk that refuses it has failed, if it does so again after the next
        rescan: one that was pulled out is missing, and one that is late is slow."""
        member = self._here[disk]
        async with member.writing:
            description = change(member.description)
            if description == member.description and not member.unsure:
                return
            member.unsure = True  # to the same slot, the next write takes the place of this one
            try:
                member.current = await self._write(member.path, description, member.current)
            except (DamagedError, LateError):
                raise
            except VastskyError as error:
                if member.refused_at is None:
                    member.refused_at = self._looks
                elif member.refused_at < self._looks:
                    member.failed = f"its description cannot be written: {error.message}"
                raise
            member.refused_at = None
            member.unsure = False

    def facts(
        self, specs: tuple[DiskSpec, ...], paces: Paces, *, settled: bool
    ) -> tuple[DiskFact, ...]:
        """For each disk that should be here, and for others of this cluster that are: perhaps one
        was moved to this host. `settled`: the host has been up long enough that a disk which is
        not here is missing, not late."""
        found = [self._fact(spec, paces, settled=settled) for spec in specs]
        facts = [fact for fact in found if fact is not None]
        facts += [self._present(disk, self._here[disk], paces) for disk in sorted(self._retired)]
        return tuple(facts)

    def _fact(self, spec: DiskSpec, paces: Paces, *, settled: bool) -> DiskFact | None:
        member = self._here.get(spec.id)
        if member is not None:
            return self._present(spec.id, member, paces)
        refused = self._refused.get(spec.id) if spec.enrol else None
        if refused is not None:
            return DiskFact(
                id=spec.id,
                path=spec.path,
                condition=DiskCondition.REFUSED,
                message=refused.message,
                error_code=refused.code,
                hint=refused.hint,
            )
        if not spec.enrol and (settled or spec.id in self._lost):
            return DiskFact(
                id=spec.id,
                path=spec.path,
                condition=DiskCondition.MISSING,
                message=f"no disk of this host carries its description (was {spec.path})",
            )
        return None

    def _present(self, disk: DiskId, member: Member, paces: Paces) -> DiskFact:
        return DiskFact(
            id=disk,
            path=member.path,
            condition=DiskCondition.FAILED if member.failed else DiskCondition.PRESENT,
            size_bytes=member.size_bytes,
            area_start_bytes=member.description.area_start_bytes,
            area_end_bytes=member.description.area_end_bytes,
            message=member.failed,
            slow_ms=paces.slow_ms(member.kernel_name),
            smart=self._smarts.reading(disk),
            drive=member.drive,
            file=member.file,
            aliases=self._aliases(member),
        )

    def _aliases(self, member: Member) -> tuple[str, ...]:
        names = (b.aliases for b in self._blocks if b.kernel_name == member.kernel_name)
        return next(names, ())

    def name(self, specs: tuple[DiskSpec, ...]) -> None:
        """The manager's disks of this host; others that carry the cluster's name are retired."""
        self._retired = set(self._here) - {spec.id for spec in specs}

    def _what_is_on(self, block: BlockDevice) -> tuple[str, DiskClaim | None]:
        for disk in self._retired:
            if self._here[disk].path == block.path:
                said = f"disk {disk} of this cluster, which the manager does not know"
                return said, _claim(self._here[disk].description)
        foreign = self._foreign.get(block.path, _Foreign(block.found))
        return foreign.said, foreign.claim

    def candidates(self) -> tuple[CandidateFact, ...]:
        """Block devices that are nobody's member of this cluster, or were retired."""
        ours = {m.path for disk, m in self._here.items() if disk not in self._retired}
        return tuple(self._candidate(block) for block in self._blocks if block.path not in ours)

    def _candidate(self, block: BlockDevice) -> CandidateFact:
        found, claim = self._what_is_on(block)
        names = () if block.partition else (block.path, *block.aliases)
        return CandidateFact(
            path=block.path,
            serial=block.serial,
            size_bytes=block.size_bytes,
            found=found,
            aliases=block.aliases,
            claim=claim,
            matches=match(self.auto_enroll, names),
        )


def _claim(description: DiskDescription) -> DiskClaim:
    return DiskClaim(
        cluster=description.cluster,
        cluster_name=description.cluster_name,
        disk=description.disk,
    )
