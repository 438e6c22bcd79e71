"""The manager role: keeps the cluster's records, decides by core.plan, tells the nodes.

One loop does all of it: facts and commands mark the state as due, a turn applies the rules,
commits, and pushes documents that changed. Nothing is told before it is durable.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from vastskyd.core import answers, api
from vastskyd.core.documents import Document, Report
from vastskyd.core.errors import (
    DeniedError,
    InvalidError,
    NoSpaceError,
    VastskyError,
)
from vastskyd.core.facts import Facts, NodeFacts
from vastskyd.core.ids import JobId, NodeId, VolumeId
from vastskyd.core.model import (
    Event,
    JobState,
    Record,
    Severity,
)
from vastskyd.core.orders import Orders, orders
from vastskyd.core.plan import advance, patience_s
from vastskyd.core.state import ClusterState, Draft
from vastskyd.core.turn import Policy, Turn
from vastskyd.ports import Clock, Peers, Store
from vastskyd.roles import views
from vastskyd.roles.acts import perform, without_effect
from vastskyd.roles.explaining import explain_placement
from vastskyd.roles.joining import Issuer, join
from vastskyd.roles.ledger import Ledger
from vastskyd.roles.progress import Progress, Step

log = logging.getLogger(__name__)

T = TypeVar("T")

# Facts and commands wake the manager; the ticks are for what only time changes.
_TICK_S = 1.0
_IDLE_TICK_S = 30.0
# Clocks are rounded: the time to wait for must not come out as none.
_REST_LEAST_S = 0.01
_PUSH_TIMEOUT_S = 10.0
# Longer than the helper itself tries to connect.
_PROBE_TIMEOUT_S = 8.0
_PROBE_EVERY_S = 5.0
_PROBES_AT_ONCE = 2
_WAIT_MOST_S = 30.0
_UNREACHABLE_EVENT_S = 3.0


@dataclass(frozen=True)
class _Reasons:
    """All that documents are made of; none of it is changed, but replaced."""

    state: ClusterState
    policy: Policy
    facts: dict[NodeId, NodeFacts]

    def are(self, others: "_Reasons") -> bool:
        """Whether these are the very same."""
        return (
            self.state is others.state
            and self.policy is others.policy
            and self.facts.keys() == others.facts.keys()
            and all(facts is others.facts[node] for node, facts in self.facts.items())
        )


class Manager:
    """`ask` is for people, `answer` for the nodes' daemons; both check who may ask what."""

    def __init__(
        self,
        node: NodeId,
        store: Store,
        peers: Peers,
        clock: Clock,
        policy: Policy,
        issuer: Issuer,
        progress: Progress | None = None,
    ) -> None:
        self._node = node
        self._ledger = Ledger(store)
        self._peers = peers
        self._clock = clock
        self._policy = policy
        self._issuer = issuer
        self._progress = progress or Progress(clock)
        self._state = self._ledger.load()
        self._facts = Facts()
        self._orders: dict[NodeId, Orders] = {}
        self._ordered: tuple[_Reasons, dict[NodeId, Orders]] | None = None
        self._pushes: dict[NodeId, asyncio.Task[None]] = {}
        self._accepted: dict[NodeId, int] = {}
        # Of the last report of each node: the life it was made in, and its number.
        self._heard: dict[NodeId, tuple[str, int]] = {}
        self._probes: dict[NodeId, asyncio.Task[None]] = {}
        self._told_away: set[NodeId] = set()
        self._waiting: dict[tuple[JobId, str], float] = {}
        self._noted: dict[tuple[VolumeId, str], tuple[str, float]] = {}
        self._due = asyncio.Event()
        self._turned = asyncio.Condition()
        started_s = clock.monotonic_s()
        for known in self._state.nodes:
            self._facts[known] = NodeFacts(since_s=started_s)
        self._revision = 0
        with contextlib.suppress(NoSpaceError):  # then `run` tries again
            self._begin()

    @property
    def records(self) -> ClusterState:
        """As they are committed."""
        return self._state

    def _begin(self) -> None:
        """Nothing is told, and no report counts, before the revisions of this life are known."""
        self._revision = self._ledger.begin(self._state) << 32
        for node, facts in self._facts.items():
            self._facts[node] = replace(facts, session_revision=self._revision + 1)

    def set_policy(self, policy: Policy) -> None:
        """From the next turn on, for what is under way as well."""
        self._policy = policy
        self._due.set()

    # --- the loop -----------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. What it was doing goes on when it is started again."""
        try:
            with self._progress.loop("manager") as step:
                await self._turn_on_and_on(step)
        finally:
            tasks = [*self._pushes.values(), *self._probes.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _turn_on_and_on(self, step: Step) -> None:
        while True:
            step()
            await self._turn_once()
            try:
                async with asyncio.timeout(self._rest_s()):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()

    async def _turn_once(self) -> None:
        told_away = set(self._told_away)
        try:
            self._decide()
        except NoSpaceError:
            self._told_away = told_away  # the next turn decides anew
        self._start_probes()
        async with self._turned:
            self._turned.notify_all()

    def _decide(self) -> None:
        if not self._revision:
            self._begin()
        turn = self._turn()
        advance(turn)
        self._notice_absences(turn)
        self._adopt(turn)
        if self._ledger.trouble:
            self._ledger.try_again(self._state)
        self._push_changes()

    def _rest_s(self) -> float:
        """For how long there is nothing to do if nothing happens."""
        turn = self._turn()
        unsent = any(
            self._accepted.get(node) != facts.sent_revision
            for node in self._state.nodes
            if (facts := self._facts[node]).online
        )
        if unsent or self._ledger.trouble:
            return _TICK_S
        left_s = [_IDLE_TICK_S, patience_s(turn)]
        for node in self._state.nodes:
            facts = self._facts[node]
            if facts.online or not facts.seen:
                continue
            probe = self._probes.get(node)
            if probe is None or probe.done():
                left_s.append(0.0)
            event_s = facts.since_s + _UNREACHABLE_EVENT_S - turn.monotonic_s
            if event_s > 0:
                left_s.append(event_s)
        return max(_REST_LEAST_S, min(left_s))

    def _turn(self) -> Turn:
        return Turn(
            draft=Draft(self._state),
            facts=self._facts,
            policy=self._policy,
            wall_s=self._clock.now_s(),
            monotonic_s=self._clock.monotonic_s(),
            new_token=self._clock.new_token,
            waiting=self._waiting,
            noted=self._noted,
        )

    def _adopt(self, turn: Turn) -> None:
        """Durable first; only then is the draft the state."""
        if turn.draft.changed:
            self._ledger.commit(turn.draft)
            known, self._state = self._state.events, turn.draft
            self._waiting = {k: s for k, s in self._waiting.items() if _runs(self._state, k[0])}
            for number in sorted(self._state.events.keys() - known.keys()):
                _log_event(self._state.events[number])

    def _notice_absences(self, turn: Turn) -> None:
        for node in turn.draft.nodes:
            facts = self._facts[node]
            away_s = turn.monotonic_s - facts.since_s
            if facts.online and node in self._told_away:
                self._told_away.discard(node)
                turn.event(Severity.INFO, "node-online", node, f"node {node} is back")
            elif (
                not facts.online
                and facts.seen
                and away_s >= _UNREACHABLE_EVENT_S
                and node not in self._told_away
            ):
                self._told_away.add(node)
                turn.event(
                    Severity.WARNING, "node-unreachable", node, f"node {node} is unreachable"
                )

    # --- telling the nodes --------------------------------------------------------------

    def _push_changes(self) -> None:
        if not self._state.cluster or not self._revision:
            return
        by = _Reasons(self._state, self._policy, dict(self._facts))
        if self._ordered is None or not by.are(self._ordered[0]):
            self._ordered = (by, orders(self._turn()))
        for node, order in self._ordered[1].items():
            if self._orders.get(node) != order:
                self._revision += 1
                self._orders[node] = order
                self._facts[node] = replace(self._facts[node], sent_revision=self._revision)
            self._push(node)

    def _push(self, node: NodeId) -> None:
        facts = self._facts[node]
        running = self._pushes.get(node)
        if (
            not facts.online
            or self._accepted.get(node) == facts.sent_revision
            or (running is not None and not running.done())
        ):
            return
        self._pushes[node] = asyncio.create_task(self._send(node), name=f"tell {node}")

    async def _send(self, node: NodeId) -> None:
        """The newest document, until the newest is accepted or the node cannot be reached."""
        while self._accepted.get(node) != self._facts[node].sent_revision:
            revision = self._facts[node].sent_revision
            order = self._orders.get(node)
            if order is None:  # its session is new: it is told once its document is made anew
                return
            document = Document(revision=revision, storage=order.storage, head=order.head)
            try:
                await self._peers.call(node, api.ApplyDocument(document=document), _PUSH_TIMEOUT_S)
            except VastskyError as error:
                log.warning("document %d to %s: %s", revision, node, error.message)
                return
            self._accepted[node] = revision

    # --- hearing of the nodes -----------------------------------------------------------

    def session_changed(self, node: NodeId, up: bool) -> None:
        """A session with the node came up or went down."""
        if up and node in self._state.nodes and not self.is_member(node):
            return
        facts = self._facts[node]
        if facts.online != up:
            facts = replace(facts, online=up, reached_by=None, since_s=self._clock.monotonic_s())
        if up:
            # It may have been restarted: it is told all anew, under a new revision, and what it
            # or its kernel reported before counts for nothing.
            self._orders.pop(node, None)
            facts = replace(facts, session_revision=self._revision + 1)
        self._facts[node] = facts
        self._accepted.pop(node, None)
        self._due.set()

    def _hear(self, node: NodeId, request: api.SendReport) -> None:
        facts = self._facts[node]
        last = facts.report
        report = request.report
        life, number = self._heard.get(node, ("", 0))
        if life == report.life and report.sequence <= number:
            return
        if not self._revision or report.revision < facts.session_revision:
            return
        self._heard[node] = (report.life, report.sequence)
        if last is None or _says(last) != _says(report):
            self._facts[node] = facts.with_report(report)
            self._due.set()

    def _start_probes(self) -> None:
        """Before a node is believed dead, others are asked whether they reach it."""
        for node, facts in list(self._facts.items()):
            running = self._probes.get(node)
            if (
                node in self._state.nodes
                and not facts.online
                and facts.seen
                and (running is None or running.done())
            ):
                self._probes[node] = asyncio.create_task(self._probe(node), name=f"probe {node}")

    async def _probe(self, node: NodeId) -> None:
        target = self._state.nodes[node]
        request = api.Probe(node=node, addresses=target.addresses, port=target.port)
        helpers = [n for n in sorted(self._peers.connected()) if n not in (node, self._node)]
        answers = await asyncio.gather(
            *(self._ask_probe(helper, request) for helper in helpers[:_PROBES_AT_ONCE])
        )
        reached_by = next((helper for helper in answers if helper is not None), None)
        if self._facts[node].reached_by != reached_by and not self._facts[node].online:
            self._facts[node] = replace(
                self._facts[node],
                reached_by=reached_by,
                # Dead for nobody until now: the clock of its absence begins here.
                since_s=self._clock.monotonic_s()
                if reached_by is None
                else self._facts[node].since_s,
            )
            self._due.set()
        await self._clock.sleep(_PROBE_EVERY_S)
        self._due.set()  # for the next one

    async def _ask_probe(self, helper: NodeId, request: api.Probe) -> NodeId | None:
        try:
            answer = await self._peers.call(helper, request, _PROBE_TIMEOUT_S)
        except VastskyError as error:
            log.info("probe of %s by %s: %s", request.node, helper, error.message)
            return None
        reached = isinstance(answer, api.ProbeResult) and answer.reached
        return helper if reached else None

    # --- answering ----------------------------------------------------------------------

    async def answer(self, peer: NodeId, request: Record) -> Record:
        """A request of a node's daemon. Any node may ask for what people may ask: who has root
        on one holds its part of the cluster anyway."""
        if not self.is_member(peer):
            raise DeniedError(f"{peer} is not a node of this cluster")
        if isinstance(request, api.SendReport):
            self._hear(peer, request)
            return api.Done()
        return await self.ask(request)

    async def admit(self, request: api.Join) -> api.Joined:
        """A host without a certificate brings a token."""
        return self._change(lambda turn: join(turn, self._issuer, request))

    def is_member(self, node: NodeId) -> bool:
        """A host that was away when the records were rebuilt is not let in before they know what it
        has: it would be told to throw that away."""
        known = self._state.nodes.get(node)
        return known is not None and not known.unseen

    async def ask(self, request: Record) -> Record:
        """Any of api.ADMIN_REQUESTS."""
        if isinstance(request, api.Act):
            return self._act(request)
        turn = self._turn()
        match request:
            case api.ShowStatus():
                return self._ledger.told(views.show_status(turn))
            case api.ListNodes():
                return views.list_nodes(turn, request)
            case api.ListDisks():
                return views.list_disks(turn, request)
            case api.ListVolumes():
                return views.list_volumes(turn, request)
            case api.ListJobs():
                return views.list_jobs(turn, request)
            case api.ListEvents():
                return views.list_events(turn, request)
            case api.ShowJob():
                return await self._watch_job(request)
            case api.ExplainPlacement():
                return explain_placement(turn, request)
        raise InvalidError(f"the manager is not asked {api.method_of(type(request))}")

    def _act(self, request: api.Act) -> Record:
        if request.dry_run:
            return without_effect(perform(self._turn(), self._issuer, request))
        answer = self._change(lambda turn: perform(turn, self._issuer, request))
        if isinstance(answer, api.JobStarted):
            return api.JobStarted(job=views.with_progress(self._turn(), answer.job))
        return answer

    def _change(self, act: Callable[[Turn], T]) -> T:
        if not self._revision:
            self._begin()
        turn = self._turn()
        answer = act(turn)
        self._adopt(turn)
        self._push_changes()  # so that no report counts as current that does not know of it
        self._due.set()
        return answer

    async def _watch_job(self, request: api.ShowJob) -> answers.JobList:
        # In this order: it may be no number.
        deadline_s = self._clock.monotonic_s() + max(0.0, min(request.wait_s, _WAIT_MOST_S))
        while True:
            shown = views.show_job(self._turn(), JobId(request.job))
            job = shown.jobs[0]
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0 or not job.goes_on_as(request.seen):
                return shown
            try:
                async with asyncio.timeout(left_s), self._turned:
                    await self._turned.wait()
            except TimeoutError:
                continue


_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
}


def _log_event(event: Event) -> None:
    """The cluster's history stands in the manager's journal, too, with fields to search by."""
    fields = {"VASTSKY_EVENT": event.kind, "VASTSKY_SUBJECT": event.subject}
    log.log(_LEVELS[event.severity], "%s", event.message, extra=fields)


def _runs(state: Draft, job: JobId) -> bool:
    return job in state.jobs and state.jobs[job].state is JobState.RUNNING


def _says(report: Report) -> tuple[object, ...]:
    """All of it but its number: a node repeats itself."""
    return (report.life, report.revision, report.storage, report.head)
