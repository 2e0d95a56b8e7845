"""Every Prometheus series, named once. Labels come from what is declared; everything else is `other`."""

import platform
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics

from worker.config import Config
from worker.spans import Spans

OTHER = "other"

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_WAIT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LATE = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)

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
        self._steps = {name: frozenset(steps) for name, steps in (job_types or {}).items()}
        self._schedules = frozenset(schedules)
        self._define_jobs()
        self._define_claims()
        self._define_process()
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

    def queue(self, types: Mapping[str, tuple[int, int, float]], oldest_transaction: float) -> None:
        """Set the gauges of the queue: by label pending, running and seconds of the oldest due; 0 where nothing is."""
        for label in (*self._steps, OTHER):
            pending, running, due = types.get(label, (0, 0, 0.0))
            self.jobs.labels(label, "pending").set(pending)
            self.jobs.labels(label, "running").set(running)
            self.oldest_due.labels(label).set(due)
        self.oldest_transaction.set(oldest_transaction)

    def queue_unknown(self) -> None:
        """The database does not answer: NaN, for the last numbers would look like today's."""
        nothing = float("nan")
        self.oldest_transaction.set(nothing)
        for label in (*self._steps, OTHER):
            self.jobs.labels(label, "pending").set(nothing)
            self.jobs.labels(label, "running").set(nothing)
            self.oldest_due.labels(label).set(nothing)

    def forget_results(self) -> None:
        """The last results are not known."""
        self.result.clear()
        self.result_age.clear()

    def _define_jobs(self) -> None:
        kind = ["job_type"]
        self.finished = self._counter("worker_jobs_finished_total", "Attempts settled.", [*kind, "outcome"])
        self.duration = self._spans("worker_job_duration_seconds", "Length of an attempt.", _FAST)
        self.wait = self._spans("worker_job_wait_seconds", "From due to start.", _WAIT)
        self.step_duration = self._histogram(
            "worker_step_duration_seconds", "Length of a step.", [*kind, "step"], _FAST
        )
        self.jobs = self._gauge("worker_jobs", "Jobs in the queue, pending and running.", [*kind, "status"])
        self.oldest_due = self._gauge("worker_oldest_due_seconds", "How long the oldest due job has waited.", kind)
        self.result = self._gauge("worker_job_result", "A number of the last completed job's result.", [*kind, "name"])
        self.result_age = self._gauge("worker_job_result_age_seconds", "How long ago that job completed.", kind)
        self.lateness = self._histogram("worker_schedule_lateness_seconds", "From due to fired.", ["schedule"], _LATE)

    def _define_claims(self) -> None:
        self.slots = self._gauge("worker_slots", "Jobs that this process may run at once.")
        self.running = self._gauge("worker_running", "Jobs that this process runs.")
        self.claims = self._counter("worker_claims_total", "Claim calls by what came of them.", ["result"])
        self.lost_claims = self._counter(
            "worker_lost_claims_total", "Verdicts refused: the job is somebody else's now."
        )
        self.rescues = self._counter("worker_rescues_total", "Jobs taken over from dead processes.")
        self.outbound = self._counter("worker_outbound_total", "Outgoing HTTP calls.", ["job_type", "result"])
        self.breaker = self._gauge("worker_breaker_open", "1 while calls are held back: nobody answers.", ["job_type"])

    def _define_process(self) -> None:
        self.database_errors = self._counter("worker_database_errors_total", "Errors of SQL.", ["sqlstate_class"])
        self.listen_roundtrip = self._gauge(
            "worker_listen_roundtrip_seconds", "A notification to ourselves, last test."
        )
        self.loop_lag = self._histogram("worker_loop_lag_seconds", "How late the event loop wakes.", [], _LAG)
        self.children = self._gauge("worker_child_processes", "Child processes of this process.", ["state"])
        self.child_deaths = self._counter("worker_child_processes_died_total", "Child processes that died.")
        self.oldest_transaction = self._gauge(
            "worker_oldest_transaction_seconds", "Oldest transaction in the database."
        )
        for gauge in (self.listen_roundtrip, self.oldest_transaction):
            gauge.set(float("nan"))  # until it is measured

    def _counter(self, name: str, documentation: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, documentation, list(labels), registry=self.registry)

    def _gauge(self, name: str, documentation: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, documentation, list(labels), registry=self.registry)

    def _histogram(self, name: str, documentation: str, labels: Iterable[str], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, documentation, list(labels), buckets=buckets, registry=self.registry)

    def _spans(self, name: str, documentation: str, bounds: tuple[float, ...]) -> Spans:
        return Spans(name, documentation, "job_type", bounds, self.registry)

    def _info(self, name: str, documentation: str) -> Info:
        return Info(name, documentation, registry=self.registry)
