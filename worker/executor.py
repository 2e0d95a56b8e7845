"""One job from attempt to report: attempt → judge → settle → report, one direction."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog

from worker.config import JobType
from worker.context import Context
from worker.errors import AttemptTimeout, CancelRequested, DeadlineExceeded, Interrupted, JobError, LeaseExpired
from worker.handlers import Handler
from worker.job import Job
from worker.log import job_fields
from worker.outcome import Failed, Outcome, Retried, Skipped, judge, message
from worker.report import Reporter
from worker.retry import Retry
from worker.settler import Settler
from worker.verdict import Verdict

END_SECONDS = 8.0  # what a cancelled handler is given to end, its step's backend included

_log = structlog.get_logger()


class Executor:
    """Executes claimed jobs, at most `concurrency` at once.

    Args:
        make_context: from the jobs of one call to their handler's context.
    """

    def __init__(
        self,
        types: Mapping[str, JobType],
        handlers: Mapping[str, Handler],
        make_context: Callable[[Sequence[Job]], Context],
        *,
        settler: Settler,
        reporter: Reporter,
        concurrency: int,
        fallbacks: Mapping[str, Handler] | None = None,
        master: bool = True,
    ) -> None:
        self._types = types
        self._handlers = handlers
        self._make_context = make_context
        self._settler = settler
        self._reporter = reporter
        self._slots = asyncio.Semaphore(concurrency)
        self._fallbacks = fallbacks or {}
        self._master = master
        self._stops: dict[int, asyncio.Future[JobError]] = {}
        self._started: set[int] = set()

    def calls(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Claimed jobs as the calls they make: one each, but coalescing rows of one key go together."""
        calls: dict[object, list[Job]] = {}
        for job in jobs:
            together = self._types[job.job_type].coalesce is not None and job.concurrency_key is not None
            calls.setdefault((job.job_type, job.concurrency_key) if together else job.claim, []).append(job)
        return [sorted(call, key=lambda job: job.id) for call in calls.values()]

    def execute(self, jobs: Sequence[Job]) -> Coroutine[Any, Any, bool]:
        """Run one call to its report; never raises for the jobs' own trouble. It can be interrupted from now on.

        Args:
            jobs: one job, or those of a coalesced call, oldest first.

        Returns:
            True when its end may have made another row claimable: its key is free, or it is to come again.
        """
        self._stops[jobs[0].claim] = asyncio.get_running_loop().create_future()
        return self._execute(jobs, time.monotonic())

    async def _execute(self, jobs: Sequence[Job], claimed: float) -> bool:
        lead = jobs[0]
        context = self._make_context(jobs)
        try:
            began, came = await self._attempt(lead, context, claimed)
        finally:
            del self._stops[lead.claim]
            self._started.discard(lead.claim)
        outcomes = [self._judged(job, each) for job, each in zip(jobs, _shared(jobs, came), strict=True)]
        if self._types[lead.job_type].kind == "http":
            self._reporter.call(lead, outcomes)
        await self._conclude(jobs, outcomes, time.monotonic() - began, context.follows)
        return lead.concurrency_key is not None or not all(outcome.status.final for outcome in outcomes)

    def _judged(self, job: Job, came: Any) -> Outcome:
        try:
            outcome = judge(job, self._retry(job), came)
            Verdict.of(job, outcome)  # an outcome of the author's own making must not strand its row
        except Exception as error:
            return Failed(message(error), "invalid")
        return outcome

    async def take_over(self, job: Job) -> None:
        """Judge and settle a job rescued from a dead process."""
        self._reporter.rescued(job)
        outcome: Outcome = judge(job, self._retry(job), LeaseExpired("the process that ran it died"))
        if job.job_type not in self._types:
            outcome = Retried("the process that ran it died; nobody here declares its type", 0.0, job.counted)
        await self._conclude([job], [outcome], 0.0)

    def interrupt(self, claim: int, reason: JobError) -> None:
        """End a running attempt; the first reason given is the one that is judged."""
        stop = self._stops.get(claim)
        if stop is not None and not stop.done():
            stop.set_result(reason)

    def running(self) -> list[int]:
        """Claims of the attempts under way or waiting for a slot."""
        return list(self._stops)

    def waiting(self) -> list[int]:
        """Claims that wait for a slot: not begun, so they can be handed back at once."""
        return [claim for claim in self._stops if claim not in self._started]

    async def _attempt(self, job: Job, context: Context, claimed: float) -> tuple[float, Any]:
        stop = self._stops[job.claim]
        slot = asyncio.ensure_future(self._slots.acquire())
        first: set[asyncio.Future[Any]] = {slot, stop}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        began = time.monotonic()
        if not slot.done():
            slot.cancel()
            return began, stop.result()
        self._started.add(job.claim)
        try:
            return began, await self._handle(context, stop, began - claimed)
        finally:
            self._slots.release()

    async def _handle(self, context: Context, stop: "asyncio.Future[JobError]", waited: float) -> Any:
        job = context.job
        seconds, late = _limit(self._types[job.job_type], job, waited)
        if stop.done() or seconds <= 0:
            return stop.result() if stop.done() else late
        handler = asyncio.create_task(self._call(context), name=f"job {job.id}")
        both: set[asyncio.Future[Any]] = {handler, stop}
        await asyncio.wait(both, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if handler.done():
            return handler.result()
        reason = stop.result() if stop.done() else late
        handler.cancel()
        await asyncio.wait({handler}, timeout=END_SECONDS)
        if not handler.done():
            # It swallowed the cancellation. Its claim is given up, so nothing it still does through us is accepted.
            _log.error("job.will_not_end", reason=type(reason).__name__, **job_fields(job))
        return reason

    async def _call(self, context: Context) -> Any:
        try:
            return await self._work(context.job)(context)
        except Exception as error:
            return error
        except asyncio.CancelledError as cancelled:
            return (
                JobError("the handler was cancelled from within") if not cancelled.args else JobError(*cancelled.args)
            )
        except BaseException as error:  # SystemExit and its like end the job, not the daemon
            return error

    def _work(self, job: Job) -> Handler:
        """The type's handler; where it is off, its fallback, or nothing at all."""
        job_type = self._types[job.job_type]
        if self._master and job_type.enabled and job_type.sources.get(job.source or "", True):
            return self._handlers[job.job_type]
        return self._fallbacks.get(job.job_type, _source_off)

    async def _conclude(
        self, jobs: Sequence[Job], outcomes: Sequence[Outcome], seconds: float, follows: Sequence[dict[str, Any]] = ()
    ) -> None:
        verdicts = [Verdict.of(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
        verdicts[0] = Verdict.of(jobs[0], outcomes[0], follows)
        statuses = await self._settler.settle(verdicts)
        for job, outcome, status in zip(jobs, outcomes, statuses, strict=True):
            self._reporter.attempt(job, outcome, seconds, status)

    def _retry(self, job: Job) -> Retry:
        job_type = self._types.get(job.job_type)
        return job_type.retry if job_type else Retry()


def _shared(jobs: Sequence[Job], came: Any) -> Sequence[Any]:
    """What came of a call, for each of its jobs."""
    if isinstance(came, list) and len(came) == len(jobs) and all(isinstance(each, Outcome) for each in came):
        return came
    if isinstance(came, CancelRequested | DeadlineExceeded):
        # It is the oldest one's own end; the others only went along.
        return [came, *(Interrupted("the call it went along with was ended") for _ in jobs[1:])]
    return [came] * len(jobs)


async def _source_off(context: Context) -> Outcome:
    return Skipped("source_off")


def _limit(job_type: JobType, job: Job, waited: float) -> tuple[float, JobError]:
    """The nearer of the attempt's timeout and the job's deadline, in seconds, and the error that it is.

    Args:
        waited: seconds for a slot since the claim, which the deadline goes on through.
    """
    timeout = job_type.timeout if job_type.timeout is not None else float("inf")
    if job.remaining is not None and job.remaining - waited <= timeout:
        return job.remaining - waited, DeadlineExceeded("the job ran past its deadline")
    return timeout, AttemptTimeout(f"the attempt ran past its timeout of {timeout:g} s")
