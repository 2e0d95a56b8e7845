"""One job from attempt to report: attempt → judge → settle → report, one direction."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from worker.config import JobType
from worker.context import Context
from worker.errors import AttemptTimeout, DeadlineExceeded, JobError, LeaseExpired
from worker.handlers import Handler
from worker.job import Job
from worker.log import job_fields
from worker.outcome import Outcome, Retried, judge
from worker.report import Reporter
from worker.retry import Retry
from worker.settler import Settler

END_SECONDS = 8.0  # what a cancelled handler is given to end, its step's backend included

_log = structlog.get_logger()


class Executor:
    """Executes claimed jobs, at most `concurrency` at once.

    Args:
        make_context: from a job to its handler's context.
    """

    def __init__(
        self,
        types: Mapping[str, JobType],
        handlers: Mapping[str, Handler],
        make_context: Callable[[Job], Context],
        *,
        settler: Settler,
        reporter: Reporter,
        concurrency: int,
    ) -> None:
        self._types = types
        self._handlers = handlers
        self._make_context = make_context
        self._settler = settler
        self._reporter = reporter
        self._slots = asyncio.Semaphore(concurrency)
        self._stops: dict[int, asyncio.Future[JobError]] = {}
        self._started: set[int] = set()

    def execute(self, job: Job) -> Coroutine[Any, Any, bool]:
        """Run one claimed job to its report; never raises for the job's own trouble. It can be interrupted from now on.

        Returns:
            True when its end may have made another row claimable: its key is free, or it is to come again.
        """
        self._stops[job.claim] = asyncio.get_running_loop().create_future()
        return self._execute(job)

    async def _execute(self, job: Job) -> bool:
        try:
            began, came = await self._attempt(job)
        finally:
            del self._stops[job.claim]
            self._started.discard(job.claim)
        outcome = judge(job, self._retry(job), came)
        await self._conclude(job, outcome, time.monotonic() - began)
        return job.concurrency_key is not None or not outcome.status.final

    async def take_over(self, job: Job) -> None:
        """Judge and settle a job rescued from a dead process."""
        self._reporter.rescued(job)
        outcome: Outcome = judge(job, self._retry(job), LeaseExpired("the process that ran it died"))
        if job.job_type not in self._types:
            outcome = Retried("the process that ran it died; nobody here declares its type", 0.0, job.counted)
        await self._conclude(job, outcome, 0.0)

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

    async def _attempt(self, job: Job) -> tuple[float, Any]:
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
            return began, await self._handle(job, stop)
        finally:
            self._slots.release()

    async def _handle(self, job: Job, stop: "asyncio.Future[JobError]") -> Any:
        seconds, late = _limit(self._types[job.job_type], job)
        if stop.done() or seconds <= 0:
            return stop.result() if stop.done() else late
        handler = asyncio.create_task(self._call(job), name=f"job {job.id}")
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

    async def _call(self, job: Job) -> Any:
        try:
            return await self._handlers[job.job_type](self._make_context(job))
        except Exception as error:
            return error
        except asyncio.CancelledError as cancelled:
            return (
                JobError("the handler was cancelled from within") if not cancelled.args else JobError(*cancelled.args)
            )
        except BaseException as error:  # SystemExit and its like end the job, not the daemon
            return error

    async def _conclude(self, job: Job, outcome: Outcome, seconds: float) -> None:
        status = await self._settler.settle(job, outcome)
        self._reporter.attempt(job, outcome, seconds, status)

    def _retry(self, job: Job) -> Retry:
        job_type = self._types.get(job.job_type)
        return job_type.retry if job_type else Retry()


def _limit(job_type: JobType, job: Job) -> tuple[float, JobError]:
    """The nearer of the attempt's timeout and the job's deadline, in seconds, and the error that it is."""
    timeout = job_type.timeout if job_type.timeout is not None else float("inf")
    if job.remaining is not None and job.remaining <= timeout:
        return job.remaining, DeadlineExceeded("the job ran past its deadline")
    return timeout, AttemptTimeout(f"the attempt ran past its timeout of {timeout:g} s")
