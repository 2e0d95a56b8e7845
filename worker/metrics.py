"""Every Prometheus series, named once. Labels come from what is declared; everything else is `other`."""

import platform
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.registry import Collector

from worker.config import Config
from worker.counts import Counts
from worker.queue_gauges import QueueGauges
from worker.series import COUNTED, OTHER
from worker.spans import Spans

# Classes of SQLSTATE that no statement of a job brings about: the way to the server, its room, its state, damage.
TROUBLE = ("08", "25", "28", "53", "58", "XX", OTHER)

# Classes of SQLSTATE that PostgreSQL uses, and WK, this project's. A function may raise any five characters it likes,
# so this is what bounds the series.
_SQLSTATE_CLASS = re.compile("0[0-389ABFLPZ]|10|2[0-8BDF]|3[489BDF]|4[024]|5[34578]|72|F0|HV|P0|WK|XX")

# `_created` series would double what is scraped, and nothing here reads them.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The series of one process, in a registry of their own.

    Args:
        job_types: declared job types, each with the names of its steps.
        schedules: names of declared schedules.
        build: labels of `worker_build_info`, beside the Python version.
    """

    def __init__(
        self,
        job_types: Mapping[str, Iterable[str]] | None = None,
        schedules: Collection[str] = (),
        build: Mapping[str, str] | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self._counted: dict[str, Collector] = {}
        self._steps = {name: frozenset(steps) for name, steps in (job_types or {}).items()}
        self._schedules = frozenset(schedules)
        self._define_jobs()
        self._define_claims()
        self._define_process()
        self._begin()
        self._info("worker_build", "What runs here.").info({"python": platform.python_version(), **(build or {})})

    @classmethod
    def of(cls, config: Config, version: str) -> Self:
        """The series of a process that runs `config`."""
        job_types = {name: tuple(job.steps or ()) for name, job in config.job.items()}
        return cls(job_types, config.schedule.keys(), {"version": version, "environment": config.environment})

    def label(self, job_type: str) -> str:
        """`job_type` where it is declared, else `other`: rows name types freely, and each label is a series."""
        return job_type if job_type in self._steps else OTHER

    def step_label(self, job_type: str, step: str) -> str:
        """`step` where that type declares it, else `other`."""
        return step if step in self._steps.get(job_type, ()) else OTHER

    def schedule_label(self, schedule: str) -> str:
        """`schedule` where it is declared, else `other`."""
        return schedule if schedule in self._schedules else OTHER

    @staticmethod
    def sqlstate_label(sqlstate: str | None) -> str:
        """The class of a SQLSTATE, its first two characters; `other` where PostgreSQL has no such class."""
        found = (sqlstate or "")[:2]
        return found if _SQLSTATE_CLASS.fullmatch(found) else OTHER

    def database_error(self, error: BaseException) -> None:
        """Count an error of SQL, by the class of its SQLSTATE."""
        self.database_errors.labels(self.sqlstate_label(getattr(error, "sqlstate", None))).inc()

    def sampled(self, found: Mapping[str, Any]) -> None:
        """Set the gauges of the queue from one answer of `worker.health()`; 0 where nothing is."""
        self.queue.show(found, self._steps, self._schedules)

    @property
    def counted(self) -> Mapping[str, Collector]:
        """What is counted, by the names of `worker.series`."""
        return self._counted

    def forget_results(self) -> None:
        """The last results are not known."""
        self.result.clear()
        self.result_age.clear()

    def _begin(self) -> None:
        """At 0 what alerts ask about: of a series that appears with its first event nobody sees an increase."""
        for label in (*self._steps, OTHER):
            for outcome in ("completed", "failed"):
                self.finished.labels(label, outcome)
        for schedule in self._schedules:
            self.lateness.labels(schedule)
        for sqlstate_class in TROUBLE:
            self.database_errors.labels(sqlstate_class)

    def _define_jobs(self) -> None:
        kind = ["job_type"]
        self.finished = self._counts("worker_jobs_finished")
        self.duration = self._spans("worker_job_duration_seconds")
        self.wait = self._spans("worker_job_wait_seconds")
        self.step_duration = self._histogram("worker_step_duration_seconds")
        self.queue = QueueGauges(self.registry, self.label, self.schedule_label)
        self.result = self._gauge("worker_job_result", "A number of the last completed job's result.", [*kind, "name"])
        self.result_age = self._gauge("worker_job_result_age_seconds", "How long ago that job completed.", kind)
        self.lateness = self._histogram("worker_schedule_lateness_seconds")

    def _define_claims(self) -> None:
        self.slots = self._gauge("worker_slots", "Jobs that this process may run at once.")
        self.running = self._gauge("worker_running", "Jobs that this process runs.")
        self.claims = self._counter("worker_claims")
        self.lost_claims = self._counter("worker_lost_claims")
        self.rescues = self._counter("worker_rescues")
        self.outbound = self._counter("worker_outbound")
        self.breaker = self._gauge("worker_breaker_open", "1 while calls are held back: nobody answers.", ["job_type"])

    def _define_process(self) -> None:
        self.database_errors = self._counter("worker_database_errors")
        self.listen_roundtrip = self._gauge(
            "worker_listen_roundtrip_seconds", "A notification to ourselves, last test."
        )
        self.loop_lag = self._histogram("worker_loop_lag_seconds")
        self.children = self._gauge("worker_child_processes", "Child processes of this process.", ["state"])
        self.child_deaths = self._counter("worker_child_processes_died")
        self.listen_roundtrip.set(float("nan"))  # until it is measured

    def _counter(self, name: str) -> Counter:
        about = COUNTED[name]
        counter = Counter(name, about.documentation, about.labels, registry=self.registry)
        self._counted[name] = counter
        return counter

    def _counts(self, name: str) -> Counts:
        about = COUNTED[name]
        counts = Counts(name, about.documentation, about.labels, self.registry)
        self._counted[name] = counts
        return counts

    def _histogram(self, name: str) -> Histogram:
        about = COUNTED[name]
        assert about.bounds is not None
        histogram = Histogram(name, about.documentation, about.labels, buckets=about.bounds, registry=self.registry)
        self._counted[name] = histogram
        return histogram

    def _spans(self, name: str) -> Spans:
        about = COUNTED[name]
        assert about.bounds is not None
        spans = Spans(name, about.documentation, about.labels[0], about.bounds, self.registry)
        self._counted[name] = spans
        return spans

    def _gauge(self, name: str, documentation: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, documentation, list(labels), registry=self.registry)

    def _info(self, name: str, documentation: str) -> Info:
        return Info(name, documentation, registry=self.registry)
