"""The interfaces: the one table that dispatch, introspection, signals and vastskyctl go by."""

from vastskyd.core import answers, api
from vastskyd.core.errors import (
    BusyError,
    ConflictError,
    DamagedError,
    ExistsError,
    NoSpaceError,
    NotFoundError,
    UnreachableError,
)
from vastskyd.core.ids import JobId
from vastskyd.core.model import Job, JobKind, JobState, Record
from vastskyd.dbus.actions import Action
from vastskyd.dbus.paths import Kind, Place
from vastskyd.dbus.table import Interface, Method, Property, Signal

_OF_DISKS = (JobKind.ENROL, JobKind.RETIRE)


def _progress(job: Job) -> float:
    if job.total_bytes:
        return job.done_bytes / job.total_bytes
    return 1.0 if job.state is JobState.DONE else 0.0


def _objects(job: Job) -> list[str]:
    kind = Kind.DISK if job.kind in _OF_DISKS else Kind.VOLUME
    return [Place(kind, job.subject).path]


def _volume(attached: answers.LocalVolume) -> str:
    return Place(Kind.VOLUME, attached.id).path


MANAGER = Interface(
    "Manager", "The cluster as a whole, and what this host is.", answers.LocalView,
    methods=(
        Method("Status", api.ShowStatus, "The cluster's health, problems and counts."),
        Method("Local", api.ShowLocal, "This host, its disks and attachments; needs no manager."),
        Method(
            "ListNodes", api.ListNodes, "A page of the nodes, or the one that an option names.",
            raises=(NotFoundError,),
        ),
        Method(
            "ListDisks", api.ListDisks, "A page of the disks, enrolled or not.",
            raises=(NotFoundError,),
        ),
        Method(
            "ListVolumes", api.ListVolumes, "A page of the volumes, or the named one.",
            raises=(NotFoundError,),
        ),
        Method("ListJobs", api.ListJobs, "A page of the jobs, running and ended, oldest first."),
        Method("ListEvents", api.ListEvents, "What happened: the newest events, oldest first."),
        Method(
            "GetNode", api.ListNodes, "The object of a node, by its name.",
            arguments=("node",), options=(), as_object=True,
            raises=(NotFoundError,),
        ),
        Method(
            "GetDisk", api.ListDisks, "The object of a disk, by id or NODE:PATH.",
            arguments=("disk",), options=(), as_object=True,
            raises=(NotFoundError,),
        ),
        Method(
            "GetVolume", api.ListVolumes, "The object of a volume, by name or id.",
            arguments=("volume",), options=(), as_object=True,
            raises=(NotFoundError,),
        ),
        Method(
            "GetJob", api.ShowJob, "The object of a job, by its id.",
            arguments=("job",), options=(), as_object=True,
            raises=(NotFoundError,),
        ),
        Method(
            "ExplainPlacement", api.ExplainPlacement,
            "Whether a volume of this size would fit, and why, disk by disk.",
        ),
        Method(
            "CreateVolume", api.CreateVolume,
            "Make a volume. The job ends when it can be attached.", Action.CREATE_VOLUME,
            raises=(ConflictError, ExistsError, NoSpaceError, NotFoundError),
        ),
        Method(
            "CreateToken", api.CreateToken, "A token that lets hosts join, until it expires.",
            Action.MANAGE_NODES,
            raises=(DamagedError,),
        ),
        Method(
            "SetCopiesApart", api.SetCopiesApart,
            "Keep the copies of volumes on different hosts, or only on different disks.",
            Action.CHANGE_CLUSTER,
        ),
        Method(
            "InitCluster", api.InitCluster, "Make this host a cluster's first node, its manager.",
            Action.MANAGE_CLUSTER,
            raises=(BusyError, ConflictError, DamagedError),
        ),
        Method(
            "JoinCluster", api.JoinCluster, "Make this host a node of the token's cluster.",
            Action.MANAGE_CLUSTER,
            raises=(BusyError, ConflictError, DamagedError, ExistsError, UnreachableError),
        ),
        Method(
            "ShowRecovery", api.ShowRecovery,
            "What a rebuild of the manager's lost records would find.",
        ),
        Method(
            "BeginRecovery", api.BeginRecovery,
            "Set the manager's records aside, to make them anew.", Action.MANAGE_CLUSTER,
        ),
        Method(
            "FinishRecovery", api.FinishRecovery,
            "Make the manager's records anew from what its hosts say.", Action.MANAGE_CLUSTER,
            raises=(ConflictError,),
        ),
    ),
    properties=(
        Property("Version", "version", "The version of the running vastskyd.", changes=False),
        Property("Node", "node", "This host's name in the cluster; empty: it is in none."),
        Property("ClusterName", "cluster_name", "The cluster's name; empty: this host is in none."),
        Property("Roles", "roles", "What this host does: any of manager, storage and head."),
        Property("Connected", "connected", "This host reaches the manager, or is it."),
    ),
)  # fmt: skip

NODE = Interface(
    "Node", "A host of the cluster.", answers.NodeView,
    methods=(
        Method(
            "Remove", api.RemoveNode, "Forget a node that has no disks and no attached volumes.",
            Action.MANAGE_NODES, target=("node",),
            raises=(ConflictError, NotFoundError),
        ),
    ),
    properties=(
        Property("Id", "id", "Its name.", changes=False),
        Property("Roles", "roles", "What it does: any of manager, storage and head."),
        Property("Addresses", "addresses", "One for each data network."),
        Property("Rack", "rack", "Its failure domain; empty: none was given."),
        Property("State", "state", "online, unreachable, or joining."),
        Property("Unreachable", "unreachable_s", "For how many seconds; 0: it is not."),
    ),
)  # fmt: skip

DISK = Interface(
    "Disk", "A disk of a storage host, enrolled or not.", answers.DiskView,
    methods=(
        Method(
            "Enrol", api.EnrolDisk,
            "Take it into the cluster; its path is made of NODE:PATH. One with anything on it is"
            " refused, unless wipe; of one that is enrolled already, and in use, the job is done.",
            Action.MANAGE_DISKS, destroys=("wipe",), target=("node", "path"),
            raises=(ConflictError, ExistsError, NotFoundError, UnreachableError),
        ),
        Method(
            "Retire", api.RetireDisk,
            "Empty it and let it go; or forget one that is lost. Refused while it holds the only"
            " copy of a volume.",
            Action.MANAGE_DISKS, target=("disk",),
            raises=(BusyError, NotFoundError),
        ),
    ),
    properties=(
        Property("Id", "id", "Empty: it is not enrolled.", changes=False),
        Property("Node", "node", "The node that has it."),
        Property("Path", "path", "Its lasting name under /dev there."),
        Property("Serial", "serial", "Its serial number; empty: it has none."),
        Property("Size", "size_bytes", "Its size in bytes."),
        Property("Free", "free_bytes", "Bytes that are free for volumes; 0: it is not enrolled."),
        Property(
            "State", "state",
            "online, failing, draining, missing, failed, enrolling, unreachable, refused, unknown,"
            " unseen, or candidate.",
        ),
        Property(
            "Message", "message",
            "More on the state, for people; of a candidate: what is on it, or why auto_enroll left"
            " it out.",
        ),
        Property("Volumes", "volumes", "Names of the volumes with legs on it, by the manager."),
        Property("Smart", "smart", "What it says of its health; empty until it was asked."),
    ),
)  # fmt: skip

VOLUME = Interface(
    "Volume", "A volume of the cluster.", answers.VolumeView,
    methods=(
        Method(
            "Attach", api.AttachVolume,
            "Make it a device of a head. One that is on an unreachable head is fenced there first."
            " With force: of fewer legs than surely hold every write.",
            Action.ATTACH_VOLUME, destroys=("force",), target=("volume",),
            raises=(BusyError, ConflictError, NotFoundError, UnreachableError),
        ),
        Method(
            "Detach", api.DetachVolume, "Take it off its head, unless it is in use there.",
            Action.ATTACH_VOLUME, target=("volume",),
            raises=(NotFoundError,),
        ),
        Method(
            "Failover", api.FailoverVolume,
            "Move it at once, to a head or its first standby; its own head is fenced.",
            Action.FAILOVER_VOLUME, target=("volume",),
            raises=(ConflictError, NotFoundError, UnreachableError),
        ),
        Method(
            "SetStandby", api.SetStandby, "Set the heads that take it over, in this order.",
            Action.CHANGE_VOLUME, target=("volume",),
            raises=(ConflictError, NotFoundError),
        ),
        Method(
            "Scrub", api.ScrubVolume,
            "Compare its copies while it is attached, and repair from the majority.",
            Action.CHANGE_VOLUME, target=("volume",),
            raises=(BusyError, ConflictError, NotFoundError),
        ),
        Method(
            "Delete", api.DeleteVolume, "Delete it and its data. It must be detached.",
            Action.DESTROY_DATA, target=("volume",),
            raises=(BusyError, NotFoundError),
        ),
    ),
    properties=(
        Property("Id", "id", "24 hexadecimal digits.", changes=False),
        Property("Name", "name", "What stands in /dev/vastsky/NAME.", changes=False),
        Property("Size", "size_bytes", "Its size in bytes.", changes=False),
        Property("Copies", "copies", "Legs of each segment.", changes=False),
        Property("Layout", "layout", "raid1 or linear.", changes=False),
        Property("State", "state", "creating or available."),
        Property(
            "Health", "health",
            "redundant, degraded, rebuilding, stalled, unavailable or unknown.",
        ),
        Property("Head", "head", "The node it is attached to; empty: none."),
        Property("Standby", "standby", "The heads that take it over, the first that can."),
        Property(
            "Attachment",
            "attachment",
            "fencing, attaching, attached, detaching, unfenced; or empty.",
        ),
        Property(
            "Device", "device",
            "Its device on its head, such as /dev/vastsky/data; empty: it is not attached.",
        ),
        Property(
            "Message", "message",
            "Why it is not redundant, for people; on which head it is mended.",
        ),
        Property("Segments", "segments", "Its segments and their legs."),
        Property("Scrubbed", "scrubbed", "What its last scrub found; empty: there was none."),
    ),
)  # fmt: skip

ATTACHMENT = Interface(
    "Attachment", "A volume on this host, as its own kernel shows it.", answers.LocalVolume,
    methods=(
        Method(
            "Detach", api.DetachVolume, "Take it off this host, unless it is in use.",
            Action.ATTACH_VOLUME, target=("volume",),
            raises=(NotFoundError,),
        ),
    ),
    properties=(
        Property("Volume", "id", "The path of the volume.", changes=False, kind="o", read=_volume),
        Property("Name", "name", "The volume's name.", changes=False),
        Property("Device", "device", "Its device, such as /dev/vastsky/data.", changes=False),
        Property(
            "State", "state",
            "active, degraded, rebuilding, stalled, assembling, in-use, detaching or failed.",
        ),
        Property("Message", "message", "What it lacks, or waits for, for people."),
        Property(
            "RebuiltBytes", "rebuilt_bytes",
            "While legs are being filled: bytes so far, of RebuildBytes; else 0.",
        ),
        Property(
            "RebuildBytes", "rebuild_bytes",
            "While legs are being filled: bytes in all; else 0.",
        ),
    ),
)  # fmt: skip

JOB = Interface(
    "Job", "Work that takes time.", Job,
    methods=(
        Method(
            "Wait", api.ShowJob,
            "The job's record when it has ended, or differs from seen, or wait_s have passed.",
            target=("job",), arguments=("wait_s",), options=("seen",), one_of=True,
            raises=(NotFoundError,),
        ),
        Method(
            "Cancel", api.CancelJob, "End it before it is done, if its kind can be.",
            Action.CANCEL_JOB, target=("job",),
            raises=(ConflictError, NotFoundError),
        ),
    ),
    properties=(
        Property("Id", "id", "16 hexadecimal digits.", changes=False),
        Property(
            "Operation", "kind",
            "enrol, retire, create, delete, attach, detach, rebuild or scrub.", changes=False,
        ),
        Property("About", "about", "What people call the object that it works on.", changes=False),
        Property("Objects", "subject", "Paths of the objects that it works on.",
                 changes=False, kind="ao", read=_objects),
        Property("StartedBy", "started_by", "Who asked for it; empty: the cluster itself.",
                 changes=False),
        Property("State", "state", "running, done or failed."),
        Property("Progress", "done_bytes", "How far it is, from 0 to 1.", kind="d", read=_progress),
        Property("DoneBytes", "done_bytes", "Bytes done so far, of TotalBytes."),
        Property("TotalBytes", "total_bytes", "Bytes to be done; 0: it does not count in bytes."),
        Property("Rate", "rate_bytes", "Bytes a second, on average since it began; 0: not known."),
        Property("Started", "started", "When it began, in microseconds since 1970.",
                 changes=False),
        Property("Ended", "ended", "When it ended, in microseconds since 1970; 0: it runs."),
        Property("ExpectedEnd", "expected_end", "When it ends at that rate, in microseconds since"
                 " 1970; 0: not known."),
        Property("Message", "message", "What it waits for, or how it ended, for people."),
        Property("Error", "error_code", "The error that it failed with, without"
                 " org.vastsky.Vastsky1.Error; empty: it did not fail."),
        Property("Hint", "hint", "What to do about the error, for people; may be empty."),
    ),
    signals=(
        Signal(
            "Completed", "It has ended.",
            (("success", "b"), ("error", "s"), ("message", "s"), ("hint", "s")),
        ),
    ),
)  # fmt: skip

INTERFACES = (MANAGER, NODE, DISK, VOLUME, ATTACHMENT, JOB)
OF_KIND = {
    Kind.NODE: NODE,
    Kind.DISK: DISK,
    Kind.VOLUME: VOLUME,
    Kind.ATTACHMENT: ATTACHMENT,
    Kind.JOB: JOB,
}


def question(place: Place) -> Record | None:
    """What the manager is asked to show the object; None: it knows no such kind."""
    match place.kind:
        case Kind.NODE:
            return api.ListNodes(node=place.name)
        case Kind.DISK:
            return api.ListDisks(disk=place.name)
        case Kind.VOLUME:
            return api.ListVolumes(volume=place.name)
        case Kind.JOB:
            return api.ShowJob(job=JobId(place.name))
        case Kind.ATTACHMENT:
            return None


def carrier(request: type[Record]) -> tuple[Interface, Method]:
    """By which a request is sent: the first method that can carry all of its members."""
    return next(
        (interface, method)
        for interface in INTERFACES
        for method in interface.methods
        if method.request is request and method.carries_all and not method.as_object
    )
