"""`python -m tests.sim`: random seasons and storms, one seed after the other, for `--seconds`.

`--only S` runs one and prints what happened in it.
"""

import argparse
import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count, takewhile
from multiprocessing import get_context

from tests.sim import lossy_storm, season, storm
from tests.sim.season import Mode

STORMS = {"storm": storm.run, "lossy": lossy_storm.run}
"""In "lossy" ones the manager's records are lost, too."""
MODES = (Mode.SAFETY.value, Mode.LIVENESS.value, *STORMS)
STORM_HOURS = 0.12
MESSAGE_MOST = 900


@dataclass(frozen=True)
class Outcome:
    seed: int
    mode: str
    hours: float
    accidents: Counter[str] = field(default_factory=Counter)
    error: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (real time)")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--mode", choices=MODES, help="all in turn, if it is not given")
    parser.add_argument("--hours", type=float, default=24.0, help="how long a season is")
    cores = os.cpu_count() or 1
    parser.add_argument("--jobs", type=int, default=cores, help="how many processes")
    parser.add_argument("--only", type=int, help="this seed alone, with its trace")
    options = parser.parse_args()
    modes = (options.mode,) if options.mode else MODES
    if options.only is not None:
        trace: list[str] = []
        outcome = _run(options.only, _mode_of(options.only, modes), options.hours, trace)
        print("\n".join(trace))
        print(f"seed {outcome.seed} ({outcome.mode}): {outcome.error or 'well'}")
        return 1 if outcome.error else 0
    ends_s = time.monotonic() + options.seconds
    seeds = takewhile(lambda _: time.monotonic() < ends_s, count(options.seed))
    cases = ((seed, _mode_of(seed, modes), options.hours) for seed in seeds)
    return _report(_all(cases, options.jobs))


def _mode_of(seed: int, modes: tuple[str, ...]) -> str:
    return modes[seed % len(modes)]


def _all(cases: Iterator[tuple[int, str, float]], jobs: int) -> Iterator[Outcome]:
    if jobs == 1:
        for case in cases:
            yield _run(*case)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        running = {pool.submit(_run, *case) for _, case in zip(range(jobs), cases, strict=False)}
        while running:
            done = next((future for future in running if future.done()), None)
            if done is None:
                time.sleep(0.05)
                continue
            running.remove(done)
            running |= {pool.submit(_run, *case) for _, case in zip(range(1), cases, strict=False)}
            yield done.result()


def _run(seed: int, mode: str, hours: float, trace: list[str] | None = None) -> Outcome:
    logging.disable(logging.CRITICAL)
    gc.set_threshold(100_000, 50, 50)  # a run's garbage goes with it
    accidents: Counter[str] = Counter()
    error = ""
    try:
        if mode in STORMS:
            STORMS[mode](seed, trace)
            hours = STORM_HOURS
        else:
            season.run(seed, Mode(mode), hours, accidents, trace)
    except Exception as raised:  # noqa: BLE001 - whatever it is, the seed is what we want
        error = f"{type(raised).__name__}: {raised}"
        hours = 0.0
    gc.collect()
    return Outcome(seed, mode, hours, accidents, error)


def _report(outcomes: Iterator[Outcome]) -> int:
    began_s = time.monotonic()
    hours = 0.0
    seeds: list[int] = []
    failed: list[Outcome] = []
    accidents: Counter[str] = Counter()
    for outcome in outcomes:
        hours += outcome.hours
        seeds.append(outcome.seed)
        accidents += outcome.accidents
        if outcome.error:
            failed.append(outcome)
            said = outcome.error[:MESSAGE_MOST]
            print(f"seed {outcome.seed} ({outcome.mode}): {said}\n", flush=True)
    for kind, times in accidents.most_common():
        print(f"{times:8} {kind}")
    took_s = time.monotonic() - began_s
    print(
        f"seeds {min(seeds)} to {max(seeds)}: {hours:.0f} cluster-hours in {took_s:.0f} s,"
        f" {len(failed)} failed",
        *(f"{outcome.seed} ({outcome.mode})" for outcome in failed),
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
