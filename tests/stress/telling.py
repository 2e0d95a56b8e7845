"""What a run says: a line for each experiment, one JSON object, and the table that is kept in docs/proof.md."""

import sys
from collections.abc import Sequence
from typing import Any

from tests.stress.experiment import Report


def say(report: Report) -> None:
    """One experiment for people, on standard error."""
    verdict = "skipped" if report.skipped else "ok     " if report.ok else "FAILED "
    print(f"{verdict} {report.id}: {figures(report)}", file=sys.stderr, flush=True)
    for fault in report.faults:
        print(f"        {fault}", file=sys.stderr, flush=True)


def figures(report: Report) -> str:
    """What is worth a line."""
    if report.skipped:
        return report.skipped
    told = [f"{report.jobs} jobs", f"{report.injected}/{report.planned} faults", f"{report.seconds:.0f} s"]
    if report.recovery:
        told.append(f"recovery p50 {percentile(report.recovery, 0.5):.2f} s max {max(report.recovery):.2f} s")
    if report.stuck:
        told.append(f"{len(report.stuck)} rescued, the last {max(report.stuck):.2f} s after the kill")
    if report.duplicates:
        told.append(f"{report.duplicates} executions beyond one")
    if report.stale_refused:
        told.append(f"{report.stale_refused} stale writes refused")
    told += [f"{name} {value}" for name, value in report.figures.items()]
    return ", ".join(told)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies, by nearest rank; 0 for none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def summary(tier: str, seed: int, reports: Sequence[Report]) -> dict[str, Any]:
    """The one object of --json."""
    recovery = [seconds for report in reports for seconds in report.recovery]
    stuck = [seconds for report in reports for seconds in report.stuck]
    return {
        "tier": tier,
        "seed": seed,
        "ok": all(report.ok or report.skipped for report in reports),
        "lost": sum(report.lost for report in reports),
        "step_effects_beyond_one": sum(report.effects for report in reports),
        "stale_accepted": sum(report.stale_accepted for report in reports),
        "stale_refused": sum(report.stale_refused for report in reports),
        "duplicates": sum(report.duplicates for report in reports),
        "recovery_p50_s": round(percentile(recovery, 0.5), 3),
        "recovery_p99_s": round(percentile(recovery, 0.99), 3),
        "stuck_max_s": round(max([0.0, *stuck]), 3),
        "max_rss_mb": max([0.0, *(report.figures.get("most_memory_mb", 0.0) for report in reports)]),
        "experiments": [
            {"id": r.id, "planned": r.planned, "injected": r.injected, "ok": r.ok, "skipped": r.skipped,
             "jobs": r.jobs, "seconds": round(r.seconds, 1), "figures": r.figures, "faults": r.faults,
             "first": r.first}
            for r in reports
        ],
    }  # fmt: skip
