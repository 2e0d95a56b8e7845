"""One call under way: the jobs it is made for, and where it stands between claim and verdict."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeGuard

from worker.config import JobType
from worker.context import Context
from worker.errors import AttemptTimeout, CancelRequested, DeadlineExceeded, Interrupted, JobError
from worker.job import Job, Status
from worker.outcome import DONE, Failed, Outcome, Retried, judge, message
from worker.retry import Retry
from worker.verdict import Verdict

SUSPECT = 2  # rescues


class End(NamedTuple):
    """The end of one call.

    Attributes:
        ran: False when it was handed back before its turn came.
        frees: it may have made another row claimable: its key is free, or it is to come again.
    """

    ran: bool
    frees: bool


# What nearly all of them come to, made once.
_RAN = End(ran=True, frees=False)
_DONE = (DONE,)


class Attempt:
    """The state of one call; the executor moves it on.

    Args:
        ended: told once its verdicts are written.

    Attributes:
        kind: of the job type.
        claimed, began: monotonic seconds; `began` is None until its turn has come.
        until: when its time is over.
        reason: why it was interrupted; the first one counts.
        over: judged, whatever its handler still does.
        suspect: processes died of it or of its company, so that it is to run alone.
    """

    __slots__ = (
        "began", "claimed", "context", "ended", "jobs", "kind", "over", "reason", "suspect", "task", "until",
    )  # fmt: skip

    def __init__(self, jobs: Sequence[Job], kind: str, ended: Callable[[End], None]) -> None:
        self.jobs = jobs
        self.kind = kind
        self.ended = ended
        self.claimed = time.monotonic()
        self.began: float | None = None
        self.until = float("inf")
        self.context: Context | None = None
        self.task: asyncio.Task[Any] | None = None
        self.reason: JobError | None = None
        self.over = False
        self.suspect = jobs[0].rescues >= SUSPECT or (len(jobs) > 1 and any(job.rescues >= SUSPECT for job in jobs))

    def begin(self, timeout: float | None) -> bool:
        """Its turn has come, and its timeout begins to count; False when the job's deadline is over already."""
        self.began = time.monotonic()
        if timeout is not None:
            self.until = self.began + timeout
        if (remaining := self.jobs[0].remaining) is not None:
            self.until = min(self.until, self.claimed + remaining)  # which goes on while it waits for its turn
        return self.until > self.began

    def late(self, job_type: JobType) -> JobError:
        """What it ends with when its time is over."""
        remaining = self.jobs[0].remaining
        if remaining is not None and self.until >= self.claimed + remaining:
            return DeadlineExceeded("the job ran past its deadline")
        return AttemptTimeout(f"the attempt ran past its timeout of {job_type.timeout:g} s")

    @property
    def seconds(self) -> float:
        """Since it began."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def end(self, outcomes: Sequence[Outcome]) -> End:
        """What its end means for others, once its verdicts are written."""
        ran, keyed = self.began is not None, self.jobs[0].concurrency_key is not None
        if outcomes is _DONE and ran and not keyed:
            return _RAN
        return End(ran, keyed or any(outcome.status is Status.PENDING for outcome in outcomes))


def concluded(jobs: Sequence[Job], came: Any, retry: Retry) -> tuple[Sequence[Outcome], list[Verdict]]:
    """What a call came to, for each of its jobs, and what is written of it; never raises."""
    if len(jobs) == 1:
        if came is None:
            return _DONE, [Verdict.of(jobs[0], DONE)]
        outcome, verdict = _judged(jobs[0], shared(jobs, came)[0], retry)
        return (outcome,), [verdict]
    judged = [_judged(job, each, retry)[0] for job, each in zip(jobs, shared(jobs, came), strict=True)]
    outcomes = together(jobs, judged)
    return outcomes, [Verdict.of(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]


def _judged(job: Job, came: Any, retry: Retry) -> tuple[Outcome, Verdict]:
    try:
        outcome = judge(job, retry, came)
        return outcome, Verdict.of(job, outcome)
    except Exception as error:  # an outcome of the author's own making must not strand its row
        failed = Failed(message(error), "invalid")
        return failed, Verdict.of(job, failed)


def together(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """A call of several rows that failed is made again as one, when its most-tried row is to be tried again.

    Each at a time of its own, one of hundreds would be due at once, and take the attempts of all.
    """
    again = [(job.attempt, outcome.delay) for job, outcome in zip(jobs, outcomes, strict=True) if _whole(outcome)]
    if len(again) < 2:
        return list(outcomes)
    delay = max(again)[1]
    return [replace(outcome, delay=delay) if _whole(outcome) else outcome for outcome in outcomes]


def _whole(outcome: Outcome) -> TypeGuard[Retried]:
    return isinstance(outcome, Retried) and outcome.payload is None  # another payload: the receiver took a part


def shared(jobs: Sequence[Job], came: Any) -> Sequence[Any]:
    """What came of a call, for each of its jobs."""
    if came is None:
        return (None,) * len(jobs)
    if isinstance(came, list) and len(came) == len(jobs) and all(isinstance(each, Outcome) for each in came):
        return came
    if isinstance(came, CancelRequested | DeadlineExceeded):
        # It is the oldest one's own end; the others only went along.
        return [came, *(Interrupted("the call it went along with was ended") for _ in jobs[1:])]
    return [came] * len(jobs)
