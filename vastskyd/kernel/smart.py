"""smartctl: what disks say of their own health. Implements ports.Smart."""

from vastskyd.core.model import SmartReading
from vastskyd.core.smartctl import parse
from vastskyd.kernel import process

# A disk with bad sectors answers late; one whose command times out in the kernel takes that long.
TIMEOUT_S = 40.0

_COMMAND = ("smartctl", "--json=c")
_WANTED = (
    "--info",
    "--health",
    "--attributes",
    "--log=error",
    "--log=ssd",
    "--log=selftest",
    "--log=defects",
)
# A mask of what was found; only its lowest bits mean that nothing was read.
_STATUSES = range(256)


class LinuxSmart:
    async def read(self, path: str, *, wake: bool = False) -> SmartReading | None:
        nocheck = f"--nocheck={'never' if wake else 'standby'}"
        outcome = await process.run((*_COMMAND, nocheck, *_WANTED, path), TIMEOUT_S, ok=_STATUSES)
        return parse(outcome.output, outcome.status)
