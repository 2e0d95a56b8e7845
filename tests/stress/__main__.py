"""`python -m tests.stress [--tier fast|full] [--seed N] [--json]`; exit code 1 when something did not hold."""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stress import experiments
from tests.stress.place import Experiment, Place, place
from tests.support import server_folder
from worker.embedded import Embedded, start


@dataclass(frozen=True)
class Tier:
    """How much of it."""

    daemons: int
    key_kills: int
    step_kills: int
    recoveries: int
    zombies: int


TIERS = {"fast": Tier(8, 12, 10, 4, 1), "full": Tier(8, 120, 120, 30, 6)}


async def stress(tier: Tier, seed: int, folder: Path, server: Embedded) -> list[Experiment]:
    """All experiments: the two loud ones one after the other, then the two that mostly wait side by side."""

    async def conduct(conducted: Callable[[Place], Awaitable[Experiment]]) -> Experiment:
        began = time.monotonic()
        async with place(server, folder, seed) as here:
            report = await conducted(here)
        report.seconds = time.monotonic() - began
        say(report)
        return report

    return [
        await conduct(lambda here: experiments.keyed(here, tier.daemons, tier.key_kills)),
        await conduct(lambda here: experiments.steps(here, max(tier.daemons // 2, 2), tier.step_kills)),
        *await asyncio.gather(
            conduct(lambda here: experiments.recovery(here, tier.recoveries)),
            conduct(lambda here: experiments.zombie(here, tier.zombies)),
        ),
    ]


def say(report: Experiment) -> None:
    """One experiment for people, on standard error."""
    figures = [f"{report.jobs} jobs", f"{report.injected}/{report.planned} faults", f"{report.seconds:.0f} s"]
    if report.recovery:
        figures.append(f"crash to retry p50 {percentile(report.recovery, 0.5):.2f} s p99 {max(report.recovery):.2f} s")
    if report.stuck:
        figures.append(f"{len(report.stuck)} rescued, the last {max(report.stuck):.2f} s after the kill")
    if report.stale_refused:
        figures.append(f"{report.stale_refused} stale writes refused")
    print(f"{'ok    ' if report.ok else 'FAILED'} {report.id}: {', '.join(figures)}", file=sys.stderr, flush=True)
    for fault in report.faults:
        print(f"       {fault}", file=sys.stderr, flush=True)


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of them lies, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def summary(tier: str, seed: int, reports: list[Experiment]) -> dict[str, Any]:
    """The one object of --json."""
    recovery = [seconds for report in reports for seconds in report.recovery]
    return {
        "tier": tier,
        "seed": seed,
        "ok": all(report.ok for report in reports),
        "lost": sum(report.lost for report in reports),
        "step_effects_beyond_one": sum(r.duplicates for r in reports if r.id == "step-effects-under-kill"),
        "key_overlaps": sum(r.duplicates for r in reports if r.id == "key-exclusion-under-kill"),
        "stale_accepted": sum(report.stale_accepted for report in reports),
        "stale_refused": sum(report.stale_refused for report in reports),
        "recovery_p50_s": round(percentile(recovery, 0.5), 3),
        "recovery_p99_s": round(percentile(recovery, 0.99), 3),
        "stuck_max_s": round(max([0.0, *(seconds for report in reports for seconds in report.stuck)]), 3),
        "experiments": [
            {"id": r.id, "planned": r.planned, "injected": r.injected, "ok": r.ok, "jobs": r.jobs,
             "seconds": round(r.seconds, 1), "faults": r.faults}
            for r in reports
        ],
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stress")
    parser.add_argument("named", nargs="?", choices=TIERS, metavar="TIER")
    parser.add_argument("--tier", choices=TIERS, default="fast")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    tier = given.named or given.tier
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    print(f"tier {tier}, seed {seed}", file=sys.stderr, flush=True)
    with server_folder() as folder:
        server = start(folder, die_with_parent=True)
        evidence = folder / "evidence"
        evidence.mkdir()
        reports = asyncio.run(stress(TIERS[tier], seed, evidence, server))
        server.stop("immediate")
    told = summary(tier, seed, reports)
    if given.json:
        print(json.dumps(told))
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
