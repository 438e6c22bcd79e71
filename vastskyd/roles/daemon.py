"""vastskyd itself: a host with or without a cluster, and what its D-Bus service asks of it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from vastskyd import __version__
from vastskyd.config.settings import EFFECTS, Config, Effect
from vastskyd.core import answers, api
from vastskyd.core.errors import (
    BusyError,
    ConflictError,
    DeviceError,
    NotFoundError,
    UnreachableError,
    VastskyError,
)
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Record, Role
from vastskyd.core.names import volume_dm_name
from vastskyd.core.smart import SmartLimits
from vastskyd.core.state import NO_CLUSTER
from vastskyd.core.turn import Policy
from vastskyd.exports.qsd import QemuExports
from vastskyd.kernel import process
from vastskyd.kernel.addresses import HostAddresses
from vastskyd.kernel.calls import Calls
from vastskyd.kernel.clock import SystemClock
from vastskyd.kernel.disks import LinuxDisks
from vastskyd.kernel.host import HostKernel
from vastskyd.kernel.smart import LinuxSmart
from vastskyd.ports import Addresses
from vastskyd.roles import founding
from vastskyd.roles.credentials import Credentials
from vastskyd.roles.letting_go import LettingGo
from vastskyd.roles.member import Member, Ports, Tuning
from vastskyd.store import identity as identities
from vastskyd.store.identity import Identity
from vastskyd.store.vault import SqliteVault
from vastskyd.wire.hello import Identity as PeerIdentity
from vastskyd.wire.hub import HubOptions, PeerHub
from vastskyd.wire.limits import WireLimits

log = logging.getLogger(__name__)

# Where systemd puts the credentials of each unit.
_CREDENTIALS = Path("/run/credentials")

# At the first boot the network, or the manager, may come later than this host.
_JOIN_AGAIN_S = 10.0
_READY_S = 3.0
_READY_PAUSE_S = 0.1


async def _run(argv: tuple[str, ...], timeout_s: float) -> object:
    return await process.run(argv, timeout_s)


class Host:
    """Answers for the cluster that this host belongs to; `run` until cancelled."""

    def __init__(
        self,
        config: Config,
        calls: Calls,
        credentials: Credentials | None = None,
        addresses: Addresses | None = None,
    ) -> None:
        self._config = config
        self._calls = calls
        self._tuned = config
        self._credentials = credentials or Credentials(None)
        self._addresses = addresses or HostAddresses()
        self._hub: PeerHub | None = None
        self._clock = SystemClock()
        self._identity = identities.load(config.state_path)
        self._member: Member | None = None
        self._belongs = asyncio.Event()
        self._changing = asyncio.Lock()
        self._touched = asyncio.Event()
        if self._identity is not None:
            self._belongs.set()

    async def run(self) -> None:
        """Waits until the host belongs to a cluster, then lives in it."""
        if self._identity is None and (token := self._credentials.join_token()):
            async with asyncio.TaskGroup() as group:
                joining = group.create_task(self._join_by(token), name="join by credential")
                await self._belongs.wait()
                joining.cancel()
        await self._belongs.wait()
        if self._identity is not None:
            await self._live(self._identity)

    async def _join_by(self, token: str) -> None:
        """Of the token that the host was given at its first boot. Until it has joined, or it makes
        no sense to try again; an address that it has not got may come with its network."""
        log.info("joining the cluster of the join token in the credentials")
        last = ""
        while True:
            try:
                await self.join(token, self._credentials.addresses(), "", "", ())
            except (UnreachableError, NotFoundError) as error:
                if error.message != last:
                    log.warning("join: %s; tried again (%s)", error.message, error.hint)
                last = error.message
            except VastskyError as error:
                log.error("join: %s", error)
                return
            else:
                return
            await self._clock.sleep(_JOIN_AGAIN_S)

    def reconfigure(self, config: Config) -> None:
        """The settings that can change while it runs; of the others the log says what they wait
        for."""
        restart = _changed(self._config, config, Effect.RESTART)
        if restart:
            log.warning("restart vastskyd for the new %s", ", ".join(restart))
        too_late = _changed(self._tuned, config, Effect.JOIN)
        if too_late and self._identity is not None:
            log.warning(
                "this host is in its cluster already: it keeps what it joined with of %s",
                ", ".join(too_late),
            )
        self._tuned = config
        if self._member is not None:
            self._member.retune(*tuning(config))
        self._reread_certificates()

    def _reread_certificates(self) -> None:
        """For connections from now on; those that stand keep theirs. What cannot be used changes
        nothing."""
        if self._hub is None:
            return
        try:
            founding.tls_in_use(self._config, self._credentials)
            self._hub.reload_tls()
        except (VastskyError, OSError) as error:
            log.error("the certificates were not reread: %s", error)
        else:
            log.info("certificates reread")

    async def _live(self, identity: Identity) -> None:
        config = self._config
        tls = founding.tls_in_use(config, self._credentials)
        kernel = HostKernel(self._calls, tls)
        hub = self._hub = PeerHub(
            HubOptions(
                identity=PeerIdentity(
                    cluster=identity.cluster, node=identity.node, boot_id=kernel.boot_id()
                ),
                tls_directory=tls,
                port=identity.port,
                admit=self._admit,
                on_join=self._on_join if Role.MANAGER in identity.roles else None,
                limits=WireLimits(
                    heartbeat_s=config.timeouts.heartbeat_s,
                    dead_after_s=config.timeouts.dead_after_s,
                ),
            )
        )
        vault = issuer = None
        if Role.MANAGER in identity.roles:
            vault = SqliteVault(founding.database(config))
            issuer = founding.issuer(config, self._clock)
        ports = Ports(
            kernel=kernel,
            exports=QemuExports(config.runtime_path, _CREDENTIALS, _run),
            disks=LinuxDisks(self._calls),
            smart=LinuxSmart(),
            peers=hub,
            clock=self._clock,
            vault=vault,
            issuer=issuer,
        )
        self._member = Member(identity, ports, *tuning(self._tuned))
        self._member.tell(self._touched.set)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._member.run(), name="member")
                await hub.start()
                if identity.manager != identity.node:
                    hub.keep(identity.manager, identity.manager_addresses, identity.manager_port)
                log.info("node %s of cluster %s", identity.node, identity.cluster_name)
        finally:
            self._hub = None
            await hub.stop()
            kernel.close()
            if vault is not None:
                vault.close()

    def _admit(self, node: str) -> bool:
        manager = None if self._member is None else self._member.manager
        return manager is None or manager.is_member(NodeId(node))

    async def _on_join(self, request: api.Join, address: str) -> api.Joined:
        if self._member is None or self._member.manager is None:
            raise ConflictError(
                "this node is not ready to let others in yet", hint="try again in a moment"
            )
        log.info("join of %s from %s", request.node, address)
        return await self._member.manager.admit(request)

    # --- what the D-Bus service asks ------------------------------------------------------

    async def ask(self, request: Record) -> Record:
        if self._member is None:
            raise ConflictError("this host belongs to no cluster", hint=NO_CLUSTER)
        return await self._member.ask(request)

    async def init(self, request: api.InitCluster) -> answers.Initialised:
        made = await self._become(
            lambda: asyncio.to_thread(
                founding.found,
                self._to_join_by(),
                self._clock,
                request,
                self._credentials,
                self._addresses,
            )
        )
        if Role.STORAGE in made.roles:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READY_S):
                    await self._disks_known(made.node)
        return made

    async def _disks_known(self, node: NodeId) -> None:
        """So that the next command, of a script, finds the disks of this host."""
        while True:
            with contextlib.suppress(VastskyError):
                found = await self.ask(api.ListDisks(node=node, limit=1))
                if isinstance(found, answers.DiskList) and found.disks:
                    return
            await asyncio.sleep(_READY_PAUSE_S)

    async def join(
        self, token: str, addresses: tuple[str, ...], rack: str, node: str, roles: tuple[Role, ...]
    ) -> answers.Initialised:
        request = api.JoinCluster(
            token=token, addresses=addresses, rack=rack, node=node, roles=roles
        )
        return await self._become(
            lambda: founding.enter(
                self._to_join_by(), self._clock, request, self._credentials, self._addresses
            )
        )

    async def _become(self, act: Callable[[], Awaitable[Identity]]) -> answers.Initialised:
        async with self._changing:
            if self._identity is not None:
                raise ConflictError(
                    f"this host is node {self._identity.node} of cluster"
                    f" {self._identity.cluster_name} already",
                    hint="to take it out: `vastskyctl node remove"
                    f" {self._identity.node}` on another host, then purge the package here",
                )
            await self._refuse_strange_volumes()
            self._identity = await act()
            self._belongs.set()
            self._touched.set()
        return answers.Initialised(
            cluster=self._identity.cluster,
            cluster_name=self._identity.cluster_name,
            node=self._identity.node,
            roles=self._identity.roles,
            addresses=self._identity.addresses,
        )

    async def _refuse_strange_volumes(self) -> None:
        """As a head of another cluster this host would take them down, whoever uses them."""
        kernel = HostKernel(self._calls, Path("/nonexistent"))
        try:
            devices = await kernel.dm.devices()
        except DeviceError as error:
            log.debug("no volumes are here: %s", error.message)
            return
        finally:
            kernel.close()
        there = [each.name for each in devices if each.name.startswith(volume_dm_name(""))]
        if there:
            raise BusyError(
                f"volumes of a cluster that this host was in are attached here: {', '.join(there)}",
                hint="if its state directory was lost, bring that back; else unmount them, stop"
                " vastskyd, and take them down with `vastskyd --let-go`",
            )

    def _to_join_by(self) -> Config:
        """As it was reloaded last; but what this host becomes is written where it looks now."""
        return msgspec.structs.replace(
            self._tuned, state_dir=self._config.state_dir, runtime_dir=self._config.runtime_dir
        )

    def stuck(self) -> dict[str, float]:
        """Loops of this host's work that do not get on, and for how many seconds."""
        return {} if self._member is None else self._member.progress.stuck()

    async def changed(self) -> None:
        await self._touched.wait()
        self._touched.clear()

    def local(self) -> answers.LocalView:
        identity = self._identity
        return answers.LocalView(
            version=__version__,
            node="" if identity is None else identity.node,
            cluster_name="" if identity is None else identity.cluster_name,
            roles=() if identity is None else identity.roles,
            connected=self._member is not None and self._member.connected,
            volumes=() if self._member is None else self._member.local_volumes(),
            disks=() if self._member is None else self._member.local_disks(),
        )


async def let_go(calls: Calls) -> None:
    """The host shuts down, and vastskyd has stopped. Nothing is connected any more, so no
    certificate is needed."""
    kernel = HostKernel(calls, Path("/nonexistent"))
    try:
        await LettingGo(kernel, SystemClock()).run()
    finally:
        kernel.close()


def _changed(old: Config, new: Config, effect: Effect) -> list[str]:
    return [
        key
        for key, each in EFFECTS.items()
        if each is effect and old.value_of(key) != new.value_of(key)
    ]


def tuning(config: Config) -> tuple[Policy, Tuning]:
    """What a member can be told while it runs: what the manager decides by, and what its roles
    work by."""
    policy = Policy(
        rebuild_delay_s=config.timeouts.rebuild_delay_s,
        failover_delay_s=config.timeouts.failover_delay_s,
        rebuilds_per_disk=config.rebuild.per_disk,
        scrub_interval_s=config.scrub.interval_h * 3600.0,
        sync_rate_min_kib_s=config.rebuild.rate_min_kib_s,
        sync_rate_max_kib_s=config.rebuild.rate_max_kib_s,
        segment_max_bytes=config.placement.segment_max_bytes,
        smart=SmartLimits(
            reallocated=config.smart.reallocated,
            pending=config.smart.pending,
            media_errors=config.smart.media_errors,
            wear_percent=config.smart.wear_percent,
            temperature_c=config.smart.temperature_c,
            forget_s=config.smart.forget_d * 86_400.0,
        ),
    )
    tuned = Tuning(
        leg_timeout_s=config.timeouts.leg_timeout_s,
        smart_interval_s=config.smart.interval_s,
        auto_enroll=config.auto_enroll,
    )
    return policy, tuned
