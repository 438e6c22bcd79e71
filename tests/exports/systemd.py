"""As much of systemd as the exports ask for: starts what the shipped unit says, as a child."""

import asyncio
import shlex
import shutil
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
        for directory in self._directories(unit):
            directory.mkdir(parents=True)
        self._give_credentials(unit)
        _, *arguments = shlex.split(_settings("ExecStart")[0])
        arguments = [
            a.replace("%t", str(self.run_directory)).replace("%i", instance) for a in arguments
        ]
        self.processes[unit] = await asyncio.create_subprocess_exec(*self._binary, *arguments)

    async def stop(self, unit: str, *, kill: bool = False) -> None:
        process = self.processes.pop(unit, None)
        if process is not None and process.returncode is None:
            await self._end(process, kill=kill)
        for directory in self._directories(unit):
            shutil.rmtree(directory, ignore_errors=True)

    async def _end(self, process: asyncio.subprocess.Process, *, kill: bool) -> None:
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

    def _directories(self, unit: str) -> tuple[Path, Path]:
        """What the unit has while it runs: RuntimeDirectory, and its credentials."""
        instance = unit.removeprefix("vastsky-export@").removesuffix(".service")
        return (
            self.run_directory / "vastsky" / "export" / instance,
            self.run_directory / "credentials" / unit,
        )

    def _give_credentials(self, unit: str) -> None:
        _, credentials = self._directories(unit)
        for line in _settings("LoadCredential"):
            name, _, path = line.partition(":")
            kept = Path(path.replace("%t", str(self.run_directory)))
            if kept.exists():
                shutil.copy(kept, credentials / name)

    async def stop_all(self) -> None:
        for unit in list(self.processes):
            await self.stop(unit, kill=True)


def _settings(key: str) -> list[str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines())
    return [value for name, _, value in lines if name == key]
