"""Jobs by the clock: whichever daemon is first fires a run, and works out the next one.

There is no leader. A compare-and-set on the schedule's row decides, and its jobs and its next run are one transaction.
What is due is told by the beats, so nothing is asked while nothing is due.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

import structlog

from worker.connection import connect
from worker.cron import Cron, due
from worker.database import DATABASE_ERRORS, is_transient
from worker.log import starred
from worker.metrics import Metrics
from worker.outcome import clean
from worker.retry import Retry
from worker.timetable import Due, Timetable
from worker.way import Way

DEADLINE = 60.0  # seconds, of for_each and the inserts for its rows
ASTRAY_SECONDS = 3.0  # beyond the deadline, after which the server is not waited for
FUNCTIONS = 4  # for_each at once, each on a connection of its own
SEEN_AHEAD = 2.0  # what is due later is told again
EARLY = 0.003  # a timer that fires early finds nothing
AGAIN = Retry(first=1.0, factor=2.0, max=300.0)

_LIMITS = "select pg_catalog.set_config('statement_timeout', $1, true), pg_catalog.set_config('search_path', $2, true)"
# Of the row's own words: a zone or a cron that this release does not know.
_UNREADABLE = (ValueError, LookupError)

_log = structlog.get_logger()


class Schedules:
    """Fires what is due, each schedule on its own: one that hangs or fails holds up no other.

    Args:
        way: for the connections on which for_each is called.
        search_path: where the name of for_each resolves.
    """

    def __init__(self, timetable: Timetable, way: Way, search_path: str, metrics: Metrics) -> None:
        self._timetable = timetable
        self._way = way
        self._search_path = search_path
        self._metrics = metrics
        self._hurry = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._busy: set[str] = set()
        self._plain = asyncio.Semaphore(1)  # the control connections are for claims first
        self._functions = asyncio.Semaphore(FUNCTIONS)

    def due(self, seconds: float) -> None:
        """There is something to do in so many seconds, as a beat saw it."""
        if seconds > SEEN_AHEAD:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(seconds, 0.0) + EARLY, self._hurry.set)

    async def run(self) -> None:
        """Fire what is due whenever something is; for ever."""
        async with asyncio.TaskGroup() as firing:
            while True:
                await self._hurry.wait()
                self._hurry.clear()
                for each in await self._look():
                    if each.name not in self._busy:
                        self._busy.add(each.name)
                        firing.create_task(self._tend(each))

    async def _look(self) -> Sequence[Due]:
        try:
            return await self._timetable.due()
        except DATABASE_ERRORS as error:  # the next beat tells it again
            if not is_transient(error):
                raise
            self._metrics.database_error(error)
            _log.warning("duty.failed", duty="schedules", error=type(error).__name__)
            return ()

    async def _tend(self, schedule: Due) -> None:
        try:
            if schedule.asked_at is not None:
                await self._try(schedule, schedule.asked_at)
            if not schedule.paused and (schedule.next_at is None or schedule.next_at <= schedule.at):
                await self._try(schedule, None)
        finally:
            self._busy.discard(schedule.name)

    async def _try(self, schedule: Due, asked: datetime | None) -> None:
        began = time.monotonic()
        try:
            runs, next_at = ([asked], schedule.next_at) if asked else _plan(schedule)
            added = await self._fire(schedule, runs, next_at, asked)
        except (*DATABASE_ERRORS, *_UNREADABLE) as error:
            await self._failed(schedule, asked, error)
            return
        if added is not None:
            self._report(schedule, runs, asked, added, time.monotonic() - began)

    async def _fire(
        self, schedule: Due, runs: Sequence[datetime], next_at: datetime | None, asked: datetime | None
    ) -> int | None:
        if schedule.for_each is None or not runs:
            async with self._plain:
                return await self._timetable.fire(schedule, runs, next_at, asked)
        async with self._functions:
            connection = await connect(self._way, "schedule")
            try:
                async with asyncio.timeout(DEADLINE + ASTRAY_SECONDS), connection.transaction():
                    await connection.execute(_LIMITS, str(int(DEADLINE * 1000)), self._search_path)
                    return await self._timetable.fire(schedule, runs, next_at, asked, connection)
            finally:
                # Ended, not given back: the function may have left anything on it, and may even run on.
                connection.terminate()

    async def _failed(self, schedule: Due, asked: datetime | None, error: BaseException) -> None:
        sqlstate = getattr(error, "sqlstate", None)
        delay = AGAIN.delay(schedule.failures + 1)
        self._metrics.database_error(error)
        _log.warning(
            "schedule.failed", schedule=schedule.name, error=type(error).__name__, sqlstate=sqlstate,
            again_in=None if asked else round(delay, 1),
        )  # fmt: skip
        said = f"{type(error).__name__}: {error}" if sqlstate is None else f"{sqlstate}: {error.args[0]}"
        with suppress(*DATABASE_ERRORS):
            await self._timetable.failed(schedule, asked, starred(clean(said)), delay)

    def _report(self, schedule: Due, runs: Sequence[datetime], asked: datetime | None, added: int, took: float) -> None:
        late = [(schedule.at - run).total_seconds() + took for run in runs]
        if asked is None and schedule.next_at is not None:
            label = self._metrics.schedule_label(schedule.name)
            for seconds in late:
                self._metrics.lateness.labels(label).observe(seconds)
            if not runs or runs[0] > schedule.next_at:
                since = schedule.next_at.isoformat()
                _log.warning("schedule.missed", schedule=schedule.name, since=since, missed=schedule.missed)
        if runs:
            _log.debug("schedule.fired", schedule=schedule.name, runs=len(runs), jobs=added, late=round(late[-1], 3))


def _plan(schedule: Due) -> tuple[list[datetime], datetime]:
    """The runs to be made now, and the next one."""
    cron = Cron(schedule.cron, schedule.zone)
    first = schedule.next_at
    runs = due(cron, first, schedule.at, schedule.missed, schedule.max_catch_up) if first else []
    return runs, cron.after(schedule.at)


async def work_out(timetable: Timetable) -> None:
    """The next run of those that were declared just now; the cron of others may be beyond this release."""
    for schedule in await timetable.due():
        if schedule.next_at is None and not schedule.paused:
            with suppress(*_UNREADABLE):
                await timetable.fire(schedule, *_plan(schedule), None)
