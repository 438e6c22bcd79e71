"""What org.vastsky.Vastsky1(5) says in words, where no table knows it."""

from vastskyd.dbus.paths import Kind

TITLE = "% ORG.VASTSKY.VASTSKY1(5) vastskyd | D-Bus interface"

DESCRIPTION = """\
Every host's **vastskyd**(8) offers the name *org.vastsky.Vastsky1* on the system bus, and speaks to
the cluster's manager for its callers: it does not matter on which host one asks. **vastskyctl**(1)
uses nothing else. The same, for programs, is in
*/usr/share/dbus-1/interfaces/org.vastsky.Vastsky1.xml*, and live by introspection.

Where vastskyd is enabled, the bus starts it for a caller.
"""

PLACES = {
    "": "Lists, creation, and what this host is. Interfaces **org.vastsky.Vastsky1.Manager** and"
    " **org.freedesktop.DBus.ObjectManager**.",
    Kind.NODE: "A host of the cluster.",
    Kind.DISK: "A disk, enrolled or not.",
    Kind.VOLUME: "A volume of the cluster.",
    Kind.ATTACHMENT: "A volume on this host, as its own kernel shows it.",
    Kind.JOB: "Work that takes time.",
}

OBJECTS = """\
**The host's own objects** are its disks, its attachments, the jobs that were started through it,
and those that rebuild or scrub what is attached here. They are in GetManagedObjects of the root,
come and go with InterfacesAdded and InterfacesRemoved, and tell their changes with
PropertiesChanged, at most twice a second. They are there while the manager is away. A job stays for
ten minutes after its end, and a host shows at most 200.

**All others**, nodes and volumes among them, are there when they are asked for by path, and nowhere
else: no list of them, no signals. The manager is asked each time. Their introspection says so:
EmitsChangedSignal is *false* there.

In a path, an id stands as it is, and so may what people call the thing: a volume's name, a disk's
NODE:PATH (that is all that names a disk which is not enrolled). All but letters and digits is
written as an underscore and two hexadecimal digits: disk *store1:/dev/sdb* is
*/disks/store1\\_3a\\_2fdev\\_2fsdb*. Signals come from the path with the id.
"""

WORDS = {
    "options": "Every method takes it last. An option that is not the method's is an error.",
    "auth.no_user_interaction": "Of every method: never ask a person for a password.",
    "dry_run": "Check whether it can be done, and change nothing; in place of a job the answer is"
    " */*, of a token an empty one. Errors are the same as without it, but for those that only the"
    " host concerned can find out.",
    "idempotency_key": "1 to 128 characters of the caller's choice, for asking again after no"
    " answer. The manager remembers the last 1000 for a day: asked again with the same key, it"
    " answers with the same job and does nothing. The same key with another request is a"
    " *Conflict*.",
    "addresses": "This host's address in each data network, in the same order on every host;"
    " none: as configured.",
    "after": "Of lists: the token of the next page, from the page before. Of events: the number of"
    " the last one that is known.",
    "copies": "Legs of each segment, on as many hosts, or only disks: see *copies\\_apart*.",
    "copies_apart": "What the copies of a segment never share: a *host* or a *disk*.",
    "disk": "A disk's id, or NODE:PATH.",
    "encryption": "How data between hosts is protected: *tls* or *none*; empty: as configured.",
    "failing": "Take the disk even if it says that it is failing; its word does not count then.",
    "force": "Accept fewer legs than surely hold every acknowledged write: the last writes may be"
    " lost.",
    "head": "The node that is to have the volume; of Failover, empty: its first standby head that"
    " is online.",
    "heads": "Nodes that take the volume over, in this order; none: it waits for its head.",
    "job": "A job's id.",
    "layout": "*raid1* or *linear*.",
    "limit": "The most records of an answer, 1 to 500.",
    "name": "What the new volume or cluster is called.",
    "node": "Of lists: only of this node. Of clusters: what this host is called in it; empty: its"
    " host name.",
    "rack": "This host's failure domain; empty: as configured.",
    "roles": "Any of *manager*, *storage* and *head*.",
    "running": "Only jobs that have not ended.",
    "seen": "A record of the job that the caller has: Wait answers as soon as it differs.",
    "single": "This host is the only one of the cluster for now. It has all roles, and copies"
    " are kept on different disks of it.",
    "size_bytes": "The volume's size in bytes, 8 MiB or more; it is rounded up to a MiB.",
    "standby": "As *heads*.",
    "token": "What CreateToken gave.",
    "valid_s": "For how many seconds hosts can join by the token, at most 2592000 (30 days).",
    "volume": "A volume's name, or its id.",
    "wait_s": "How many seconds to wait at most, up to 30. Most clients give a call up after 25"
    " unless told otherwise: **busctl \\-\\-timeout=40**, **gdbus call \\-\\-timeout 40**.",
    "wipe": "Take the disk even if there is something on it, which is destroyed.",
    "without_missing": "Go on without the hosts and disks that others speak of.",
}

GIVEN = {
    "error": "As the property Error; empty: it did not fail.",
    "hint": "As the property Hint.",
    "job": "The job's path; of a dry run /.",
    "message": "As the property Message.",
    "next": "The token of the next page; empty: this was the last one.",
    "object": "Its path.",
    "success": "It did what was asked.",
    "token": "What JoinCluster takes; a secret.",
}

# Where a word means one thing of this method only. (method, argument or option)
_OF_ONE = {
    ("GetNode", "node"): "The node's name.",
    ("ListEvents", "after"): "The number of the last one that is known: only later ones are given.",
    **{
        (f"List{things}", "after"): "The token of the next page, from the page before."
        for things in ("Nodes", "Disks", "Volumes", "Jobs")
    },
    ("ListNodes", "node"): "Only this node.",
    ("ListDisks", "node"): "Only disks of this node.",
    ("ListDisks", "disk"): "Only this disk: its id, or NODE:PATH.",
    ("ListVolumes", "volume"): "Only this volume: its name, or its id.",
    ("Attach", "head"): "The node that is to have the volume.",
    ("Failover", "head"): "The node that is to have the volume; empty: its first standby head that"
    " is online.",
    ("CreateToken", "roles"): "What hosts that join by it may be: *storage*, *head* or both.",
    (
        "InitCluster",
        "roles",
    ): "Any of *manager*, *storage* and *head*; none: as configured, or all.",
    ("JoinCluster", "roles"): "Any of those that the token is for; none: as configured, or all of"
    " them.",
    ("InitCluster", "name"): "What the cluster is called; empty: vastsky.",
    ("CreateVolume", "name"): "What the volume is called: it stands in /dev/vastsky/NAME.",
    **{
        (f"{act}Cluster", "node"): "What this host is called in it; empty: its host name."
        for act in ("Init", "Join")
    },
}


def said(method: str, name: str) -> str:
    """Of an argument or option of the method."""
    return _OF_ONE.get((method, name), WORDS[name])


def unmarked(text: str) -> str:
    """As plain text, for the XML."""
    return text.replace("*", "").replace("\\", "")


VALUES = """\
A record is *a{sv}* under its members' names, which are described below. They are those of
**vastskyctl \\-\\-json**, but that of a point in time lacks the *\\_s* that it has there. One that
describes an object has its path as *object*. Points in time are *t*, in microseconds since 1970,
and 0 if there is none; durations (*\\_s*) are *d*, in seconds; sizes (*\\_bytes*) *t*, other
integers *x*, words *s*. What else is not known or not there is left out of a record, and is empty
or 0 in a property. New members may appear: ignore those you do not know. Options take any integer
type for an integer.

A list gives a page of records, and the token of the next page, which is empty after the last one;
it goes into the option *after*. What comes or goes meanwhile is seen or not; the others are seen
once.
"""

JOBS = """\
What takes time answers at once with the path of a Job. When it ends, **Completed** says how.
**Wait** answers with its record when it has ended, or differs from the option *seen*, or *wait\\_s*
have passed. Listen, or wait: no need to ask in a circle.

**Cancel** ends a job with the error *Cancelled*: creating (what was made of the volume is taken
away), attaching (the volume is taken off its head), scrubbing (what was compared stays known),
retiring a disk (it is used on).
Others cannot be cancelled, and the error says why.

What only the host concerned can find out ends the job, not the call: of a detach *Busy*, because
the volume is in use there, of an enrolment *Conflict* or *Device*. The property *Error* names it,
and *Message* says more.
"""

ERRORS_OF_ANY = """\
The methods above say which errors are their own. Besides these any may answer *Invalid*,
*Unreachable* (the manager is away), *Conflict* (this host is in no cluster, or the manager has lost
its records) and *Failed*; one that changes something also *Denied*, *DeniedCanObtain* and
*DeniedDismissed* (see WHO MAY CALL), *Conflict* (of an *idempotency\\_key*), and *Device* or
*NoSpace* if the manager cannot record anything. A path below */volumes*, */nodes*, */disks* or
*/jobs* of which the manager knows nothing is *NotFound*.
"""

FILES = """\
*/usr/share/dbus-1/interfaces/org.vastsky.Vastsky1.xml*
:   The interfaces, with a sentence on each member, argument and option.

*/usr/share/polkit-1/actions/org.vastsky.vastsky1.policy*
:   Who may do what without a rule, and what people are asked.

*/usr/share/dbus-1/system.d/org.vastsky.Vastsky1.conf*
:   Root owns the name; everybody may call.

*/usr/share/dbus-1/system-services/org.vastsky.Vastsky1.service*
:   The bus starts *vastskyd.service* for a caller.
"""

VERSIONING = """\
Members, options and words that a string can be may be added. What would break a caller gets
interfaces with another number, *org.vastsky.Vastsky2*.
"""

ACTIONS = """\
Everybody may read. What changes something is for root, and for those whom **polkit**(8) allows it.
A person is asked for a password only if the message allows interaction and
*auth.no\\_user\\_interaction* is not set. Where polkit is not running, root may all and others
nothing. A rule can look at two details: *object*, the id of what is to be changed, and *name*, what
people call it, which the dialogue shows. CreateVolume and InitCluster have only *name*;
CreateToken, SetCopiesApart, JoinCluster, BeginRecovery and FinishRecovery have neither.
"""

EXAMPLES = """\
What is there, and one volume of it:

    $ busctl tree org.vastsky.Vastsky1
    $ busctl introspect org.vastsky.Vastsky1 /org/vastsky/Vastsky1/volumes/data

Make a volume of 100 GiB with three copies, and wait for the job that the answer names:

    $ busctl call org.vastsky.Vastsky1 /org/vastsky/Vastsky1 org.vastsky.Vastsky1.Manager \\
        CreateVolume 'sta{sv}' data 107374182400 1 copies x 3
    o "/org/vastsky/Vastsky1/jobs/0123456789abcdef"
    $ busctl --timeout=40 call org.vastsky.Vastsky1 \\
        /org/vastsky/Vastsky1/jobs/0123456789abcdef \\
        org.vastsky.Vastsky1.Job Wait 'da{sv}' 30 0

Attach the volume, without asking anybody for a password:

    $ busctl call org.vastsky.Vastsky1 /org/vastsky/Vastsky1/volumes/data \\
        org.vastsky.Vastsky1.Volume Attach 'sa{sv}' head1 1 auth.no_user_interaction b true

Take a disk of another host in; its path is made of *store1:/dev/sdb*:

    $ busctl call org.vastsky.Vastsky1 \\
        /org/vastsky/Vastsky1/disks/store1_3a_2fdev_2fsdb \\
        org.vastsky.Vastsky1.Disk Enrol 'a{sv}' 0

The second page of the disks, whose token is from the first:

    $ busctl call org.vastsky.Vastsky1 /org/vastsky/Vastsky1 org.vastsky.Vastsky1.Manager \\
        ListDisks 'a{sv}' 2 limit x 100 after s TOKEN

How a volume is on its head, and on the host where it is attached:

    $ busctl get-property org.vastsky.Vastsky1 /org/vastsky/Vastsky1/volumes/data \\
        org.vastsky.Vastsky1.Volume Health Head Device
    $ busctl get-property org.vastsky.Vastsky1 /org/vastsky/Vastsky1/attachments/ID \\
        org.vastsky.Vastsky1.Attachment State

All that changes on this host, for everybody and for root:

    $ gdbus monitor --system --dest org.vastsky.Vastsky1
    # busctl monitor org.vastsky.Vastsky1
"""

SEE_ALSO = (
    "**vastskyd**(8), **vastskyctl**(1), **vastskyd.toml**(5), **vastsky-attach**(7),"
    " **busctl**(1), **gdbus**(1), **polkit**(8)"
)
