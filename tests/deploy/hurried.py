"""The command line with its own intervals divided: python -m tests.deploy.hurried BY VERB …"""

import sys

from worker import exporter, health, results, tally

# What worker.toml cannot set; before the modules that take these along are imported.
INTERVALS = ((exporter, "SAMPLE_EVERY"), (health, "SAMPLE_EVERY"), (results, "RESULTS_EVERY"), (tally, "TALLY_EVERY"))


def hurry(by: float) -> None:
    """Divide them."""
    for module, name in INTERVALS:
        setattr(module, name, getattr(module, name) / by)


if __name__ == "__main__":
    hurry(float(sys.argv.pop(1)))
    from worker.cli import main

    sys.exit(main())
