"""One call from its claim to its report: attempt → judge → settle → report, one direction.

Tasks for handlers and no others: what a call waits for (its turn, the end of its handler, its verdict) calls back.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from worker.alarm import Alarm
from worker.attempt import Attempt, End, concluded
from worker.config import JobType
from worker.context import Context
from worker.errors import Interrupted, JobError, LeaseExpired
from worker.handlers import Handler, chooser
from worker.job import Job
from worker.log import job_fields
from worker.outcome import Outcome, Retried, judge
from worker.report import Reporter
from worker.retry import Retry
from worker.runners import Runners
from worker.settler import Settler
from worker.slots import Slots
from worker.solitude import Solitude
from worker.verdict import Verdict

END_SECONDS = 8.0  # what a cancelled handler is given to end, its step's backend included
TURN_SECONDS = 1.0  # that a claimed job waits for its turn here; then it is handed back, for a neighbour may be free

_RETRY = Retry()  # of a type that nobody here declares

_log = structlog.get_logger()


class Executor:
    """Executes claimed jobs, at most `concurrency` at once.

    Args:
        make_context: from the jobs of one call to their handler's context.
        connections: how many of them may be graphs of steps; None where there is no such bound.

    Attributes:
        ended: types of attempts that ended, until somebody clears it.
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
        connections: int | None = None,
        fallbacks: Mapping[str, Handler] | None = None,
        master: bool = True,
    ) -> None:
        self._types = types
        self._make_context = make_context
        self._settler = settler
        self._reporter = reporter
        self._slots = Slots(concurrency, concurrency if connections is None else connections)
        self._loop = asyncio.get_running_loop()
        # Of the declared types, asked for each job: a model's own attribute costs more than a dictionary's.
        self._retries = {name: each.retry for name, each in types.items()}
        self._kinds = {name: each.kind for name, each in types.items()}
        self._timeouts = {name: each.timeout for name, each in types.items()}
        self._work = chooser(types, handlers, fallbacks or {}, master)
        self._coalesced = {name for name, each in types.items() if each.coalesce is not None}
        self._attempts: dict[int, Attempt] = {}
        self._stubborn: set[Attempt] = set()  # given up, and their handlers still run
        self.ended: set[str] = set()
        self._solo = Solitude(self._slots, self._go_on)
        self._runners = Runners(self._call, self._over)
        self._late = Alarm(self._end_late)
        self._impatient = Alarm(self._hand_back)

    def calls(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Claimed jobs as the calls they make: one each, but coalescing rows of one key go together."""
        if not self._coalesced:
            return [[job] for job in jobs]
        calls: dict[object, list[Job]] = {}
        for job in jobs:
            together = job.job_type in self._coalesced and job.concurrency_key is not None
            calls.setdefault((job.job_type, job.concurrency_key) if together else job.claim, []).append(job)
        return [call if len(call) == 1 else sorted(call, key=lambda job: job.id) for call in calls.values()]

    def start(self, jobs: Sequence[Job], ended: Callable[[End], None]) -> None:
        """Take over one call; never raises for the jobs' own trouble. It can be interrupted from now on.

        Args:
            jobs: one job, or those of a coalesced call, oldest first.
            ended: told once the verdicts are written and reported.
        """
        attempt = Attempt(jobs, self._kinds[jobs[0].job_type], ended)
        self._attempts[jobs[0].claim] = attempt
        if not self._slots.take(attempt):
            self._impatient.at(attempt.claimed + TURN_SECONDS)
        elif not self._begun(attempt):
            self._go_on(self._slots.free(attempt))

    def execute(self, jobs: Sequence[Job]) -> Coroutine[Any, Any, End]:
        """The same, to be awaited; it is under way before it is."""
        ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.start(jobs, lambda end: None if ended.done() else ended.set_result(end))
        return _awaited(ended)

    async def take_over(self, job: Job) -> None:
        """Judge and settle a job rescued from a dead process."""
        self._reporter.rescued(job)
        died = LeaseExpired("the process that ran it died")
        outcome: Outcome = judge(job, self._retries.get(job.job_type, _RETRY), died)
        if job.job_type not in self._types:
            outcome = Retried("the process that ran it died; nobody here declares its type", 0.0, job.counted)
        (status,) = await self._settler.settle([Verdict.of(job, outcome)])
        self._reporter.attempt(job, outcome, 0.0, status)

    def interrupt(self, claim: int, reason: JobError) -> None:
        """End a running attempt; the first reason given is the one that is judged."""
        attempt = self._attempts.get(claim)
        if attempt is not None and attempt.reason is None:
            self._stop(attempt, reason)

    def running(self) -> list[int]:
        """Claims of the attempts under way or waiting for a slot."""
        return list(self._attempts)

    def types(self) -> set[str]:
        """Job types of the handlers that run."""
        attempts = (*self._attempts.values(), *self._stubborn)
        return {attempt.jobs[0].job_type for attempt in attempts if attempt.began is not None}

    def waiting(self) -> list[int]:
        """Claims that wait for a slot: not begun, so they can be handed back at once."""
        return [attempt.jobs[0].claim for attempt in self._slots.waiting()]

    def _begun(self, attempt: Attempt) -> bool:
        """Its turn has come; False when its time is over already."""
        name = attempt.jobs[0].job_type
        if not attempt.begin(self._timeouts[name]):
            self._conclude(attempt, attempt.late(self._types[name]))
            return False
        self._runners.begin(attempt)
        self._late.at(attempt.until)
        return True

    def _go_on(self, following: Attempt | None) -> None:
        while following is not None:
            following = self._slots.next() if self._begun(following) else self._slots.free(following)

    async def _call(self, attempt: Attempt) -> Any:
        try:
            context = attempt.context = self._make_context(attempt.jobs)
            context.until = attempt.until
            handler = self._work(context.job)
            if self._slots.alone is attempt:
                return await self._solo.call(attempt, context, handler)
            return await handler(context)
        except Exception as error:
            return error
        except asyncio.CancelledError as cancelled:
            return JobError(*(cancelled.args or ("the handler was cancelled from within",)))
        except BaseException as error:  # SystemExit and its like end the job, not the daemon
            return error

    def _stop(self, attempt: Attempt, reason: JobError) -> None:
        attempt.reason = reason
        if self._slots.leave(attempt) or attempt.task is None:
            self._over(attempt, reason)
        else:
            attempt.task.cancel()
            self._loop.call_later(END_SECONDS, self._give_up, attempt)

    def _give_up(self, attempt: Attempt) -> None:
        if not attempt.over:
            # It swallowed the cancellation. Its claim is given up, so nothing it still does through us is accepted.
            self._stubborn.add(attempt)
            _log.error("job.will_not_end", reason=type(attempt.reason).__name__, **job_fields(attempt.jobs[0]))
            self._over(attempt, attempt.reason)

    def _end_late(self, now: float) -> float:
        """End those whose time is over; answers with when the next one's is."""
        soonest = float("inf")
        for attempt in list(self._attempts.values()):
            if attempt.until <= now and attempt.reason is None:
                self._stop(attempt, attempt.late(self._types[attempt.jobs[0].job_type]))
            elif attempt.reason is None:
                soonest = min(soonest, attempt.until)
        return soonest

    def _hand_back(self, now: float) -> float:
        """Hand back those that waited too long for their turn; answers with when the next one will have."""
        soonest = float("inf")
        for attempt in self._slots.waiting():
            if attempt.began is not None:
                continue  # just now, in place of one before it
            if attempt.claimed + TURN_SECONDS > now:
                soonest = min(soonest, attempt.claimed + TURN_SECONDS)
            elif attempt.suspect:
                self._go_on(self._slots.hurry(attempt))
                soonest = min(soonest, now + TURN_SECONDS)
            else:
                self._stop(attempt, Interrupted("its turn did not come; a neighbour may be free"))
        return soonest

    def _over(self, attempt: Attempt, came: Any) -> None:
        if attempt.over:  # its handler has ended after all
            self._stubborn.discard(attempt)
            return
        self._conclude(attempt, came if attempt.reason is None else attempt.reason)
        if attempt.began is not None:
            self._go_on(self._slots.free(attempt))

    def _conclude(self, attempt: Attempt, came: Any) -> None:
        """Judge it, and let it be settled."""
        attempt.over, jobs = True, attempt.jobs
        del self._attempts[jobs[0].claim]
        self.ended.add(jobs[0].job_type)
        outcomes, verdicts = concluded(jobs, came, self._retries.get(jobs[0].job_type, _RETRY))
        if attempt.kind == "http":
            self._reporter.call(jobs[0], outcomes)
        if attempt.context is not None and attempt.context.follows:
            verdicts[0] = Verdict.of(jobs[0], outcomes[0], attempt.context.follows)
        self._settler.put(verdicts, partial(self._settled, attempt, outcomes, attempt.seconds))

    def _settled(
        self, attempt: Attempt, outcomes: Sequence[Outcome], seconds: float, statuses: Sequence[str | None]
    ) -> None:
        try:
            for job, outcome, status in zip(attempt.jobs, outcomes, statuses, strict=True):
                self._reporter.attempt(job, outcome, seconds, status)
        except Exception as error:  # it is settled all the same, and its slot is free
            _log.error("job.crashed", error=f"{type(error).__name__}: {error}", **job_fields(attempt.jobs[0]))
        attempt.ended(attempt.end(outcomes))


async def _awaited(ended: "asyncio.Future[End]") -> End:
    return await ended
