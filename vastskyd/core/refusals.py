"""A host's error, from the host's report to the end of a job."""

from vastskyd.core.documents import DiskFact, ScrubFact, VolumeFact
from vastskyd.core.errors import VastskyError, from_code
from vastskyd.core.ids import NodeId


def refusal(node: NodeId, fact: DiskFact | VolumeFact | ScrubFact, message: str) -> VastskyError:
    """The error that the host met, by its meaning. What it hints at is to be done there, and who
    reads it may be anywhere."""
    hint = f"on {node}: {fact.hint}" if fact.hint else ""
    return from_code(fact.error_code, message, hint)
