"""The cluster, its hosts and their disks, in records that are made anew (core.recovering)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from vastskyd.core.documents import LegHint
from vastskyd.core.evidence import Evidence
from vastskyd.core.ids import ClusterId, NodeId
from vastskyd.core.lineage import generation_after
from vastskyd.core.model import (
    Apart,
    Cluster,
    Disk,
    DiskState,
    Encryption,
    Generation,
    Node,
    Role,
)
from vastskyd.core.reaching import free_export_port
from vastskyd.core.state import ClusterState, Draft
from vastskyd.core.witness import Witness

NOT_SEEN = "not seen since the manager's database was rebuilt"


@dataclass(frozen=True)
class Case:
    """What a manager without records knows: itself, and who spoke to it. `before` are records that
    were set aside whole: of them comes what no disk tells, and nothing else."""

    cluster: ClusterId
    cluster_name: str
    manager: NodeId
    encryption: Encryption
    witnesses: Mapping[NodeId, Witness]
    now_s: float
    new_token: Callable[[int], str]
    before: ClusterState = field(default_factory=ClusterState)


class Hosts:
    """Puts them into the draft: those that spoke, and those that are spoken of."""

    def __init__(self, case: Case, evidence: Evidence, draft: Draft) -> None:
        self._case = case
        self._evidence = evidence
        self._draft = draft

    def put(self) -> list[str]:
        """The cluster and all that was seen. Notes: what hosts could not read."""
        self._put_cluster()
        self._put_nodes()
        self._put_disks()
        return [
            f"{name}: {what}"
            for name, witness in sorted(self._case.witnesses.items())
            for what in witness.said.unreadable
        ]

    def _put_cluster(self) -> None:
        case = self._case
        for record in (
            *case.before.events.values(),
            *case.before.secrets.values(),
            *case.before.retired.values(),
        ):
            self._draft.put(record)
        before = case.before.cluster.get(case.cluster)
        told = [found.record.encryption for found in self._evidence.found.values()]
        self._draft.put(
            Cluster(
                id=case.cluster,
                name=case.cluster_name,
                manager=case.manager,
                created_s=case.now_s if before is None else before.created_s,
                encryption=told[0] if told else case.encryption,
                copies_apart=self._copies_apart() if before is None else before.copies_apart,
            )
        )
        seen = max((w.said.revision for w in case.witnesses.values()), default=0)
        self._draft.put(Generation(number=generation_after(seen)))

    def _copies_apart(self) -> Apart:
        """No disk tells. Where only one host has any, its copies are not further apart."""
        hosts = {n for n, w in self._case.witnesses.items() if Role.STORAGE in w.said.roles}
        for found in self._evidence.found.values():
            hosts |= {hint.node for hint in found.record.legs if hint.node}
        return Apart.DISK if len(hosts) == 1 else Apart.HOST

    def _put_nodes(self) -> None:
        for name, witness in sorted(self._case.witnesses.items()):
            said = witness.said
            before = self._case.before.nodes.get(name)
            self._draft.put(
                Node(
                    id=name,
                    roles=said.roles,
                    addresses=said.addresses,
                    port=said.port,
                    export_port=self._export_port(name),
                    rack=said.rack,
                    joined_s=self._case.now_s if before is None else before.joined_s,
                )
            )

    def _put_disks(self) -> None:
        for disk, place in sorted(self._evidence.disks.items()):
            sighting = place.sighting
            self._draft.put(
                Disk(
                    id=disk,
                    node=place.node,
                    path=sighting.path,
                    serial=sighting.serial,
                    size_bytes=sighting.size_bytes,
                    area_start_bytes=place.description.area_start_bytes,
                    area_end_bytes=place.description.area_end_bytes,
                    state=DiskState.FAILED if sighting.failed else DiskState.ONLINE,
                    reason=sighting.failed,
                )
            )

    def _export_port(self, head: NodeId) -> int:
        """Of a server that runs for it: another would cut its volumes off for a moment."""
        server = self._evidence.servers.get(head)
        if server is not None:
            return server.port
        taken = {server.port for server in self._evidence.servers.values()}
        taken |= {witness.said.port for witness in self._case.witnesses.values()}
        return free_export_port(self._draft.nodes.values(), taken)

    def put_unseen_disk(self, hint: LegHint) -> None:
        """The place of a leg that others speak of."""
        if hint.disk in self._draft.disks:
            return
        self.put_unseen(hint.node, Role.STORAGE)
        disk = Disk(
            id=hint.disk,
            node=hint.node,
            path=hint.disk,
            serial="",
            size_bytes=0,
            area_start_bytes=0,
            area_end_bytes=0,
            state=DiskState.UNSEEN,
            reason=NOT_SEEN,
        )
        self._draft.put(disk)

    def put_unseen(self, name: NodeId, role: Role) -> None:
        known = self._draft.nodes.get(name)
        if known is not None:
            if known.unseen and role not in known.roles:
                self._draft.put(msgspec.structs.replace(known, roles=(*known.roles, role)))
            return
        server = self._evidence.servers.get(name)
        self._draft.put(
            Node(
                id=name,
                roles=(role,),
                addresses=() if server is None else server.addresses,
                port=0,
                export_port=self._export_port(name),
                unseen=True,
            )
        )
