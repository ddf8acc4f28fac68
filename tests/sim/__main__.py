"""Live through seeds from the command line: `make sim`, `make sim SEEDS=20000`, `make sim SEED=7`.

One seed tells its whole story. Many run on every core, and each that fails prints its number at once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from tests.sim.seeds import broken_by
from tests.sim.world import World


def _tell(seed: int) -> int:
    World(seed, print).run()
    print(f"seed {seed}: all is well")
    return 0


def _run_many(count: int) -> int:
    began, broken = time.monotonic(), 0
    with multiprocessing.get_context("spawn").Pool() as pool:
        for seed, wrong in enumerate(pool.imap(broken_by, range(count), chunksize=10)):
            if wrong is not None:
                broken += 1
                print(f"seed {seed}: {wrong}\n    its story: make sim SEED={seed}", flush=True)
    print(f"{count} seeds in {time.monotonic() - began:.0f} s, {broken} broken")
    return 1 if broken else 0


def main() -> int:
    """Return the exit status: 0 when every promise held."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="tell the story of this one")
    parser.add_argument("--seeds", type=int, default=300, help="how many to live through (%(default)s)")
    options = parser.parse_args()
    return _run_many(options.seeds) if options.seed is None else _tell(options.seed)


if __name__ == "__main__":
    sys.exit(main())
