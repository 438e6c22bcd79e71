"""smartctl over the media of one host. Implements ports.Smart."""

from tests.sim.blocks import KernelState
from tests.sim.fake_disks import DiskBlock
from tests.sim.faults import Door
from vastskyd.core.errors import NotFoundError
from vastskyd.core.model import SmartHealth, SmartReading


class FakeSmart:
    def __init__(self, kernel: KernelState, door: Door) -> None:
        self._kernel = kernel
        self._door = door

    async def read(self, path: str, *, wake: bool = False) -> SmartReading | None:
        async with self._door.step("smart.read"):
            try:
                block = self._kernel.find(path)
            except NotFoundError:
                return _unknown(f"Smartctl open device: {path} failed: No such device")
            if not isinstance(block, DiskBlock) or block.pulled:
                return _unknown(f"{path}: Unable to detect device type")
            if wake:
                block.media.asleep = False
            if block.media.asleep:
                return None
            if block.media.failed:
                return _unknown("Read Device Identity failed: Input/output error")
            return block.media.smart


def _unknown(reason: str) -> SmartReading:
    return SmartReading(health=SmartHealth.UNKNOWN, reason=reason)
