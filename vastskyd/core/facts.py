"""What the manager knows of the nodes besides its records: sessions and last reports.

Facts are not stored. They may be late, never invented: whoever decides by them checks the epoch
or the revision that they speak of.
"""

from dataclasses import dataclass, field, replace

from vastskyd.core.documents import DiskFact, ExtentFact, Report, VolumeFact
from vastskyd.core.ids import DiskId, ExtentId, NodeId, VolumeId


@dataclass(frozen=True)
class NodeFacts:
    """`since_s` is the monotonic time of the last change of `online`; `reached_by` a node that
    reaches this one while the manager does not; `sent_revision` the newest document's,
    `session_revision` that of the first one of this session."""

    online: bool = False
    seen: bool = False
    since_s: float = 0.0
    reached_by: NodeId | None = None
    report: Report | None = None
    sent_revision: int = 0
    session_revision: int = 0
    disks: dict[DiskId, DiskFact] = field(default_factory=dict)
    extents: dict[ExtentId, ExtentFact] = field(default_factory=dict)
    volumes: dict[VolumeId, VolumeFact] = field(default_factory=dict)

    def with_report(self, report: Report) -> "NodeFacts":
        return replace(
            self,
            report=report,
            seen=True,
            disks={fact.id: fact for fact in report.storage.disks},
            extents={fact.id: fact for fact in report.storage.extents},
            volumes={fact.id: fact for fact in report.head.volumes},
        )

    @property
    def fresh(self) -> bool:
        """The report was made in this session: not by a daemon, or a kernel, that has died."""
        return self.report is not None and self.report.revision >= self.session_revision

    @property
    def current(self) -> bool:
        """The report was made with the newest document in hand."""
        return (
            self.online
            and self.fresh
            and self.report is not None
            and self.report.revision == self.sent_revision > 0
        )

    def unreachable_s(self, now_s: float) -> float:
        """For how long nobody has reached the node; 0 while somebody does."""
        return 0.0 if self.online or self.reached_by else max(0.0, now_s - self.since_s)


class Facts(dict[NodeId, NodeFacts]):
    """By node; a node never heard of has empty facts."""

    def __missing__(self, node: NodeId) -> NodeFacts:
        return NodeFacts()

    def extent(self, node: NodeId, extent: ExtentId) -> ExtentFact | None:
        return self[node].extents.get(extent)
