"""Figures of queues, from runs in which raw SQL and ours were measured beside each."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

OURS, RAW = "job-queue-worker", "raw"
UNITS = {
    "drain": "jobs/s",
    "drain_worker_cpu": "µs a job",
    "drain_postgres_cpu": "µs a job",
    "drain_memory": "MB",
    "enqueue": "jobs/s",
    "enqueue_many": "jobs/s",
    "pickup_p50": "ms",
    "pickup_p99": "ms",
    "sustained_p50": "ms",
    "sustained_p99": "ms",
    "sustained_cpu": "s per 1,000 jobs",
    "sustained_worker_cpu": "s per 1,000 jobs",
    "sustained_rate": "jobs/s",
    "recovery": "s",
}
BEYOND = "took longer than was waited for"


@dataclass
class Run:
    """What one run gave of one queue, by the names of UNITS; and why something is missing."""

    values: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PeerFigure:
    """One figure of one queue: medians over the runs.

    Attributes:
        value: None when it was not reached; the note says why.
        raw, ours: of the same runs; None where there is nothing to compare with.
        ratio, ours_ratio: medians of the runs' own value / raw and ours / value.
    """

    name: str
    peer: str
    value: float | None
    unit: str
    raw: float | None
    ratio: float | None
    ours: float | None
    ours_ratio: float | None
    runs: list[dict[str, float]]
    settings: dict[str, Any]
    version: str
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def figures(peer: str, settings: dict[str, Any], version: str, runs: Sequence[Mapping[str, Run]]) -> list[PeerFigure]:
    """All figures of a queue, from runs that each have its own values, raw SQL's and ours."""
    notes = "; ".join(dict.fromkeys(note for run in runs for note in run[peer].notes))
    told = []
    for name, unit in UNITS.items():
        found = [each for run in runs if (each := _one(name, peer, run))]
        value = _median(each["value"] for each in found)
        told.append(
            PeerFigure(
                name, peer, None if value == math.inf else value, unit,
                _median(each.get("raw") for each in found), _median(_share(each, "value", "raw") for each in found),
                _median(each.get("ours") for each in found), _median(_share(each, "ours", "value") for each in found),
                [{key: each[key] for key in each if each[key] != math.inf} for each in found], settings, version,
                BEYOND if value == math.inf else "" if found else notes,
            )
        )  # fmt: skip
    return told


def _one(name: str, peer: str, run: Mapping[str, Run]) -> dict[str, float]:
    columns = {"value": peer, "raw": RAW} if peer == OURS else {"value": peer, "raw": RAW, "ours": OURS}
    found = {column: run[of].values[name] for column, of in columns.items() if of in run and name in run[of].values}
    return found if "value" in found else {}


def _share(run: Mapping[str, float], of: str, by: str) -> float | None:
    numbers = [run.get(of), run.get(by)]
    if any(number is None or math.isinf(number) for number in numbers) or not run[by]:
        return None
    return run[of] / run[by]


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
