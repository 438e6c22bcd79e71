"""A host's error, from the host's report to the end of a job."""

from vastskyd.core.documents import DiskFact, ScrubFact, VolumeFact
from vastskyd.core.errors import UnreachableError, VastskyError, from_code
from vastskyd.core.ids import NodeId
from vastskyd.core.model import Attachment, Volume


def refusal(node: NodeId, fact: DiskFact | VolumeFact | ScrubFact, message: str) -> VastskyError:
    """The error that the host met, by its meaning. What it hints at is to be done there, and who
    reads it may be anywhere."""
    hint = f"on {node}: {fact.hint}" if fact.hint else ""
    return from_code(fact.error_code, message, hint)


def volume_refusal(
    volume: Volume, attachment: Attachment, fact: VolumeFact | None, said: str
) -> VastskyError:
    """The error that the volume's head met; if it met none, it waits for what it does not reach."""
    if fact is not None and fact.error_code:
        return refusal(attachment.head, fact, said)
    hint = f"`vastskyctl volume show {volume.name}` shows its legs, and which are out of reach"
    return UnreachableError(said, hint=hint)
