"""Verdicts written in groups: whoever waits while a flush is in flight goes with the next; no timer.

Where many wait, a second group is on its way beside the first: one is written while the other's jobs are told.

A verdict that cannot be written yet is kept and sent again until the database takes it or the process is stopped; the
claim fences it, so that late is never wrong.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg
import structlog
import tenacity

from worker.database import is_transient
from worker.job_queue import JobQueue
from worker.outcome import Failed, clean
from worker.verdict import Verdict

GROUP = 500  # verdicts
MANY = 300  # bundles that wait: beside the group on its way goes another one (docs/decisions/0035)

_log = structlog.get_logger()


Written = Callable[[Sequence[str | None]], None]


# Verdicts that belong together, and who is told; a plain tuple, for there is one for nearly every job.
_Bundle = tuple[Sequence[Verdict], Written]


class Settler:
    """Collects verdicts and writes them; `run` is a side duty of the service.

    Args:
        failed: told each error for which verdicts were kept, and each that one was refused for.
    """

    def __init__(self, queue: JobQueue, failed: Callable[[BaseException], None] = lambda error: None) -> None:
        self._queue = queue
        self._failed = failed
        self._waiting: list[_Bundle] = []
        self._something, self._much = asyncio.Event(), asyncio.Event()
        self._alone: set[asyncio.Task[None]] = set()
        self._lane = asyncio.Lock()

    def put(self, verdicts: Sequence[Verdict], written: Written) -> None:
        """Write verdicts that belong together, in one transaction.

        Args:
            written: told of each the row's new status, or None when the claim was lost.
        """
        bundle = (verdicts, written)
        for verdict in verdicts:
            if verdict.follows:
                # What it enqueues may wait for somebody's unique key: it must not hold up the others.
                self._apart(self._flush([bundle]))
                return
        self._waiting.append(bundle)
        self._something.set()
        if len(self._waiting) >= MANY:
            self._much.set()

    async def settle(self, verdicts: Sequence[Verdict]) -> Sequence[str | None]:
        """The same, to be awaited."""
        written: asyncio.Future[Sequence[str | None]] = asyncio.get_running_loop().create_future()
        self.put(verdicts, lambda statuses: None if written.done() else written.set_result(statuses))
        return await written

    async def run(self) -> None:
        """Flush, for ever."""
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._flushes(self._something))
            lanes.create_task(self._flushes(self._much))

    async def _flushes(self, wanted: asyncio.Event) -> None:
        while True:
            await wanted.wait()
            group = self._next_group()
            if not self._waiting:
                self._something.clear()
            if len(self._waiting) < MANY:
                self._much.clear()
            if group:  # the other lane, woken by the same call, may have taken all
                await self._flush(group)

    def _next_group(self) -> list[_Bundle]:
        size = taken = 0
        for verdicts, _ in self._waiting:
            if taken and size + len(verdicts) > GROUP:
                break
            taken, size = taken + 1, size + len(verdicts)
        group, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return group

    async def _flush(self, group: Sequence[_Bundle]) -> None:
        verdicts = [verdict for bundle, _ in group for verdict in bundle]
        try:
            statuses = await self._persist(verdicts)
        except asyncpg.LockNotAvailableError:
            # Somebody's open transaction holds one of these rows: each waits for itself, so that only that one waits.
            for bundle in group:
                self._apart(self._insist(bundle))
            return
        except asyncpg.PostgresError as error:
            statuses = await self._one_by_one(verdicts, error)
        self._answer(group, statuses)

    def _apart(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _insist(self, bundle: _Bundle) -> None:
        statuses: dict[int, str] = {}
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(asyncpg.LockNotAvailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
            stop=tenacity.stop_never,  # as long as the stranger's transaction; bounded by the process
        ):
            with attempt:
                async with self._lane:  # one at a time, or they would take every control connection
                    try:
                        statuses = await self._persist(bundle[0])
                    except asyncpg.LockNotAvailableError:
                        raise
                    except asyncpg.PostgresError as error:
                        statuses = await self._one_by_one(bundle[0], error)
        self._answer([bundle], statuses)

    def _answer(self, group: Sequence[_Bundle], statuses: dict[int, str]) -> None:
        self._queue.drop([verdict.claim for verdicts, _ in group for verdict in verdicts])
        for verdicts, written in group:
            written([statuses.get(verdict.id) for verdict in verdicts])

    async def _persist(self, verdicts: Sequence[Verdict]) -> dict[int, str]:
        uncertain = False
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
            stop=tenacity.stop_never,  # bounded by the process: nothing is lost while it lives
            before_sleep=self._kept,
        ):
            with attempt:
                again, uncertain = uncertain, True
                statuses = await self._queue.settle(verdicts)
                if again and len(statuses) < len(verdicts):
                    # What is on the row under our claim was written by us.
                    statuses |= await self._queue.settled([v for v in verdicts if v.id not in statuses])
                return statuses
        raise AssertionError("unreachable")

    def _kept(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            self._failed(error)
        _log.warning("settle.kept", error=type(error).__name__, tries=state.attempt_number)

    async def _one_by_one(self, verdicts: Sequence[Verdict], error: asyncpg.PostgresError) -> dict[int, str]:
        """One verdict that Postgres refuses must not strand its group."""
        if len(verdicts) == 1:
            self._failed(error)
            return await self._persist([_refused(verdicts[0], error)])
        statuses: dict[int, str] = {}
        for verdict in verdicts:
            try:
                statuses |= await self._persist([verdict])
            except asyncpg.PostgresError as own:
                statuses |= await self._one_by_one([verdict], own)
        return statuses


def _passes(error: BaseException) -> bool:
    return is_transient(error) and not isinstance(error, asyncpg.LockNotAvailableError)


def _refused(verdict: Verdict, error: asyncpg.PostgresError) -> Verdict:
    text = clean(f"the verdict {verdict.status} could not be written: {error.sqlstate}")
    return verdict._replace(
        status=Failed.status.value,
        reason="invalid",
        error=text,
        result=None,
        until=None,
        delay=0.0,
        counted=True,
        payload=None,
        follows=None,
    )
