"""How well things are, in a word and in sentences, from records and facts."""

from enum import StrEnum

from vastskyd.core import mending
from vastskyd.core.ailing import disk_warnings
from vastskyd.core.documents import LegCondition, LegFact, VolumeCondition
from vastskyd.core.evacuating import outlook, stuck_on
from vastskyd.core.ids import ExtentId
from vastskyd.core.legs import leg_facts, reachable, volume_fact
from vastskyd.core.model import Apart, AttachmentState, Disk, DiskState, LegState, Segment, Volume
from vastskyd.core.recovery import is_lost
from vastskyd.core.scrubbing import undecided
from vastskyd.core.turn import Turn, disk_name

UNREACHABLE_NOTICE_S = 3.0


class Health(StrEnum):
    REDUNDANT = "redundant"
    REBUILDING = "rebuilding"
    DEGRADED = "degraded"
    STALLED = "stalled"  # writes wait
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"  # its head has not been heard of


_GOOD = (LegState.IN_SYNC, LegState.JOINING)


def volume_health(turn: Turn, volume: Volume) -> tuple[Health, str]:
    """The word, and a sentence that says why, if it is not redundant."""
    attachment = volume.given()
    if attachment is not None and attachment.state is AttachmentState.UNFENCED:
        said = f"{attachment.head} had it last, is not fenced and may still write to it"
        return Health.UNKNOWN, said
    if attachment is not None and attachment.state is not AttachmentState.FENCING:
        head = turn.facts[attachment.head]
        if not head.online:
            return Health.UNKNOWN, f"its head {attachment.head} is unreachable"
        if head.report is not None and not head.fresh:
            # What it said before it was away may be long over.
            return Health.UNKNOWN, f"its head {attachment.head} is back and has not spoken yet"
        fact = volume_fact(turn, volume)
        if attachment.state is AttachmentState.ATTACHED:
            if fact is None:
                return Health.UNKNOWN, f"its head {attachment.head} has not looked at it yet"
            if fact.condition is not VolumeCondition.ACTIVE:
                return Health.UNAVAILABLE, fact.message
    facts = _facts(turn, volume)
    words = [_segment_health(turn, volume, segment, facts) for segment in volume.segments]
    worst, why = max(words, key=lambda word: _ORDER.index(word[0]), default=(Health.REDUNDANT, ""))
    if worst is Health.REDUNDANT and _is_unknown(volume):
        worst, why = (
            Health.UNKNOWN,
            "its last head was fenced; the next one sees which legs it left",
        )
    elif worst is Health.REDUNDANT:
        why = undecided(volume)
    return worst, "; ".join(said for said in (why, mending.note(turn, volume)) if said)


def _is_unknown(volume: Volume) -> bool:
    """Whether legs may be behind, and no head looks."""
    written = any(segment.initialised for segment in volume.segments)
    return volume.given() is None and volume.unclean and written and volume.copies > 1


def _facts(turn: Turn, volume: Volume) -> dict[ExtentId, LegFact]:
    """What a head that only mends the volume said before it went away is of no interest."""
    on = volume.attachment
    if on is not None and on.mending and not turn.facts[on.head].online:
        return {}
    return leg_facts(turn, volume)


_ORDER = [Health.REDUNDANT, Health.REBUILDING, Health.DEGRADED, Health.STALLED, Health.UNAVAILABLE]


def _segment_health(
    turn: Turn, volume: Volume, segment: Segment, facts: dict[ExtentId, LegFact]
) -> tuple[Health, str]:
    held = [e for e, f in facts.items() if f.condition is LegCondition.HELD]
    of_segment = [leg.extent for leg in segment.legs]
    waiting = [extent for extent in of_segment if extent in held]
    where = f"segment {segment.index}"
    if waiting:
        return Health.STALLED, f"{where}: writes wait for {_names(turn, waiting)}"
    if facts:
        # One that md gave up is gone, whether that could be recorded yet or not.
        out = {e for e, f in facts.items() if f.condition is LegCondition.OUT}
        out |= {
            e
            for e, f in facts.items()
            if f.condition is LegCondition.ABSENT and not reachable(turn, e)
        }
        good = [leg.extent for leg in segment.legs if leg.state in _GOOD and leg.extent not in out]
    else:
        good = [
            leg.extent for leg in segment.legs if leg.state in _GOOD and reachable(turn, leg.extent)
        ]
    missing = [extent for extent in of_segment if extent not in good]
    if not good:
        return Health.UNAVAILABLE, f"{where}: no in-sync leg is within reach"
    if not missing or len(good) >= volume.copies:  # one more is made while a leg is moved
        failed = [extent for extent in good if _disk_failed(turn, extent)]
        if failed:
            last = ": save what can be read" if failed == good else ""
            said = f"a copy is on {_names(turn, failed)}, which has failed{last}"
            return Health.DEGRADED, f"{where}: {said}"
        return Health.REDUNDANT, ""
    filling = [e for e in missing if e in facts and facts[e].condition is LegCondition.RECOVERING]
    if filling:
        return Health.REBUILDING, f"{where}: rebuilding on {_names(turn, filling)}"
    lost = any(is_lost(turn, volume, segment, leg) for leg in segment.legs)
    lost = lost or mending.is_stuck(turn, volume, segment)
    other = "disk of another node" if turn.apart is Apart.HOST else "other disk"
    spare = f"; no {other} has room for a rebuild" if lost else ""
    return (
        Health.DEGRADED,
        f"{where}: {len(good)} of {len(of_segment)} legs; without {_names(turn, missing)}{spare}",
    )


def _disk_failed(turn: Turn, extent: ExtentId) -> bool:
    disk = turn.draft.disk_of(extent)
    return disk is not None and disk.state is DiskState.FAILED


def _names(turn: Turn, extents: list[ExtentId]) -> str:
    disks = [turn.draft.disk_of(extent) for extent in extents]
    return ", ".join("a lost disk" if disk is None else disk_name(disk) for disk in disks)


def problems(turn: Turn) -> tuple[str, ...]:
    """All that an administrator should know now, most of it also in the event list."""
    said = []
    for node in turn.draft.nodes.values():
        facts = turn.facts[node.id]
        if node.unseen:
            said.append(
                f"node {node.id} was away when the manager's database was rebuilt: once it is"
                " back, `vastskyctl cluster recover --again` takes it in"
            )
            continue
        away_s = turn.monotonic_s - facts.since_s
        if not facts.online and (facts.seen or away_s > UNREACHABLE_NOTICE_S):
            how = (
                f"unreachable for {away_s:.0f} s"
                if facts.reached_by is None
                else f"unreachable from the manager, but {facts.reached_by} reaches it"
            )
            said.append(f"node {node.id} is {how}")
    for disk in turn.draft.disks.values():
        if disk.state in (DiskState.FAILED, DiskState.MISSING, DiskState.UNSEEN):
            said.append(f"disk {disk_name(disk)} is {disk.state}: {disk.reason}")
            continue
        if disk.state is DiskState.FAILING:
            why = f"it says so itself (SMART: {disk.reason})"
            said.append(f"disk {disk_name(disk)} is failing: {why}; {outlook(turn, disk)}")
        if disk.state is DiskState.DRAINING and stuck_on(turn, disk):
            said.append(f"disk {disk_name(disk)} cannot be emptied: {outlook(turn, disk)}")
        said += [f"disk {disk_name(disk)}: {each}" for each in ailments(turn, disk)]
        if disk.slow:
            said.append(f"disk {disk_name(disk)} is slow{_pace(turn, disk)}")
    for volume in turn.draft.volumes.values():
        if turn.apart is Apart.HOST:
            said += _together(turn, volume)
        if said_of_copies := undecided(volume):
            said.append(f"volume {volume.name}: {said_of_copies}")
        health, why = volume_health(turn, volume)
        if health is not Health.REDUNDANT:
            said.append(f"volume {volume.name} is {health}" + (f": {why}" if why else ""))
    return tuple(said)


def ailments(turn: Turn, disk: Disk) -> list[str]:
    """What a disk's SMART warns of, as sentences."""
    said = [warning.message for warning in disk_warnings(turn, disk)]
    if disk.smart_ignored and disk.smart is not None and disk.smart.last.reason:
        said.append(
            f"it was enrolled although it says that it is failing: {disk.smart.last.reason}"
        )
    return said


def _pace(turn: Turn, disk: Disk) -> str:
    fact = turn.facts[disk.node].disks.get(disk.id)
    if fact is None or not fact.slow_ms:
        return ""
    return f": a request takes {fact.slow_ms / 1000:.1f} s, and the volumes on it wait as long"


def _together(turn: Turn, volume: Volume) -> list[str]:
    """Legs that would be lost with one host: a disk was moved there, or the cluster has been told
    only now to keep them apart."""
    said = []
    for segment in volume.segments:
        nodes = [turn.node_of(leg.extent) for leg in segment.legs]
        for node in sorted({node for node in nodes if node is not None and nodes.count(node) > 1}):
            said.append(
                f"volume {volume.name}, segment {segment.index}: {nodes.count(node)} of its"
                f" {len(nodes)} legs are on {node}"
            )
    return said


def cluster_health(turn: Turn) -> str:
    words = {volume_health(turn, volume)[0] for volume in turn.draft.volumes.values()}
    if words & {Health.UNAVAILABLE, Health.STALLED, Health.UNKNOWN}:
        return "critical"
    return "degraded" if problems(turn) else "ok"
