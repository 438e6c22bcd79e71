"""`python -m tests.sim --seconds N --seed S`: random storms, one seed after the other.

`--only S` runs one and prints what happened in it; `--lossy`: the manager's records are lost in it.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable

from tests.sim import lossy_storm, storm

Run = Callable[[int, list[str] | None], None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (real time)")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--only", type=int, help="this seed alone, with its trace")
    parser.add_argument("--lossy", action="store_true", help="the records are lost on the way")
    options = parser.parse_args()
    run: Run = lossy_storm.run if options.lossy else storm.run
    logging.disable(logging.CRITICAL)
    if options.only is not None:
        return _trace(options.only, run)
    ends_s = time.monotonic() + options.seconds
    failed = []
    seed = options.seed
    while time.monotonic() < ends_s:
        try:
            run(seed, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed is what we want
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:600]}\n", flush=True)
            failed.append(seed)
        seed += 1
    print(f"seeds {options.seed} to {seed - 1}: {len(failed)} failed", *failed)
    return 1 if failed else 0


def _trace(seed: int, run: Run) -> int:
    trace: list[str] = []
    try:
        run(seed, trace)
    except Exception as error:  # noqa: BLE001
        print("\n".join(trace))
        print(f"seed {seed}: {type(error).__name__}: {error}")
        return 1
    print("\n".join(trace))
    return 0


if __name__ == "__main__":
    sys.exit(main())
