"""`python -m tests.simulation`: many histories, or one of them again."""

import argparse
import os
import sys
import time

from tests.simulation.history import BrokenPromise, run
from tests.simulation.runner import run_many

_parser = argparse.ArgumentParser(
    prog="python -m tests.simulation",
    description="Live through histories of a listener: devices, a network, an operator and a disk"
    " that fails, in an order that a seed decides. Each promise is checked after every step.",
    epilog="Exit code 1: a promise was broken, and the seed is printed.",
)
_parser.add_argument(
    "--histories", type=int, default=10_000, metavar="N", help="how many (default: 10000)"
)
_parser.add_argument(
    "--first", type=int, default=0, metavar="SEED", help="the seed of the first one (default: 0)"
)
_parser.add_argument(
    "--seed", type=int, metavar="SEED", help="live through this one again, and print all its steps"
)
_parser.add_argument(
    "--processes", type=int, default=os.cpu_count(), metavar="N", help="default: one a core"
)


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = _parser.parse_args()
    try:
        if options.seed is not None:
            history = run(options.seed, print)
            print(f"seed {options.seed}: {history.step} steps, and every promise kept")
            return 0
        begun = time.monotonic()
        seeds = range(options.first, options.first + options.histories)
        for done in run_many(seeds, options.processes):
            if sys.stderr.isatty():
                print(f"\r{done}, {time.monotonic() - begun:,.0f} s", end=" ", file=sys.stderr)
        print(f"{done}, {time.monotonic() - begun:,.0f} s: every promise kept")
        for event, count in sorted(done.counts.items(), key=lambda item: -item[1]):
            print(f"{count:12,} {event}")
    except BrokenPromise as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
