"""The doors: all that the roles ask of the world, as Protocols.

Real sides: `kernel/`, `exports/`, `store/`, `wire/`. Fakes live in the tests; one contract suite
holds both to what is written here. All methods that may wait are coroutines with a bound of
their own; failures are the classes of `core.errors` (DeviceError unless said otherwise).
Every method that makes something answers well if it is there already, and every method that
removes something if it is gone.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

from vastskyd.core.documents import Endpoint
from vastskyd.core.ids import ExtentId, NodeId
from vastskyd.core.model import Encryption, Record, SmartReading
from vastskyd.core.names import LegName, PathName
from vastskyd.core.pace import Activity

# --- device-mapper -----------------------------------------------------------------------


@dataclass(frozen=True)
class LinearTarget:
    """`length_bytes` of `device` from `offset_bytes`; stacked in order."""

    device: str
    offset_bytes: int
    length_bytes: int


class DmDevice(msgspec.Struct, frozen=True):
    """A device of ours. `device` is /dev/dm-N; `slaves` the kernel names below it (nbd0, md3)."""

    name: str
    uuid: str
    device: str
    size_bytes: int
    open_count: int
    slaves: tuple[str, ...]
    suspended: bool = False


class PathCondition(StrEnum):
    ACTIVE = "active"
    FAILED = "failed"


class LegStatus(msgspec.Struct, frozen=True):
    """A leg's multipath state: kernel name of each path and its condition; `holds` is
    queue_if_no_path."""

    paths: tuple[tuple[str, PathCondition], ...]
    holds: bool


class DeviceMapper(Protocol):
    async def devices(self) -> tuple[DmDevice, ...]:
        """All devices whose UUID begins with VASTSKY-."""

    async def ensure_linear(
        self, name: str, uuid: str, targets: tuple[LinearTarget, ...], *, public: bool
    ) -> str:
        """The device, active, with exactly this table; its path /dev/dm-N. Not `public`: kept
        from udev's probing rules. A table that differs is reloaded."""

    async def ensure_leg(self, name: LegName, paths: tuple[str, ...], size_bytes: int) -> str:
        """The leg's multipath device over `paths` (device files, at least one), holding I/O when
        all fail. Given other paths than it has, its table is replaced without losing or
        failing held I/O; answers /dev/dm-N."""

    async def leg_status(self, name: LegName) -> LegStatus:
        """Never blocks on held I/O. NotFoundError if there is no such device."""

    async def release_leg(self, name: LegName) -> None:
        """fail_if_no_path: what is held fails now, and what comes fails while no path is there.
        ensure_leg arms the hold again."""

    async def retry_leg(self, name: LegName) -> None:
        """Paths that failed count as good again: what is held is tried once more."""

    async def replace_with_error(self, name: str) -> None:
        """Every I/O of the device fails from now on: the last resort for a device in use."""

    async def end_writers(self, name: str) -> tuple[str, ...]:
        """Kills all programs that write to the device or to a file system on it: when it returns
        none of them will be told how a write ended. Whom, for people: "fio (pid 812)"."""

    async def abandon(self, name: str) -> None:
        """For a device that is in use for good: every I/O fails from now on, its name is free,
        and nothing is mounted from it any more. What is left of it is a device named
        names.wreck_dm_name, which can be removed once its last user is gone."""

    async def written_bytes(self, device: str) -> int:
        """What was written to /dev/dm-N since it was made."""

    async def remove(self, name: str) -> None:
        """Gone. BusyError if something holds it open (after a bounded retry)."""

    async def holders(self, name: str) -> tuple[str, ...]:
        """Who uses the device, for people: "mounted on /srv", "held by dm-4 (vg0-home)",
        "opened by fio (pid 812)". Empty: nobody, or udev, which looks at it for a moment."""


# --- md ----------------------------------------------------------------------------------


class MemberState(StrEnum):
    IN_SYNC = "in-sync"
    RECOVERING = "recovering"  # a spare being filled
    SPARE = "spare"
    FAULTY = "faulty"


class MdMember(msgspec.Struct, frozen=True):
    """`device` is the kernel name (dm-5)."""

    device: str
    state: MemberState


class MdArray(msgspec.Struct, frozen=True):
    """`uuid` as 32 hex digits. Not `running`: being put together or taken apart, or left so by
    whoever did it; then members that are missing say nothing. `read_only`: not yet switched to
    writing. `sync_action` as the kernel's word; `sync_done_bytes` of `sync_total_bytes` when not
    idle. `writes_held`: by hold_writes, whoever called it."""

    device: str
    uuid: str
    members: tuple[MdMember, ...]
    running: bool
    raid_devices: int
    read_only: bool
    sync_action: str
    sync_done_bytes: int
    sync_total_bytes: int
    writes_held: bool = False


@dataclass(frozen=True)
class CheckStatus:
    """Of the last start_check. `complete`: it came to its end, and `mismatch_bytes` is about how
    much differed: never 0 if anything did. Neither `running` nor `complete`: something ended it."""

    running: bool
    complete: bool
    done_bytes: int
    mismatch_bytes: int


@dataclass(frozen=True)
class Superblock:
    """What md's superblock on a leg says. `events` grows with each change of the array's state;
    `in_array`: by its own word the leg has a place in the array, and has not failed."""

    array_uuid: str
    events: int
    in_array: bool


class Md(Protocol):
    async def arrays(self) -> tuple[MdArray, ...]:
        """Arrays of which a member is a leg of ours. Reads sysfs only: never blocks on a held
        leg."""

    async def create(
        self, uuid: str, name: str, legs: tuple[str, ...], copies: int, size_bytes: int
    ) -> str:
        """A new raid1 over `legs` (all reading as zeros; fewer than `copies`: the rest is
        missing), of exactly `size_bytes`, assumed clean, with a write-intent bitmap; what stood
        on the legs before is overwritten. Read-only until make_writable. Answers /dev/mdN."""

    async def assemble(self, uuid: str, name: str, legs: tuple[str, ...]) -> str:
        """The array from these legs and no others, started even if degraded, read-only until
        make_writable. Legs that md finds out of date are left out of it. Answers /dev/mdN."""

    async def superblock(self, leg: str) -> Superblock | None:
        """None: there is none."""

    async def make_writable(self, device: str) -> None:
        """Starts the resync that an unclean stop left pending."""

    async def add(self, device: str, leg: str, *, fresh: bool) -> None:
        """The leg joins and is filled: by the bitmap where md still knows it, and not `fresh`;
        else whole."""

    async def fail(self, device: str, leg: str) -> None:
        """md stops using the leg. Call release_leg first, or it may wait for held I/O."""

    async def remove(self, device: str, leg: str) -> None:
        """A failed leg leaves the array; its device is free. Also for a leg already detached."""

    async def resize(self, device: str, raid_devices: int) -> None:
        """The array is made for that many legs; those in it stay in it. A new place is empty, and
        the array degraded, until a leg is added. BusyError: something is being copied, or more legs
        than that are in it."""

    async def thaw(self, device: str) -> None:
        """An array whose `sync_action` is "frozen" begins what it has to copy. Idempotent.
        mdadm freezes an array before it adds a leg; one that was killed leaves it so."""

    async def set_sync_rate(self, device: str, min_kib_s: int, max_kib_s: int) -> None:
        """A resync goes at `min_kib_s` while the array is in use, else at up to `max_kib_s`, which
        wins where it is the lower."""

    async def start_check(self, device: str) -> None:
        """md reads all legs that are in sync and counts where they differ; it changes nothing. One
        that was started so and runs goes on. BusyError while anything else is being copied."""

    async def check_status(self, device: str) -> CheckStatus: ...

    async def stop_check(self, device: str) -> None:
        """Well if none runs."""

    async def hold_writes(self, device: str, offset_bytes: int, length_bytes: int) -> None:
        """Once it returns, no write to this range of the array is under way, and those that come
        wait. Reads go on, and so does the rest. It outlives who called it: release_writes."""

    async def release_writes(self, device: str) -> None:
        """What waits goes on. BusyError while a write_leg is still on its way, by whomever: it
        would overtake what waits."""

    async def read_leg(self, leg: str, offset_bytes: int, length_bytes: int) -> bytes:
        """Of the data that md keeps there, past all caches; in whole blocks of 4 KiB."""

    async def write_leg(self, leg: str, offset_bytes: int, content: bytes) -> None:
        """Behind md's back, durable when it returns. Only within what hold_writes holds."""

    async def stop(self, device: str) -> None:
        """BusyError if the array is open."""

    async def discard_unmade(self) -> None:
        """Stops arrays of ours that have no leg yet: whoever made them was killed. None is being
        made when it returns, nor was meanwhile."""


# --- NBD ---------------------------------------------------------------------------------


class NbdDevice(msgspec.Struct, frozen=True):
    """`device` is /dev/nbdN; `alive` False once its socket was seen dead or its server gone."""

    device: str
    path: PathName
    alive: bool


class Nbd(Protocol):
    async def devices(self) -> tuple[NbdDevice, ...]:
        """Connected devices whose backend identifier is ours."""

    async def connect(
        self,
        path: PathName,
        endpoint: Endpoint,
        export_name: str,
        encryption: Encryption,
        server: NodeId,
        source_address: str,
    ) -> str:
        """A new connection by this network; /dev/nbdN. UnreachableError: nobody answered in
        time; NotFoundError: the server does not (yet) have the export; DeniedError: it refuses
        this host. With TLS the server's certificate must be `server`'s."""

    async def disconnect(self, device: str) -> None:
        """Idempotent. What is in flight on it fails."""


class Kernel(Protocol):
    """A host's kernel."""

    @property
    def dm(self) -> DeviceMapper: ...

    @property
    def md(self) -> Md: ...

    @property
    def nbd(self) -> Nbd: ...

    def boot_id(self) -> str: ...

    async def wait_change(self, timeout_s: float) -> bool:
        """True when the kernel told of a change (device-mapper event, dead NBD link, md's sysfs,
        block uevent); False after `timeout_s` without one. Changes since the last call count."""


# --- exports -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """What a running export server serves."""

    head: NodeId
    extent: ExtentId
    epoch: int
    name: str


@dataclass(frozen=True)
class ExportServer:
    head: NodeId
    port: int
    addresses: tuple[str, ...]
    encryption: Encryption


class Exports(Protocol):
    async def exports(self) -> tuple[Export, ...]:
        """Of all running servers."""

    async def servers(self) -> tuple[NodeId, ...]:
        """Heads that a server runs for."""

    async def running(self) -> tuple[ExportServer, ...]:
        """The servers that run and answer, as they were set up."""

    async def ensure_server(self, server: ExportServer) -> None: ...

    async def stop_server(self, head: NodeId) -> None: ...

    async def add(self, export: Export, device: str) -> None:
        """Serve the block device to the head. ConflictError if another epoch of the extent is
        served by this host."""

    async def remove(self, head: NodeId, extent: ExtentId) -> None:
        """Hard: connections are cut; when it returns nothing more reaches the device."""

    async def ended(self) -> NodeId:
        """Waits until a server that was seen running ends by itself; whose it was. Nobody starts
        it again but `ensure_server`."""


# --- disks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockDevice:
    """A whole disk or partition of this host. `path` is stable across reboots where udev gives
    such a link, `kernel_name` is not: a disk that was pulled and plugged in again has another as
    long as anything stands on the old one. `found` says what is on it ("ext4 filesystem",
    "partition table", "in use: mounted on /", "vastsky member"), or is empty. `aliases`: all other
    paths it is known by, udev's lasting ones among them. `drive`: the path of what it is a part of,
    as a partition or by its file; empty: it is one itself, or nobody can say. `file`: what a loop
    device makes a disk of."""

    path: str
    kernel_name: str
    serial: str
    size_bytes: int
    found: str
    member: bool
    aliases: tuple[str, ...] = ()
    partition: bool = False
    drive: str = ""
    file: str = ""


@dataclass(frozen=True)
class SlotBytes:
    """The raw content of the two description slots, as read."""

    slots: tuple[bytes, ...] = field(repr=False)


class Disks(Protocol):
    async def list(self, *, anew: bool = False) -> tuple[BlockDevice, ...]:
        """What is on each is looked at if it may have been written to since the last look, which
        lets disks sleep, or `anew`."""

    async def activity(self) -> dict[str, Activity]:
        """What the kernel counts of each disk, by its name there. Touches no disk."""

    async def read_slots(self, path: str) -> SlotBytes:
        """NotFoundError: no such device."""

    async def write_slot(self, path: str, slot: int, content: bytes) -> None:
        """Durable when it returns. It comes after writes that were begun before, be it by a
        vastskyd that was killed; so do `read_slots` and `wipe`. ConflictError: somebody else has
        taken the disk into use; so says `wipe`."""

    async def remnants(self, path: str) -> str:
        """What else than a signature says that it is no new disk, for people: who has it open, or
        that it does not read as zeros where signatures and descriptions stand. "": nothing."""

    async def erase_signatures(self, path: str) -> None:
        """Nothing that blkid knows is left at either end. ConflictError if it is in use."""

    async def wipe(self, path: str, offset_bytes: int, length_bytes: int) -> None:
        """The range reads as zeros, durably. Callers pass ranges that finish within seconds."""


class Smart(Protocol):
    """What disks say of their own health."""

    async def read(self, path: str, *, wake: bool = False) -> SmartReading | None:
        """None: the disk sleeps, and goes on sleeping, unless it is to `wake`. A reading of unknown
        health says why: there is no such disk, or it does not tell. DeviceError: nobody could ask,
        or no answer in time.
        """


# --- store, peers, clock -----------------------------------------------------------------


class Store(Protocol):
    """Durable records. A record is a value under (kind, key); `commit` is atomic, and durable
    when it returns. NoSpaceError: nothing was done, and may be once there is room."""

    def load(self) -> dict[str, dict[str, bytes]]:
        """All records: kind → key → content."""

    def commit(
        self, puts: tuple[tuple[str, str, bytes], ...], deletes: tuple[tuple[str, str], ...]
    ) -> None: ...


class Vault(Protocol):
    """The place of the manager's records."""

    def open(self) -> Store:
        """NotFoundError: nothing is there. DamagedError: what is there cannot be used. A store
        that was opened before is closed."""

    def set_aside(self, now_s: float) -> str:
        """What is there is kept under another name, which is answered; "": nothing was there."""

    def renew(self, puts: tuple[tuple[str, str, bytes], ...], now_s: float) -> str:
        """A new store with these records, and all of them, durably; what was there is set aside,
        as above."""


Handler = Callable[[NodeId, Record], Awaitable[Record]]


class Peers(Protocol):
    """Sessions with the cluster's other nodes."""

    async def call(self, node: NodeId, request: Record, timeout_s: float) -> Record:
        """The typed answer. UnreachableError: no session, or no answer in time; else the error
        that the peer answered with."""

    def connected(self) -> frozenset[NodeId]:
        """Peers with a live session now."""

    async def probe(self, node: NodeId, addresses: tuple[str, ...], port: int) -> bool:
        """Whether the node answers this one at any of its addresses."""

    def listen(self, handler: Handler, changed: Callable[[NodeId, bool], None]) -> None:
        """`handler` answers requests of authenticated peers; `changed` hears of sessions that
        came up or went down."""


class Addresses(Protocol):
    """IP addresses of this host, asked of the kernel anew each time: it may have to wait, so not
    on an event loop."""

    def all(self) -> tuple[str, ...]:
        """Those in use, but for IPv6's temporary ones, which change by themselves."""

    def has(self, address: str) -> bool:
        """Whether a connection can begin there."""

    def of_default_route(self) -> tuple[str, ...]:
        """The one that the kernel would send from to hosts elsewhere; none without such a route.
        Nothing is sent."""


class Clock(Protocol):
    def now_s(self) -> float:
        """Wall clock, seconds since 1970: for people and expiry."""

    def monotonic_s(self) -> float:
        """For durations; never goes back."""

    async def sleep(self, duration_s: float) -> None: ...

    def new_token(self, digits: int) -> str:
        """That many random hex digits."""
