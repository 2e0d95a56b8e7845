"""Verdicts written in groups: whoever waits while a flush is in flight goes with the next; no timer.

A verdict that cannot be written yet is kept and sent again until the database takes it or the process is stopped; the
claim fences it, so that late is never wrong.
"""

import asyncio
from collections.abc import Sequence

import asyncpg
import structlog
import tenacity

from worker.database import is_transient
from worker.job import Job
from worker.job_queue import JobQueue
from worker.outcome import Failed, Outcome, clean
from worker.verdict import Verdict

GROUP = 1_000

_log = structlog.get_logger()


class Settler:
    """Collects verdicts and writes them; `run` is a side duty of the service."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._waiting: list[tuple[Verdict, asyncio.Future[str | None]]] = []
        self._something = asyncio.Event()

    async def settle(self, job: Job, outcome: Outcome) -> str | None:
        """Write one outcome; answers with the row's new status, or None when the claim was lost."""
        written: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((Verdict.of(job, outcome), written))
        self._something.set()
        return await written

    @property
    def idle(self) -> bool:
        """True when every verdict is written."""
        return not self._waiting

    async def run(self) -> None:
        """Flush, for ever."""
        while True:
            await self._something.wait()
            group, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            if not self._waiting:
                self._something.clear()
            await self._flush(group)

    async def _flush(self, group: Sequence[tuple[Verdict, "asyncio.Future[str | None]"]]) -> None:
        verdicts = [verdict for verdict, _ in group]
        try:
            statuses = await self._persist(verdicts)
        except asyncpg.PostgresError as error:
            statuses = await self._one_by_one(verdicts, error)
        self._queue.drop(verdict.claim for verdict in verdicts)
        for verdict, written in group:
            if not written.done():
                written.set_result(statuses.get(verdict.id))

    async def _persist(self, verdicts: Sequence[Verdict]) -> dict[int, str]:
        uncertain = False
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_transient),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
            stop=tenacity.stop_never,  # bounded by the process: nothing is lost while it lives
            before_sleep=_say_kept,
        ):
            with attempt:
                again, uncertain = uncertain, True
                statuses = await self._queue.settle(verdicts)
                if again and len(statuses) < len(verdicts):
                    # What is on the row under our claim was written by us.
                    statuses |= await self._queue.settled([v for v in verdicts if v.id not in statuses])
                return statuses
        raise AssertionError("unreachable")

    async def _one_by_one(self, verdicts: Sequence[Verdict], error: asyncpg.PostgresError) -> dict[int, str]:
        """One verdict that Postgres refuses must not strand its group."""
        if len(verdicts) == 1:
            return await self._persist([_refused(verdicts[0], error)])
        statuses: dict[int, str] = {}
        for verdict in verdicts:
            try:
                statuses |= await self._persist([verdict])
            except asyncpg.PostgresError as own:
                statuses |= await self._one_by_one([verdict], own)
        return statuses


def _refused(verdict: Verdict, error: asyncpg.PostgresError) -> Verdict:
    text = clean(f"the verdict {verdict.status} could not be written: {error.sqlstate}")
    return verdict._replace(
        status=Failed.status.value, reason="invalid", error=text, result=None, until=None, delay=0.0, counted=True
    )


def _say_kept(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning("settle.kept", error=type(error).__name__, tries=state.attempt_number)
