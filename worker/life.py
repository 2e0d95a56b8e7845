"""One life of the process, under one id: its parts are built, run in one TaskGroup, and stopped in two stages.

A dead side duty ends the process loudly.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog

from worker import migrations
from worker.config import Config
from worker.connection import connect
from worker.database import DATABASE_ERRORS, Database
from worker.errors import ProcessDead
from worker.job_queue import JobQueue
from worker.lease import Events, Lease, Terms
from worker.metrics import Metrics
from worker.migrating import LOCK_SECONDS
from worker.parts import Parts
from worker.poller import Poller
from worker.pulse import Readiness
from worker.stop import Stop, first
from worker.tally import Tally
from worker.traces import Traces
from worker.watchdog import Watchdog
from worker.way import Way

# What claims: the poller's loop for ever, or a drain once.
Claiming = Callable[[Poller, JobQueue], Coroutine[Any, Any, None]]

LEAVE_SECONDS = 2.0  # that the database is given to answer whoever holds nothing any more

_log = structlog.get_logger()


def release() -> str:
    """This release's version."""
    try:
        return version("job-queue-worker")
    except PackageNotFoundError:
        return "0+unknown"


class Life:
    """One life of the process under one id.

    Args:
        ways: of the control connections, and of all who need a session.
        metrics: of the process, over all its lives; `watchdog`, `tally` and `traces` too.
        readiness: told when claims begin and end; None where nobody asks, and then no gauges are sampled either.
    """

    def __init__(
        self,
        config: Config,
        ways: tuple[Way, Way],
        *,
        instead: Claiming | None,
        metrics: Metrics,
        readiness: Readiness | None,
        watchdog: Watchdog,
        tally: Tally,
        traces: Traces,
    ) -> None:
        self._config = config
        self._ways = ways
        self._instead = instead
        self._metrics = metrics
        self._readiness = readiness
        self._watchdog = watchdog
        self._tally = tally
        self._traces = traces
        self._dead = asyncio.Event()
        self._parts: Parts | None = None
        settings = config.worker
        terms = Terms(settings.beat, settings.fence, settings.missing, settings.lease)
        self._types = dict(config.job)
        # Who works for a moment only leaves the clock to those who stay.
        self._scheduled = config.scheduled if instead is None else []
        self._database = Database(*ways, config.database.steps, config.database.search_path)
        self._lease = Lease(
            ways[1], terms, self._events(), version=release(), types=config.claimed, slots=settings.concurrency,
            schedules=self._scheduled,
        )  # fmt: skip

    async def run(self, stop: Stop, ready: Callable[[int], None] = lambda me: None) -> None:
        """Start, work until `stop` is asked, drain, leave.

        Raises:
            ProcessDead: others declared this process dead.
        """
        await self._check_schema()
        try:
            await first(self._lease.start(), stop.asked)
            me = self._lease.me
            if stop.asked.is_set():
                return
            await self._database.open(me)
            try:
                await self._work(me, stop, ready)
            finally:
                if self._parts is not None:
                    await self._parts.children.close()
                await self._database.close()
        finally:
            await self._lease.stop()

    async def _work(self, me: int, stop: Stop, ready: Callable[[int], None]) -> None:
        parts = await self._built(me)
        _log.info("service.started", process=me, version=release(), environment=self._config.environment,
                  types=sorted(self._types))  # fmt: skip
        async with asyncio.TaskGroup() as duties:
            tasks = [duties.create_task(duty) for duty in parts.duties(scraped=self._readiness is not None)]
            polling = duties.create_task(parts.until_dead(self._poll(parts, stop)))
            self._begin(parts, polling)
            ready(me)
            await first(self._dead.wait(), stop.asked)
            self._end()
            _log.info("service.draining", in_hand=parts.poller.in_hand)
            polling.cancel()
            await asyncio.wait({polling}, timeout=LEAVE_SECONDS)
            telling = duties.create_task(_said(parts.bell.off()))
            await self._drain(parts, stop)
            parts.reporter.summary(last=True)
            # A call that nobody answers, and its cancellation, would be waited for much longer.
            asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._database.terminate)
            counting = duties.create_task(_said(parts.tell_counts(last=True)) if self._lease.held else asyncio.sleep(0))
            if parts.poller.in_hand == 0 and not self._dead.is_set():
                await _said(parts.queue.give_back())  # of a claim that the stop cut short
            await asyncio.wait({telling, counting}, timeout=LEAVE_SECONDS)
            await _ended([*tasks, polling, telling, counting])
            await parts.outbound.close()
        if self._dead.is_set():
            raise ProcessDead(f"process {me} was declared dead")
        if parts.poller.in_hand == 0:
            await _said(parts.queue.leave())  # after the duties, one of which may just have connected

    def _begin(self, parts: Parts, polling: "asyncio.Task[None]") -> None:
        if self._readiness is not None:
            self._readiness.watch(lambda: self._lease.answered, lambda: parts.gauges.schema_fits, parts.claims_go_round)
        if self._instead is None:
            self._watchdog.watch(parts.watched(polling, self._lease))

    def _end(self) -> None:
        self._watchdog.end()
        if self._readiness is not None:
            self._readiness.end()

    async def _drain(self, parts: Parts, stop: Stop) -> None:
        if self._dead.is_set():
            parts.end_all()
            await parts.poller.drain(0, stop.hurry)
            return
        await parts.poller.drain(self._config.worker.grace, stop.hurry)

    async def _check_schema(self) -> None:
        connection = await connect(self._ways[0], "start", statement_timeout="30s")
        try:
            await migrations.verify(connection, LOCK_SECONDS)
        finally:
            await connection.close(timeout=5)

    async def _built(self, me: int) -> Parts:
        try:
            parts = await self._build(me)
            await self._declare(parts)
        except BaseException:
            with suppress(*DATABASE_ERRORS):  # or the others would have to find this process dead
                await JobQueue(self._database.control, me, []).leave()
            raise
        return parts

    async def _build(self, me: int) -> Parts:
        parts = Parts(
            self._config, self._types, self._database, self._metrics,
            me=me, dead=self._dead, schedules=self._scheduled, tally=self._tally, traces=self._traces,
        )  # fmt: skip
        self._lease.open_batch = lambda: parts.queue.open_batch
        await parts.build()
        self._parts = parts
        if not self._lease.held:
            self._database.shut(True)
            parts.poller.shut()
        return parts

    async def _declare(self, parts: Parts) -> None:
        for name, change in await parts.queue.declare([job.declaration() for job in self._config.job.values()]):
            _log.info("type.declared", job_type=name, change=change)
        for name, change in await parts.timetable.declare(self._config.timed(), list(self._types)):
            _log.info("schedule.declared", schedule=name, change=change)

        wanted = self._config.worker.wake == "ring"
        if wanted != await parts.queue.rings():
            _log.warning("wake.differs", wanted=self._config.worker.wake, cure="run `worker migrate`")

    async def _poll(self, parts: Parts, stop: Stop) -> None:
        if self._instead is not None:
            await self._instead(parts.poller, parts.queue)
            stop.ask()
        elif parts.queue.types:
            await parts.poller.run()

    def _events(self) -> Events:
        return Events(
            stops=lambda claims: self._if_built(lambda parts: parts.cancel(claims)),
            fenced=lambda: self._if_built(Parts.fence),
            confirmed=lambda: self._if_built(Parts.confirm),
            suspect=lambda process: self._if_built(lambda parts: parts.rescue.suspect(process)),
            chores=lambda chores: self._if_built(lambda parts: parts.tend(chores)),
            dead=self._dead.set,
        )

    def _if_built(self, act: Callable[[Parts], None]) -> None:
        # The lease begins to beat before there is anything to act upon.
        if self._parts is not None:
            act(self._parts)


async def _said(call: Coroutine[Any, Any, None]) -> None:
    """Say something that the others find out by themselves if it does not arrive."""
    with suppress(*DATABASE_ERRORS):
        async with asyncio.timeout(LEAVE_SECONDS):
            await call


async def _ended(tasks: Collection["asyncio.Task[None]"]) -> None:
    """Cancel until they have ended: a connection that breaks off can swallow the first time."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=1)
