"""The manager's records in memory, and a draft of them that notes each change for the store."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

import msgspec

from vastskyd.core.decoding import DECODE_ERRORS
from vastskyd.core.errors import DamagedError, NotFoundError
from vastskyd.core.ids import ClusterId, DiskId, ExtentId, JobId, NodeId, VolumeId
from vastskyd.core.model import (
    Candidate,
    Cluster,
    Disk,
    Event,
    Extent,
    Generation,
    Job,
    JoinSecret,
    Leg,
    Node,
    Record,
    Remembered,
    Retired,
    Segment,
    Volume,
)
from vastskyd.core.states import check_transition

NO_CLUSTER = (
    "make one of this host, `vastskyctl cluster init --single`, or join one, `vastskyctl join"
    " TOKEN`, by what `vastskyctl cluster token` prints on one of its hosts"
)

EVENTS_MAX = 1000
JOBS_MAX = 500


@dataclass
class ClusterState:
    """One table a kind of record, by id. Read it anywhere; change it through a Draft."""

    cluster: dict[ClusterId, Cluster] = field(default_factory=dict)
    generation: dict[str, Generation] = field(default_factory=dict)
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    disks: dict[DiskId, Disk] = field(default_factory=dict)
    extents: dict[ExtentId, Extent] = field(default_factory=dict)
    volumes: dict[VolumeId, Volume] = field(default_factory=dict)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    secrets: dict[str, JoinSecret] = field(default_factory=dict)
    events: dict[int, Event] = field(default_factory=dict)
    remembered: dict[str, Remembered] = field(default_factory=dict)
    retired: dict[DiskId, Retired] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)

    def the_cluster(self) -> Cluster:
        for cluster in self.cluster.values():
            return cluster
        raise NotFoundError("this host belongs to no cluster", hint=NO_CLUSTER)

    def node(self, name: str) -> Node:
        node = self.nodes.get(NodeId(name))
        if node is None:
            raise NotFoundError(
                f"there is no node {name}", hint="`vastskyctl node list` shows the cluster's nodes"
            )
        return node

    def volume(self, name_or_id: str) -> Volume:
        by_id = self.volumes.get(VolumeId(name_or_id))
        if by_id is not None:
            return by_id
        for volume in self.volumes.values():
            if volume.name == name_or_id:
                return volume
        raise NotFoundError(
            f"there is no volume {name_or_id}",
            hint="`vastskyctl volume list` shows the cluster's volumes",
        )

    def legs(self) -> Iterator[tuple[Volume, Segment, Leg]]:
        for volume in self.volumes.values():
            for segment in volume.segments:
                for leg in segment.legs:
                    yield volume, segment, leg

    def disk_of(self, extent: ExtentId) -> Disk | None:
        """The disk that the leg's extent lies on; none if either is no longer known."""
        record = self.extents.get(extent)
        return None if record is None else self.disks.get(record.disk)


_TYPES: dict[str, type[Record]] = {
    "cluster": Cluster,
    "generation": Generation,
    "nodes": Node,
    "disks": Disk,
    "extents": Extent,
    "volumes": Volume,
    "jobs": Job,
    "secrets": JoinSecret,
    "events": Event,
    "remembered": Remembered,
    "retired": Retired,
    "candidates": Candidate,
}
_KINDS = {record_type: kind for kind, record_type in _TYPES.items()}


def _key(record: Record) -> str | int:
    match record:
        case Event():
            return record.number
        case JoinSecret():
            return record.digest
        case Remembered() | Candidate():
            return record.key
        case Retired():
            return record.disk
        case Generation():
            return "manager"
        case Cluster() | Node() | Disk() | Extent() | Volume() | Job():
            return record.id
    raise TypeError(f"{type(record).__name__} is not a kind of record that is kept")


_TABLES = tuple(table.name for table in fields(ClusterState))


class Draft(ClusterState):
    """A copy to change. `puts` and `deletes` are what the store has to commit."""

    def __init__(self, base: ClusterState) -> None:
        super().__init__(*(dict(getattr(base, table)) for table in _TABLES))
        self._changes: dict[tuple[str, str], Record | None] = {}

    def put(self, record: Record) -> None:
        kind = _KINDS[type(record)]
        table = getattr(self, kind)
        key = _key(record)
        old = table.get(key)
        if old == record:
            return
        if old is not None:
            _check_change(old, record)
        table[key] = record
        self._changes[kind, str(key)] = record

    def delete(self, record: Record) -> None:
        kind = _KINDS[type(record)]
        key = _key(record)
        if getattr(self, kind).pop(key, None) is not None:
            self._changes[kind, str(key)] = None

    @property
    def changed(self) -> bool:
        return bool(self._changes)

    def puts(self) -> tuple[tuple[str, str, bytes], ...]:
        return tuple(
            (kind, key, msgspec.msgpack.encode(record))
            for (kind, key), record in self._changes.items()
            if record is not None
        )

    def deletes(self) -> tuple[tuple[str, str], ...]:
        return tuple(where for where, record in self._changes.items() if record is None)

    def settle(self) -> None:
        """The changes are durable: forget that they were changes."""
        self._changes.clear()


def _check_change(old: Record, new: Record) -> None:
    match old, new:
        case Disk(), Disk():
            check_transition(f"disk {new.id}", old.state, new.state)
        case Extent(), Extent():
            check_transition(f"extent {new.id}", old.state, new.state)
        case Job(), Job():
            check_transition(f"job {new.id}", old.state, new.state)
        case Volume(), Volume():
            _check_volume(old, new)


def _check_volume(old: Volume, new: Volume) -> None:
    if old.attachment and new.attachment and old.epoch == new.epoch:
        check_transition(f"volume {new.name}", old.attachment.state, new.attachment.state)
    before = {leg.extent: leg.state for segment in old.segments for leg in segment.legs}
    for segment in new.segments:
        for leg in segment.legs:
            if leg.extent in before:
                check_transition(f"leg {leg.extent}", before[leg.extent], leg.state)


def load(raw: dict[str, dict[str, bytes]]) -> ClusterState:
    """The records that the store holds. DamagedError names one that cannot be read."""
    state = ClusterState()
    for kind, entries in raw.items():
        record_type = _TYPES.get(kind)
        if record_type is None:
            raise DamagedError(f"the store holds records of an unknown kind, {kind}")
        table = getattr(state, kind)
        for key, content in entries.items():
            try:
                record = msgspec.msgpack.decode(content, type=record_type)
            except DECODE_ERRORS as error:
                raise DamagedError(f"record {kind}/{key} cannot be read: {error}") from error
            table[_key(record)] = record
    return state
