"""Where and how a run goes wrong, and the door through which a daemon reaches its ports.

Every port method passes two points: "dm.remove" before it acts and "dm.remove.done" after. At
each the plan may crash the daemon, cut the host's power, delay, or fail the call.
"""

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from vastskyd.core.errors import DeviceError


class DaemonCrash(BaseException):
    """Raised in the tasks of a daemon that was killed, whenever they touch a port again."""


class FaultKind(StrEnum):
    CRASH = "crash"
    POWER_CUT = "power-cut"
    DELAY = "delay"
    FAIL = "fail"


@dataclass(frozen=True)
class Fault:
    kind: FaultKind
    delay_s: float = 0.0


class FaultPlan(Protocol):
    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        """Asked once for each passing of a point."""


class NoFaults:
    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        return None


@dataclass
class ScriptedFaults:
    """`script`: (host, point, which passing of it, counted from 1) → fault."""

    script: dict[tuple[str, str, int], Fault]
    passed: dict[tuple[str, str], int] = field(default_factory=dict)

    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        count = self.passed[host, point] = self.passed.get((host, point), 0) + 1
        return self.script.get((host, point, count))


@dataclass
class RandomFaults:
    """Each passing goes wrong with the kind's probability, `budget` times at most, and never after
    `until_s`: from then on the run shows that everything converges."""

    rng: random.Random
    probabilities: dict[FaultKind, float]
    until_s: float = float("inf")
    budget: int = 1_000_000
    delay_max_s: float = 3.0
    spared_hosts: tuple[str, ...] = ()

    def at(self, host: str, point: str, now_s: float) -> Fault | None:
        drawn = self.rng.random()  # drawn always: filters must not shift the sequence
        if self.budget <= 0 or now_s >= self.until_s or host in self.spared_hosts:
            return None
        for kind, probability in self.probabilities.items():
            if drawn < probability:
                self.budget -= 1
                return Fault(kind, self.rng.uniform(0.0, self.delay_max_s))
            drawn -= probability
        return None


class Powers(Protocol):
    """What a point needs of the world."""

    plan: FaultPlan
    tracing: bool

    def log(self, text: str) -> None: ...

    def kill_daemon(self, host: str) -> None: ...

    def power_cut(self, host: str) -> None: ...


class Door:
    """One daemon's way to its host's ports. `closed` once the daemon was killed: nothing of it
    acts any more, not even its `finally`."""

    def __init__(self, powers: Powers, host: str, context: contextvars.Context) -> None:
        self._powers = powers
        self._loop = asyncio.get_running_loop()
        self.host = host
        self.context = context
        self.closed = False

    def check(self) -> None:
        if self.closed:
            raise DaemonCrash(self.host)

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that belongs to the daemon and ends with it."""
        return self.context.copy().run(asyncio.get_running_loop().create_task, coro)

    def point_now(self, point: str) -> Fault | None:
        """A point of a method that cannot wait; a delay is answered, not awaited."""
        if self.closed:
            raise DaemonCrash(self.host)
        powers = self._powers
        if powers.tracing:
            powers.log(f"{self.host} {point}")
        fault = powers.plan.at(self.host, point, self._loop.time())
        if fault is None:
            return None
        self._powers.log(f"{self.host} {point}: {fault.kind}")
        match fault.kind:
            case FaultKind.CRASH:
                self._powers.kill_daemon(self.host)
                raise DaemonCrash(self.host)
            case FaultKind.POWER_CUT:
                self._powers.power_cut(self.host)
                raise DaemonCrash(self.host)
            case FaultKind.FAIL:
                raise DeviceError(f"{point}: failed by the simulation")
        return fault

    async def point(self, point: str) -> None:
        fault = self.point_now(point)
        if fault is not None:
            await self.late(fault)

    async def late(self, fault: Fault) -> None:
        await asyncio.sleep(fault.delay_s)
        self.check()

    def step(self, name: str) -> "Step":
        return Step(self, name)


class Step:
    """Around what a port method does: a point before it, and one after it if it did not raise."""

    __slots__ = ("_door", "_name")

    def __init__(self, door: Door, name: str) -> None:
        self._door = door
        self._name = name

    async def __aenter__(self) -> None:
        fault = self._door.point_now(self._name)
        if fault is not None:
            await self._door.late(fault)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            fault = self._door.point_now(f"{self._name}.done")
            if fault is not None:
                await self._door.late(fault)
