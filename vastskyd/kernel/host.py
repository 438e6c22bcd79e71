"""The kernel of this host: the parts behind ports.Kernel, put together."""

from pathlib import Path

from vastskyd.kernel.calls import Calls
from vastskyd.kernel.dm import LinuxDeviceMapper
from vastskyd.kernel.events import KernelEvents
from vastskyd.kernel.md import LinuxMd
from vastskyd.kernel.nbd import LinuxNbd

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HostKernel:
    """`tls_dir` has ca-cert.pem, client-cert.pem and client-key.pem."""

    def __init__(self, calls: Calls, tls_dir: Path) -> None:
        self._dm = LinuxDeviceMapper(calls)
        self._md = LinuxMd(calls)
        self._nbd = LinuxNbd(calls, tls_dir)
        self._events = KernelEvents(self._nbd)

    @property
    def dm(self) -> LinuxDeviceMapper:
        return self._dm

    @property
    def md(self) -> LinuxMd:
        return self._md

    @property
    def nbd(self) -> LinuxNbd:
        return self._nbd

    def boot_id(self) -> str:
        return _BOOT_ID.read_text(encoding="ascii").strip()

    async def wait_change(self, timeout_s: float) -> bool:
        return await self._events.wait(timeout_s)

    def close(self) -> None:
        self._events.close()
