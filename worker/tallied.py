"""What all daemons counted, as a scrape reads it: under the names and labels that each of them has itself."""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Set
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from worker.metrics import TROUBLE, Metrics
from worker.series import COUNTED, OTHER, Counted
from worker.spans import heaped

MOST = 245  # series that name a type, a step or a schedule; all others together are some sixty

Labels = tuple[str, ...]
Key = tuple[str, Labels]

_NAMING = ("job_type", "step", "schedule")
_PART = re.compile(r"(.+)_(total|bucket|sum)")
_NAME = re.compile("[a-z][a-z0-9_]{0,62}")
_OUTCOMES = {"completed", "skipped", "failed", "cancelled", "retried", "snoozed", "released"}
_RESULTS = {"jobs", "empty", "completed", "partial", "failed"}


class _Cell:
    """One series: a number, or the counts of its buckets and the sum of what fell into them."""

    __slots__ = ("counts", "sum")

    def __init__(self, about: Counted) -> None:
        self.counts = [0.0] * (len(about.bounds or ()) + 1)
        self.sum = 0.0


class Tallied(Collector):
    """Families made anew from each sample, so that a scrape only reads them.

    Attributes:
        left_out: how many series are summed under `other` because there are too many.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.left_out = 0
        self._families: list[Metric] = []
        registry.register(self)

    def describe(self) -> list[Metric]:
        """Names, without samples."""
        return [_family(name) for name in COUNTED]

    def collect(self) -> list[Metric]:
        """As a scrape reads it."""
        return self._families

    def show(self, rows: Iterable[tuple[str, Mapping[str, str], float]], types: Set[str], schedules: Set[str]) -> None:
        """Take over one sample.

        Args:
            rows: series, labels and value of `worker.tally`, those first that were first.
            types, schedules: those that are declared; others have no series.
        """
        cells: dict[Key, _Cell] = {}
        left_out: set[Key] = set()
        named = 0
        for series, given, value in rows:
            if (part := _PART.fullmatch(series)) is None or (about := COUNTED.get(part[1])) is None:
                continue  # of a later release
            key = part[1], tuple(_label(label, given, types, schedules) for label in about.labels)
            if key not in cells and _names(about, key[1]):
                if named == MOST:
                    left_out.add(key)
                    key = key[0], _as_other(about, key[1])
                else:
                    named += 1
            _add(cells.setdefault(key, _Cell(about)), part[2], about, given, value)
        _begin(cells, sorted(types), sorted(schedules), MOST - named)
        self._families = _families(cells)
        self.left_out = len(left_out)


def _label(label: str, given: Mapping[str, str], types: Set[str], schedules: Set[str]) -> str:
    value = str(given.get(label, OTHER))
    if label == "sqlstate_class":
        return Metrics.sqlstate_label(value)
    if label == "step":
        return value if given.get("job_type") in types and _NAME.fullmatch(value) else OTHER
    known = {"job_type": types, "schedule": schedules, "outcome": _OUTCOMES, "result": _RESULTS}[label]
    return value if value in known else OTHER


def _names(about: Counted, labels: Labels) -> bool:
    """Whether the series belongs to something that somebody declared."""
    return any(label in _NAMING and value != OTHER for label, value in zip(about.labels, labels, strict=True))


def _as_other(about: Counted, labels: Labels) -> Labels:
    return tuple(OTHER if label in _NAMING else value for label, value in zip(about.labels, labels, strict=True))


def _add(cell: _Cell, part: str, about: Counted, given: Mapping[str, Any], value: float) -> None:
    if part != "bucket":
        cell.sum += value
    elif about.bounds is not None:  # another release's bucket goes to the next one that is as wide
        cell.counts[bisect_left(about.bounds, _bound(given.get("le", "+Inf")))] += value


def _bound(le: str) -> float:
    try:
        return float(le)
    except ValueError:
        return float("inf")


def _begin(cells: dict[Key, _Cell], types: Iterable[str], schedules: Iterable[str], room: int) -> None:
    """At 0 what alerts ask about, as a daemon begins: of a series that appears with its first event nobody sees an
    increase.
    """
    wanted: list[Key] = [(name, ()) for name, about in COUNTED.items() if not about.labels]
    wanted += [("worker_database_errors", (sqlstate_class,)) for sqlstate_class in TROUBLE]
    wanted += [("worker_jobs_finished", (OTHER, outcome)) for outcome in ("completed", "failed")]
    named: list[Key] = [("worker_jobs_finished", (name, end)) for name in types for end in ("completed", "failed")]
    named += [("worker_schedule_lateness_seconds", (name,)) for name in schedules]
    wanted += [key for key in named if key not in cells][:room]
    for key in wanted:
        cells.setdefault(key, _Cell(COUNTED[key[0]]))


def _families(cells: Mapping[Key, _Cell]) -> list[Metric]:
    families = {name: _family(name) for name in COUNTED}
    for (name, labels), cell in cells.items():
        family = families[name]
        if isinstance(family, HistogramMetricFamily):
            family.add_metric(labels, heaped(COUNTED[name].bounds or (), cell.counts), cell.sum)
        elif isinstance(family, CounterMetricFamily):
            family.add_metric(labels, cell.sum)
    return list(families.values())


def _family(name: str) -> Metric:
    about = COUNTED[name]
    kind = CounterMetricFamily if about.bounds is None else HistogramMetricFamily
    return kind(name, about.documentation, labels=about.labels)
