"""Gauges of the whole database, from one sample of it: the same from every daemon and from the exporter."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from worker.series import OTHER

NOTHING = float("nan")

Labels = tuple[str, ...]


class QueueGauges:
    """What `worker.health()` answers, as gauges.

    Args:
        label, schedule_label: from a name to the label that it has a series under.
    """

    def __init__(
        self, registry: CollectorRegistry, label: Callable[[str], str], schedule_label: Callable[[str], str]
    ) -> None:
        self._registry = registry
        self._label, self._schedule_label = label, schedule_label
        self._shown: dict[Gauge, set[Labels]] = {}
        self.jobs = self._gauge("worker_jobs", "Jobs in the queue, pending and running.", "job_type", "status")
        self.oldest_due = self._gauge(
            "worker_oldest_due_seconds", "How long the oldest due job has waited.", "job_type"
        )
        self.oldest_transaction = self._gauge(
            "worker_oldest_transaction_seconds", "Oldest transaction in the database."
        )
        self.processes = self._gauge("worker_processes", "Daemons by state.", "state")
        self.notifications = self._gauge(
            "worker_notification_queue_ratio", "Share of the notification queue that is in use."
        )
        self.late = self._gauge(
            "worker_schedule_late_seconds", "How long the next run of a schedule has been due.", "schedule"
        )
        self.failures = self._gauge(
            "worker_schedule_failures", "How often in a row the next run could not be fired.", "schedule"
        )
        self.rows = self._gauge("worker_table_rows", "Live rows of a table, estimated.", "table")
        self.dead = self._gauge("worker_table_dead_rows", "Dead rows of a table, estimated.", "table")
        self.bytes = self._gauge("worker_table_bytes", "Size of a table without its indexes.", "table")
        self.index_bytes = self._gauge("worker_table_index_bytes", "Size of the indexes of a table.", "table")
        self.unknown()

    def show(self, found: Mapping[str, Any], job_types: Iterable[str] = (), schedules: Iterable[str] = ()) -> None:
        """Set them from one sample.

        Args:
            job_types, schedules: labels that are shown at 0 where there is nothing.
        """
        self._show_types(found["types"], (*job_types, OTHER))
        self._put(self.oldest_transaction, {(): found["oldest_transaction"]})
        self._put(self.processes, {(state,): number for state, number in found["processes"].items()})
        self._put(self.notifications, {(): found["notification_queue"]})
        self._show_schedules(found["schedules"], schedules)
        tables = found["tables"]
        for gauge, key in (
            (self.rows, "rows"), (self.dead, "dead"), (self.bytes, "bytes"), (self.index_bytes, "index_bytes"),
        ):  # fmt: skip
            self._put(gauge, {(table["name"],): table[key] for table in tables})

    def unknown(self) -> None:
        """The database does not answer: NaN, for the last numbers would look like today's."""
        for gauge, shown in self._shown.items():
            for labels in shown:
                _child(gauge, labels).set(NOTHING)

    def _show_types(self, types: Iterable[Mapping[str, Any]], labels: Iterable[str]) -> None:
        pending: Counter[str] = Counter(dict.fromkeys(labels, 0))
        running: Counter[str] = Counter()
        due: dict[str, float] = {}
        for row in types:
            label = self._label(row["job_type"])
            pending[label] += row["pending"]
            running[label] += row["running"]
            due[label] = max(due.get(label, 0.0), row["oldest_due"] or 0.0)
        counts: dict[Labels, float] = {(label, "pending"): number for label, number in pending.items()}
        counts |= {(label, "running"): running[label] for label in pending}
        self._put(self.jobs, counts)
        self._put(self.oldest_due, {(label,): due.get(label, 0.0) for label in pending})

    def _show_schedules(self, found: Iterable[Mapping[str, Any]], labels: Iterable[str]) -> None:
        late: dict[Labels, float] = {(label,): 0.0 for label in labels}
        failures: dict[Labels, float] = dict(late)
        for row in found:
            label = (self._schedule_label(row["name"]),)
            late[label] = max(late.get(label, 0.0), row["late"] or 0.0)
            failures[label] = max(failures.get(label, 0.0), row["failures"])
        self._put(self.late, late)
        self._put(self.failures, failures)

    def _put(self, gauge: Gauge, values: Mapping[Labels, float]) -> None:
        """Set these, and take away what is not among them any more."""
        for labels, value in values.items():
            _child(gauge, labels).set(value)
        for gone in self._shown[gauge] - values.keys():
            gauge.remove(*gone)
        self._shown[gauge] = set(values)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        gauge = Gauge(name, documentation, labels, registry=self._registry)
        self._shown[gauge] = set() if labels else {()}
        return gauge


def _child(gauge: Gauge, labels: Labels) -> Gauge:
    return gauge.labels(*labels) if labels else gauge
