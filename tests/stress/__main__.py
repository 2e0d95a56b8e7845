"""`python -m tests.stress [--tier fast|nightly|soak] [--only ID,…] [--seed N] [--planned N] [--json] [--write]
[--list]`.

Exit code 1 when something did not hold, or fewer faults were injected than planned.
"""

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Iterator

from tests.stress import experiments  # noqa: F401 - they register themselves
from tests.stress.experiment import EXPERIMENTS, TIERS, Experiment
from tests.stress.proof import write
from tests.stress.runner import Runner
from tests.stress.telling import say, summary


def chosen(tier: str, only: str | None) -> list[Experiment]:
    """Those of the tier, or those that are named by their number or whole id, wherever they belong."""
    if only is None:
        return [each for each in EXPERIMENTS.values() if tier in each.planned]
    named = only.split(",")
    found = [each for each in EXPERIMENTS.values() if each.id in named or each.id.partition("-")[0] in named]
    if missing := [name for name in named if not any(name in (e.id, e.id.partition("-")[0]) for e in found)]:
        raise SystemExit(f"no such experiment: {', '.join(missing)}; --list shows all")
    return [_planned(each, tier) for each in found]


def _planned(experiment: Experiment, tier: str, wanted: int | None = None) -> Experiment:
    """An experiment that was asked for by name runs in any tier, with the nearest plan that it has, or with another."""
    faults = wanted or experiment.planned.get(tier) or next(iter(experiment.planned.values()))
    return Experiment(
        experiment.id, {tier: faults}, experiment.conduct, experiment.own_server, experiment.quiet, experiment.limit
    )


def listed() -> Iterator[str]:
    for each in EXPERIMENTS.values():
        tiers = ", ".join(f"{tier} {faults}" for tier, faults in each.planned.items())
        about = (each.conduct.__doc__ or "").strip().splitlines()[0]
        yield f"{each.id:34} {tiers:26} {about}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 dev.py stress", description=__doc__)
    parser.add_argument("named", nargs="?", choices=TIERS, metavar="TIER")
    parser.add_argument("--tier", choices=TIERS, default="fast")
    parser.add_argument("--only", help="numbers or ids, with commas between")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--planned", type=int, help="so many faults in each, in place of its own plan")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--write", action="store_true", help="keep the results in docs/proof.json and docs/proof.md")
    parser.add_argument("--list", action="store_true", help="say what there is")
    given = parser.parse_args()
    if given.list:
        print("\n".join(listed()))
        return 0
    tier = given.named or given.tier
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    conducted = [_planned(each, tier, given.planned) for each in chosen(tier, given.only)]
    print(f"tier {tier}, seed {seed}, {len(conducted)} experiments", file=sys.stderr, flush=True)
    reports = asyncio.run(Runner(tier, seed, say).run(conducted))
    told = summary(tier, seed, reports)
    if given.write:
        write(tier, seed, reports)
    if given.json:
        print(json.dumps(told))
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
