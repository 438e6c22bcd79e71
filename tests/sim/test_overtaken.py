"""Documents and reports that were overtaken on their way change nothing."""

import msgspec

from tests.sim import loop
from tests.sim.test_commits import NODE, FullStore, with_manager
from tests.sim.world import World
from vastskyd.core import api
from vastskyd.core.documents import (
    Document,
    HeadDocument,
    HeadReport,
    Report,
    StorageDocument,
    StorageReport,
    VolumeCondition,
    VolumeFact,
)
from vastskyd.core.ids import VolumeId
from vastskyd.core.model import Role
from vastskyd.core.witness import Introduction
from vastskyd.roles.manager import Manager
from vastskyd.roles.node import NodeAgent

VOLUME = VolumeId("a" * 24)


def document(revision: int, rate: int) -> api.ApplyDocument:
    head = HeadDocument(sync_rate_max_kib_s=rate)
    return api.ApplyDocument(
        document=Document(revision=revision, storage=StorageDocument(), head=head)
    )


def test_a_node_keeps_the_newest_document() -> None:
    async def main() -> None:
        world = World(1)
        world.add_host(NODE, Role.HEAD)
        ports = world.ports(NODE)
        said = Introduction(
            node=NODE, roles=(Role.HEAD,), addresses=("10.0.0.1",), port=1, rack="", revision=0
        )
        agent = NodeAgent(said, NODE, ports.kernel, ports.peers, ports.clock)
        for revision in (5, 4, 5, 3):
            await agent.answer(NODE, document(revision, rate=revision))
        assert agent._document is not None
        assert agent._document.head.sync_rate_max_kib_s == 5
        await agent.answer(NODE, document(6, rate=6))
        assert agent._document.head.sync_rate_max_kib_s == 6

    loop.run(main())


def report(sequence: int, revision: int, epoch: int) -> api.SendReport:
    seen = VolumeFact(id=VOLUME, epoch=epoch, condition=VolumeCondition.ACTIVE)
    return api.SendReport(
        report=Report(
            boot_id="b", life="l", sequence=sequence, revision=revision, storage=StorageReport(),
            head=HeadReport(volumes=(seen,)),
        )
    )  # fmt: skip


def epoch_heard(manager: Manager) -> int:
    fact = manager._facts[NODE].volumes.get(VOLUME)
    return 0 if fact is None else fact.epoch


def test_a_report_that_a_later_one_overtook_is_dropped() -> None:
    async def body(manager: Manager, _: FullStore) -> None:
        manager.session_changed(NODE, True)
        revision = manager._facts[NODE].session_revision
        await manager.answer(NODE, report(2, revision, epoch=7))
        await manager.answer(NODE, report(1, revision, epoch=6))
        assert epoch_heard(manager) == 7
        await manager.answer(NODE, of_another_life(report(1, revision, epoch=8)))
        assert epoch_heard(manager) == 8

    with_manager(body)


def of_another_life(request: api.SendReport) -> api.SendReport:
    """Of a daemon that was restarted: it counts anew."""
    after: Report = msgspec.structs.replace(request.report, life="another")
    return api.SendReport(report=after)


def test_a_report_by_a_document_of_an_earlier_session_is_dropped() -> None:
    async def body(manager: Manager, _: FullStore) -> None:
        manager.session_changed(NODE, True)
        before = manager._facts[NODE].session_revision
        manager._push_changes()
        manager.session_changed(NODE, False)
        manager.session_changed(NODE, True)
        assert manager._facts[NODE].session_revision > before
        await manager.answer(NODE, report(1, before, epoch=5))
        assert epoch_heard(manager) == 0

    with_manager(body)
