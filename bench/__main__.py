"""`python3 dev.py bench [NAME…] [--runs N] [--json]`: measured beside raw SQL in the same run, told as ratios."""

import argparse
import asyncio
import json
import sys

from bench.drain import drain, drain_5ms
from bench.enqueue import enqueue, enqueue_many, trigger
from bench.graph import graph, step
from bench.ground import ground
from bench.latency import idle, pickup, sustained

NAMES = {
    each.__name__: each
    for each in (drain, drain_5ms, enqueue, enqueue_many, trigger, pickup, sustained, idle, graph, step)
}


def main() -> int:
    """Measure what is named, or everything."""
    parser = argparse.ArgumentParser(prog="python3 dev.py bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {' '.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="a list of figures on standard output")
    given = parser.parse_args()
    if unknown := set(given.names) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {' '.join(NAMES)}")
    figures = []
    with ground() as here:
        for name in given.names or NAMES:
            figure = asyncio.run(NAMES[name](here, given.runs))
            print(figure.sentence(), file=sys.stderr, flush=True)
            figures.append(figure.as_dict())
    if given.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
