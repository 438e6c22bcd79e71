"""What the members of records mean, for the XML and the manual page.

docs/json.md says the same, and a test holds the two together; the names are those that members have
there.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Of one type of record. `purpose` may be empty: its name says it."""

    purpose: str
    members: dict[str, str]


RECORDS = {
    "ClusterStatus": Words(
        "",
        {
            "cluster": "the cluster's id",
            "name": "its name",
            "manager": "the manager's node",
            "encryption": "how the data path between hosts is protected",
            "health": "ok, degraded or critical",
            "problems": "sentences for people: what is wrong",
            "nodes": "nodes of the cluster",
            "nodes_online": "of these, reached now",
            "disks": "enrolled disks",
            "disks_online": "of these, in use",
            "volumes": "volumes",
            "volumes_redundant": "of these, with all their copies in sync",
            "capacity_bytes": "of all enrolled disks together",
            "free_bytes": "of these, free for volumes",
            "jobs_running": "jobs that have not ended",
            "copies_apart": "what the copies of the same data do not share, at the least",
            "notes": "sentences for people: what they should know, and is not wrong",
        },
    ),
    "DiskVerdict": Words(
        "What is to be said of one disk.",
        {
            "disk": "its id",
            "node": "the node it is in",
            "path": "its lasting name there",
            "takes_bytes": "what it would hold of the volume",
            "free_bytes": "free for volumes",
            "largest_bytes": "the largest piece of that",
            "reason": "why it would be taken, or would not",
        },
    ),
    "DiskView": Words(
        "",
        {
            "id": "empty: it is not enrolled",
            "node": "the node it is in",
            "path": "its lasting name there",
            "serial": "its serial number, if it has one",
            "size_bytes": "all of it",
            "free_bytes": "free for volumes; 0 if it is not enrolled",
            "state": "enrolling, online, failing (it says so itself), draining (it is"
            " being emptied, to be retired), missing, failed, unreachable "
            "(its node is), refused (it was not enrolled: something is on it; "
            "the message says what), unknown (its host cannot say yet), unseen "
            "(other disks spoke of it when the manager's database was rebuilt), "
            "or candidate (not enrolled)",
            "message": "more on the state, for people; of a candidate: what is on it, "
            "for which it cannot be enrolled without --wipe, or why it was "
            "not enrolled by itself though it matches auto_enroll",
            "volumes": "the names of those that have legs on it",
            "smart": "what it says of its health; null: it was not asked yet",
        },
    ),
    "Event": Words(
        "",
        {
            "number": "rises by one from event to event",
            "time_s": "when it happened",
            "severity": "how bad it is",
            "kind": "what kind of thing happened, as a word that stays",
            "subject": "the id of the object it happened to",
            "message": "what happened, for people",
        },
    ),
    "Initialised": Words(
        "What this host has become.",
        {
            "cluster": "the cluster's id",
            "cluster_name": "its name",
            "node": "this host's node",
            "roles": "what this host does",
            "addresses": "where other hosts reach it, one for each data network",
        },
    ),
    "Job": Words(
        "Work that takes time.",
        {
            "id": "what job show and job wait take",
            "kind": "what is done; a failover is an attach",
            "subject": "the object's id",
            "about": "what a person calls the object",
            "state": "whether it has ended, and how",
            "started_s": "when it began",
            "ended_s": "when it ended; 0 until then",
            "done_bytes": "done so far, of total_bytes",
            "total_bytes": "0: not known",
            "message": "more, for people; of a failed job: why",
            "error_code": "of a failed job: the error's code, as in "
            "org.vastsky.Vastsky1(5), ERRORS",
            "hint": "of a failed job: what to do about that, for people; may be empty",
            "segment": "of a rebuild: which segment of the volume; else -1",
            "extent": "of a rebuild: the id of the extent that is filled; else empty",
            "started_by": "who asked for it, for people; empty: the cluster itself",
            "rate_bytes": "bytes a second on average since it began; 0: not known",
            "expected_end_s": "when it ends at that rate; 0: not known",
        },
    ),
    "LegView": Words(
        "One copy of a segment.",
        {
            "node": "the node of its disk",
            "disk_path": "the disk's path there",
            "state": "whether it holds all that was written",
            "condition": "more on how it is, for people; empty: nothing to say",
            "reachable": "its head reaches it now",
            "done_bytes": "while it is being filled: done so far; else 0",
            "total_bytes": "while it is being filled: of so much; else 0",
        },
    ),
    "LocalView": Words(
        "What this host knows by itself.",
        {
            "version": "of vastskyd",
            "node": "this host's node; empty while it belongs to no cluster",
            "cluster_name": "empty likewise",
            "roles": "what this host does",
            "connected": "it has a session with the manager, or is the manager",
            "volumes": "those attached here",
            "disks": "those of this host, as it sees them",
        },
    ),
    "LocalVolume": Words(
        "",
        {
            "id": "its id",
            "name": "its name",
            "device": "such as /dev/vastsky/data",
            "state": "as the kernel shows it: active, degraded, rebuilding, stalled "
            "(writes wait; the message says for what), assembling, in-use, "
            "detaching or failed",
            "message": "more on the state, for people",
            "rebuilt_bytes": "while legs are being filled: so far; else 0",
            "rebuild_bytes": "while legs are being filled: of so much; else 0",
        },
    ),
    "NodeView": Words(
        "",
        {
            "id": "its name",
            "roles": "what it does",
            "addresses": "one for each data network",
            "rack": "its failure domain; empty: none",
            "state": "online, unreachable, or joining (never seen yet)",
            "unreachable_s": "for how long; 0 if it is not",
        },
    ),
    "Placement": Words(
        "Whether a volume would fit, and why.",
        {
            "fits": "it would",
            "reason": "what is missing; empty if it fits",
            "hint": "what to do about that",
            "disks": "every enrolled disk",
        },
    ),
    "RecoveredVolume": Words(
        "",
        {
            "name": "its name",
            "size_bytes": "its size",
            "copies": "legs of each segment",
            "head": "the node where it is attached; empty: nowhere",
            "legs": "its legs",
            "legs_seen": "of these, found on the disks that were seen",
        },
    ),
    "RecoveryView": Words(
        "What a rebuild of the manager's lost records would find, or has made its records.",
        {
            "recovering": "the manager has no records",
            "why": "for which reason",
            "nodes": "those that were heard",
            "disks": "disks that were seen",
            "volumes": "volumes that were found",
            "missing": "what others speak of and was not seen",
            "blocked": "what it cannot go on without",
            "listens_s": "how long hosts that are about to connect are waited for; 0: no longer",
            "notes": "more to know, for people",
            "kept_as": "where the records are that it had before; empty: nowhere",
        },
    ),
    "ScrubResult": Words(
        "",
        {
            "ended_s": "when it came to its end",
            "checked_bytes": "what was compared",
            "repaired_bytes": "what differed and was repaired",
            "undecided_bytes": "what differed and could not be decided",
            "skipped": "the segments that it left out",
            "message": "the same in a sentence",
        },
    ),
    "SegmentView": Words(
        "A part of a volume with copies of its own.",
        {
            "index": "from 0",
            "length_bytes": "of the volume",
            "legs": "its copies",
        },
    ),
    "SmartView": Words(
        "What a disk said of itself when it last said something new. Null: it does not say.",
        {
            "health": "its own verdict",
            "reason": "why it is failing or unknown",
            "model": "its maker's name for it",
            "read_s": "when it said so; 0: not known",
            "reallocated": "sectors that were replaced",
            "pending": "sectors that could not be read and wait to be replaced",
            "media_errors": "data that could not be read or written",
            "wear_percent": "of the life it was made for, used up; may pass 100",
            "spare_percent": "of its spare blocks, left",
            "temperature_c": "degrees Celsius",
            "power_on_h": "hours that it has run",
            "warnings": "what people should know of it, as sentences",
        },
    ),
    "VolumeView": Words(
        "",
        {
            "id": "its id",
            "name": "its name",
            "size_bytes": "as it was asked for",
            "copies": "legs of each segment",
            "layout": "how a segment keeps its legs",
            "state": "whether it can be attached",
            "health": "redundant, degraded, rebuilding, stalled, unavailable, or "
            "unknown (its head has not reported; or its last one could not "
            "be fenced, or was, and no other has looked since)",
            "head": "the node it is attached to; empty: none",
            "standby": "heads that take it over, the first that can",
            "attachment": "how far the attachment is; unfenced: nobody is to have it, and "
            "head, which had it last, may still write to it; null: there is "
            "none",
            "device": "such as /dev/vastsky/data; empty while it is not attached",
            "message": "more on how it is, for people; of one that is not attached, on "
            "which head it is mended",
            "segments": "its parts, in order",
            "scrubbed": "what its last scrub found; null: there was none",
        },
    ),
}
