"""python -m bench: the measurements there are."""

import sys

USAGE = """\
usage: python3 dev.py bench

Nothing to run by this name yet; the benchmarks come with part 4. What there is:
  dev.py sh python -m bench.spike [QUESTION]   the measurements behind docs/decisions, on the server of DATABASE_URL
"""


def main() -> int:
    """Say what there is; 2, because nothing was measured."""
    print(USAGE, end="", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
