"""As much of systemd as the exports ask for: starts what the shipped unit says, as a child."""

import asyncio
import configparser
import shlex
from pathlib import Path

from vastskyd.core.errors import DeviceError

UNIT = Path(__file__).parents[2] / "units" / "vastsky-export@.service"


class ChildSystemd:
    """`run` directory stands for /run. `binary` replaces the one that the unit names."""

    def __init__(self, run: Path, binary: tuple[str, ...]) -> None:
        self.run_directory = run
        self._binary = binary
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.properties: dict[str, tuple[str, ...]] = {}
        self.calls: list[tuple[str, ...]] = []

    async def __call__(self, argv: tuple[str, ...], timeout_s: float, /) -> None:
        self.calls.append(argv)
        match argv:
            case ("systemctl", "start", unit):
                await self._start(unit)
            case ("systemctl", "stop", unit):
                await self.stop(unit)
            case ("systemctl", "set-property", "--runtime", unit, *properties):
                self.properties[unit] = tuple(properties)
            case _:
                raise DeviceError(f"not played here: {shlex.join(argv)}")

    async def _start(self, unit: str) -> None:
        running = self.processes.get(unit)
        if running is not None and running.returncode is None:
            return
        instance = unit.removeprefix("vastsky-export@").removesuffix(".service")
        (self.run_directory / "vastsky" / "export").mkdir(parents=True, exist_ok=True)
        _, *arguments = shlex.split(_exec_start())
        arguments = [
            a.replace("%t", str(self.run_directory)).replace("%i", instance) for a in arguments
        ]
        self.processes[unit] = await asyncio.create_subprocess_exec(*self._binary, *arguments)

    async def stop(self, unit: str, *, kill: bool = False) -> None:
        process = self.processes.pop(unit, None)
        if process is None or process.returncode is not None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            async with asyncio.timeout(2):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def stop_all(self) -> None:
        for unit in list(self.processes):
            await self.stop(unit, kill=True)


def _exec_start() -> str:
    parser = configparser.ConfigParser(interpolation=None, strict=False)  # units repeat keys
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]["ExecStart"]
