"""`python3 dev.py bench [NAME…] [--runs N] [--json]`: measured beside raw SQL in the same run, told as ratios."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable

from bench import performance
from bench.figure import Figure
from bench.ground import Ground, ground
from bench.names import NAMES
from bench.peers.run import main as peers
from bench.progress import say
from bench.series import SERIES, Series

RUNS = 3


def main() -> int:
    """Measure what is named, or everything."""
    given = _parser().parse_args()
    if given.peers is not None:
        return peers(given.peers, given.runs or 1, given.scale, as_json=given.json, write=given.write, note=given.note)
    if unknown := set(given.names) - set(NAMES):
        _parser().error(f"unknown: {', '.join(sorted(unknown))}; there are: {' '.join(NAMES)}")
    names = given.names or ([] if given.plots else list(NAMES))
    plots = list(SERIES) if given.plots or (given.write and not given.names) else []
    with ground(given.scale) as here:
        figures = [_measured(here, name, given.runs or RUNS) for name in names]
        series = {name: _drawn(here, name) for name in plots}
    if given.write:
        performance.write(figures, series, given.scale, given.note)
    if given.json:
        print(json.dumps([each.as_dict() for each in figures]))
    return 0


def _measured(here: Ground, name: str, runs: int) -> Figure:
    say(f"{name}: {_about(NAMES[name])}")
    began = time.monotonic()
    figure = asyncio.run(NAMES[name](here, runs))
    say(f"{figure.sentence()} ({time.monotonic() - began:.0f} s)")
    return figure


def _drawn(here: Ground, name: str) -> Series:
    say(f"plot {name}: {_about(SERIES[name])}")
    return asyncio.run(SERIES[name](here))


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:14} {_about(each)}" for name, each in NAMES.items())
    plots = "\n".join(f"  {name:14} {_about(each)}" for name, each in SERIES.items())
    parser = argparse.ArgumentParser(
        prog="python3 dev.py bench",
        description=__doc__,
        epilog=f"names:\n{names}\n\nplots:\n{plots}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of those below; all when none is given")
    parser.add_argument("--runs", type=int, help=f"of each measurement ({RUNS}, --peers 1); the median is told")
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts, such as 0.05 for a trial")
    parser.add_argument("--json", action="store_true", help="a list of figures on standard output")
    parser.add_argument("--peers", nargs="*", metavar="NAME", help="measure other queues, beside ours and raw SQL")
    parser.add_argument("--plots", action="store_true", help="measure what the plots show; without names nothing else")
    parser.add_argument("--write", action="store_true", help="keep it in docs/performance.json, .md and the plots")
    parser.add_argument("--note", default="", help="a word on the circumstances, for the page")
    return parser


def _about(each: Callable[..., object]) -> str:
    return (each.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
