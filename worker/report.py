"""What an attempt leaves in metrics and log: counters always, a line when it is worth one."""

import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import structlog

from worker.breaker import endpoint
from worker.config import JobType
from worker.counts import Count
from worker.errors import StepTimeout
from worker.job import Job
from worker.log import job_fields
from worker.metrics import Metrics
from worker.outcome import Completed, Failed, Outcome, Retried, Skipped, Snoozed
from worker.spans import Span
from worker.step import StepError, Watch

_DETAIL = re.compile(r"(?s)\nDETAIL: .*?(?=; step [a-z][a-z0-9_]*: |\nHINT: |\Z)")  # of an error: whole rows of tables
_WORDS = re.compile(r"(?s)(?<=answered \d\d\d): .*")  # of an answer: it may repeat what it was sent

_QUIET = (Completed, Skipped)

SUM_SECONDS = 0.99  # a timer may be early

_log = structlog.get_logger()


class Reporter(Watch):
    """Counts every attempt; logs those that failed, were retried or slow, and of the others one sum a second."""

    def __init__(self, metrics: Metrics, types: Mapping[str, JobType], log_slow: float) -> None:
        self._metrics = metrics
        self._each = {name for name, job_type in types.items() if job_type.log == "each"}
        self._log_slow = log_slow
        self._quiet: Counter[str] = Counter()
        self._endpoints = {
            name: {endpoint(url) for url in (job_type.http, job_type.fallback) if url}
            for name, job_type in types.items()
            if job_type.http or job_type.fallback
        }
        self._held: set[str] = set()
        self._summed_at = float("-inf")
        # The search for a series by its labels costs as much as all the rest of a report.
        self._series = lru_cache(maxsize=1_000)(self._look_up)
        for name in self._endpoints:
            for result in ("completed", "failed"):  # at 0 before the first call, so that its failure is an increase
                metrics.outbound.labels(metrics.label(name), result)
        self._show_held()

    def attempt(self, job: Job, outcome: Outcome, seconds: float, status: str | None) -> None:
        """One attempt is over: `status` is what the row got, None when the claim was lost."""
        if status is None:
            self._metrics.lost_claims.inc()
            _log.warning("job.lost_claim", outcome=word(type(outcome)), **job_fields(job))
            return
        # mypy takes a class whose instances have no hash for one that has none itself.
        finished, duration, wait = self._series(job.job_type, type(outcome))  # type: ignore[arg-type]
        finished.inc()
        duration.observe(seconds)
        wait.observe(max(job.waited, 0.0))
        if isinstance(outcome, _QUIET) and seconds < self._log_slow and job.job_type not in self._each:
            self._quiet[job.job_type] += 1
        else:
            self._say(job, outcome, seconds)

    def call(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        """One outgoing call is over; `job` is the oldest of those it carried."""
        if any(isinstance(outcome, Snoozed) for outcome in outcomes):
            return  # held back: there was no call
        done = sum(isinstance(outcome, Completed) for outcome in outcomes)
        result = "completed" if done == len(outcomes) else "partial" if done else "failed"
        self._metrics.outbound.labels(self._metrics.label(job.job_type), result).inc()
        if result != "completed":
            error = next((outcome.error for outcome in outcomes if isinstance(outcome, Failed | Retried)), None)
            shown = self._shown(job, error) if error else None
            _log.warning("outbound.failed", result=result, jobs=len(outcomes), error=shown, **job_fields(job))

    def breaker(self, endpoint: str, opened: bool) -> None:
        """Calls to an endpoint are held back from now on, or no longer."""
        (self._held.add if opened else self._held.discard)(endpoint)
        self._show_held()
        job_types = [name for name, endpoints in self._endpoints.items() if endpoint in endpoints]
        if opened:
            _log.warning("breaker.opened", endpoint=endpoint, job_types=job_types)
        else:
            _log.info("breaker.closed", endpoint=endpoint, job_types=job_types)

    def step(self, job: Job, step: str, seconds: float, error: BaseException | None) -> None:
        """One run of a step is over; its time counts when it did its work or failed, not when it was never let in."""
        if error is None or isinstance(error, StepError | StepTimeout):
            label = self._metrics.label(job.job_type)
            self._metrics.step_duration.labels(label, self._metrics.step_label(job.job_type, step)).observe(seconds)
        if _log.is_enabled_for(logging.DEBUG):
            ended = "completed" if error is None else type(error).__name__
            _log.debug("step.finished", step=step, outcome=ended, seconds=round(seconds, 4), **job_fields(job))

    def database_error(self, error: BaseException) -> None:
        """A statement ended with an error."""
        self._metrics.database_error(error)

    def rescued(self, job: Job) -> None:
        """A job was taken over from a dead process."""
        self._metrics.rescues.inc()
        _log.warning("job.rescued", rescues=job.rescues, counted=job.counted, **job_fields(job))

    def summary(self, last: bool = False) -> None:
        """Write the sums of quiet jobs, once a second however often it is called, and `last` at once."""
        if not last and time.monotonic() - self._summed_at < SUM_SECONDS:
            return
        self._summed_at = time.monotonic()
        for job_type, jobs in self._quiet.items():
            _log.info("jobs.finished", job_type=job_type, jobs=jobs)
        self._quiet.clear()

    def _look_up(self, job_type: str, outcome: type[Outcome]) -> tuple[Count, Span, Span]:
        label = self._metrics.label(job_type)
        return (
            self._metrics.finished.labels(label, word(outcome)),
            self._metrics.duration.labels(label),
            self._metrics.wait.labels(label),
        )

    def _show_held(self) -> None:
        for name, endpoints in self._endpoints.items():
            self._metrics.breaker.labels(self._metrics.label(name)).set(bool(endpoints & self._held))

    def _say(self, job: Job, outcome: Outcome, seconds: float) -> None:
        fields = {**job_fields(job), "seconds": round(seconds, 4)}
        match outcome:
            case Failed():
                error = self._shown(job, outcome.error)
                _log.error("job.finished", outcome="failed", reason=outcome.reason, error=error, **fields)
            case Retried():
                error = self._shown(job, outcome.error)
                _log.warning("job.retried", again_in=round(outcome.delay, 3), error=error, **fields)
            case Snoozed():
                _log.info("job.snoozed", again_in=outcome.delay, **fields)
            case _:
                _log.info("job.finished", outcome=word(type(outcome)), **fields)

    def _shown(self, job: Job, error: str) -> str:
        """An error as the log has it; what may hold a payload is on the row alone."""
        return without_payload(error, job.job_type in self._endpoints)


def without_payload(error: str, call: bool) -> str:
    """An error's text without the DETAIL of Postgres and, of a call, without what the receiver answered."""
    return _DETAIL.sub("", _WORDS.sub("", error) if call else error)


def word(outcome: type[Outcome]) -> str:
    """What an outcome is called in labels, logs and spans."""
    return outcome.__name__.lower()
