"""The daemon: builds the parts, runs them in one TaskGroup, and stops in two stages.

A dead side duty ends the process loudly. A process that others declared dead comes back under a new id.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import asyncpg
import structlog

from worker import migrations
from worker.bell import Bell
from worker.config import Config, secret_values
from worker.context import Context
from worker.database import DATABASE_ERRORS, Database, wait_until_up
from worker.errors import CancelRequested, Interrupted, ProcessDead
from worker.executor import Executor
from worker.handlers import build
from worker.job import Job
from worker.job_queue import JobQueue
from worker.lease import Events, Lease, Terms
from worker.listener import Listener
from worker.log import register_secrets
from worker.metrics import Metrics
from worker.poller import Poller
from worker.report import Reporter
from worker.settler import Settler
from worker.stop import Stop, first
from worker.upkeep import Rescue, every, sweep

# What claims: the poller's loop for ever, or a drain once.
Claiming = Callable[[Poller, JobQueue], Coroutine[Any, Any, None]]

_log = structlog.get_logger()


def release() -> str:
    """This release's version."""
    try:
        return version("job-queue-worker")
    except PackageNotFoundError:
        return "0+unknown"


async def run(
    config: Config, stop: Stop, ready: Callable[[int], None] = lambda me: None, instead: Claiming | None = None
) -> None:
    """Run the daemon until `stop` is asked.

    Args:
        ready: called with the process's id once it claims.
        instead: claims in place of the poller's endless loop; when it returns, the daemon stops.

    Raises:
        DatabaseUnreachable, SchemaError, DeclarationError: at start only.
    """
    register_secrets(secret_values(config))
    url = _url(config)
    while True:
        await first(wait_until_up(url), stop.asked)
        if stop.asked.is_set():
            break
        try:
            await Service(config, url, instead).run(stop, ready)
        except ProcessDead:
            _log.warning("service.declared_dead", next="starting anew under a new id")
    _log.info("service.stopped")


class Service:
    """One life of the process under one id: the parts, and how they are wired."""

    def __init__(self, config: Config, url: str, instead: Claiming | None = None) -> None:
        self._config = config
        self._url = url
        self._instead = instead
        self._dead = asyncio.Event()
        self._built = False
        direct = config.database.direct_url
        self._direct = direct.get_secret_value() if direct else url
        settings = config.worker
        terms = Terms(settings.beat, settings.fence, settings.missing, settings.lease)
        self._types = {name: job_type for name, job_type in config.job.items() if job_type.kind != "http"}
        self._database = Database(url, self._direct, config.database.steps, config.database.search_path)
        self.metrics = Metrics.of(config, release())
        self.lease = Lease(
            self._direct, terms, self._events(), version=release(), types=list(self._types), slots=settings.concurrency
        )

    async def run(self, stop: Stop, ready: Callable[[int], None] = lambda me: None) -> None:
        """Start, work until `stop` is asked, drain, leave.

        Raises:
            ProcessDead: others declared this process dead.
        """
        await self._check_schema()
        me = await self.lease.start()
        try:
            await self._database.open(me)
            try:
                await self._work(me, stop, ready)
            finally:
                await self._database.close()
        finally:
            await self.lease.stop()

    async def _work(self, me: int, stop: Stop, ready: Callable[[int], None]) -> None:
        await self._build(me)
        await self._declare()
        _log.info("service.started", process=me, version=release(), environment=self._config.environment,
                  types=sorted(self._types))  # fmt: skip
        async with asyncio.TaskGroup() as duties:
            tasks = [duties.create_task(duty) for duty in self._duties()]
            polling = duties.create_task(self._until_dead(self._poll(stop)))
            ready(me)
            await first(self._dead.wait(), stop.asked)
            _log.info("service.draining", in_hand=self.poller.in_hand)
            polling.cancel()
            await asyncio.wait({polling})
            await self._drain(stop)
            for task in tasks:
                task.cancel()
        if self._dead.is_set():
            raise ProcessDead(f"process {me} was declared dead")

    async def _drain(self, stop: Stop) -> None:
        with suppress(*DATABASE_ERRORS):
            await self.bell.off()
        if self._dead.is_set():
            self.poller.interrupt(self._executor.running(), Interrupted("this process was declared dead"))
            await self.poller.drain(0, stop.hurry)
            return
        await self.poller.drain(self._config.worker.grace, stop.hurry)
        if self.poller.in_hand == 0:
            with suppress(*DATABASE_ERRORS):
                await self.queue.give_back()  # of a claim that the stop cut short
                await self.queue.leave()

    async def _check_schema(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            await migrations.verify(connection)
        finally:
            await connection.close(timeout=5)

    async def _build(self, me: int) -> None:
        config = self._config
        self.queue = JobQueue(self._database.control, me, list(self._types))
        self.lease.open_batch = lambda: self.queue.open_batch
        self._settler = Settler(self.queue)
        self._reporter = Reporter(self.metrics, self._types, config.worker.log_slow)
        handlers = await build(self._types, self._database.steps)
        self._executor = Executor(
            self._types,
            handlers,
            self._context,
            settler=self._settler,
            reporter=self._reporter,
            concurrency=config.worker.concurrency,
            master=config.worker.enabled,
        )
        self._listener = Listener(self._direct, me, self._ring, self.queue.test_ring)
        self.bell = Bell(
            self.queue, config.worker.poll, lambda: self._listener.hearing and config.worker.wake == "ring"
        )
        self.poller = Poller(
            self.queue,
            self._executor,
            self.bell,
            self.metrics,
            concurrency=config.worker.concurrency,
            prefetch=config.worker.prefetch,
        )
        self._rescue = Rescue(self.queue, self.poller)
        self._built = True
        if not self.lease.held:
            self.poller.shut()

    async def _declare(self) -> None:
        for name, change in await self.queue.declare([job.declaration() for job in self._config.job.values()]):
            _log.info("type.declared", job_type=name, change=change)

        wanted = self._config.worker.wake == "ring"
        if wanted != await self.queue.rings():
            _log.warning("wake.differs", wanted=self._config.worker.wake, cure="run `worker migrate`")

    def _duties(self) -> list[Coroutine[Any, Any, None]]:
        async def swept() -> None:
            await sweep(self.queue, self.bell.ring)

        async def sums() -> None:
            self._reporter.summary()

        poll = self._config.worker.poll
        return [
            self._settler.run(),
            self._listener.run(),
            every(min(poll, 1.0), swept),
            every(1.0, sums),
            self._until_dead(every(poll, self._rescue.run, self._rescue.hurry)),
        ]

    async def _until_dead(self, duty: Coroutine[Any, Any, None]) -> None:
        try:
            await duty
        except ProcessDead:
            self._dead.set()  # the database may know before the lease's next beat

    async def _poll(self, stop: Stop) -> None:
        if self._instead is not None:
            await self._instead(self.poller, self.queue)
            stop.ask()
        elif self._config.worker.enabled:
            await self.poller.run()

    def _context(self, jobs: Sequence[Job]) -> Context:
        return Context(jobs, self._types[jobs[0].job_type].settings, self.queue, self._database.steps)

    def _events(self) -> Events:
        return Events(
            stops=lambda claims: self._if_built(lambda: self.poller.interrupt(claims, CancelRequested("cancelled"))),
            fenced=lambda: self._if_built(self._fence),
            confirmed=lambda: self._if_built(self._confirm),
            suspect=lambda process: self._if_built(lambda: self._rescue.suspect(process)),
            dead=self._dead.set,
        )

    def _if_built(self, act: Callable[[], None]) -> None:
        # The lease begins to beat before there is anything to act upon.
        if self._built:
            act()

    def _ring(self, for_me: bool) -> None:
        self.bell.ring(for_me)

    def _fence(self) -> None:
        _log.warning("lease.fenced", in_hand=self.poller.in_hand)
        self.poller.shut()

    def _confirm(self) -> None:
        _log.info("lease.confirmed")
        self.poller.open()


def _url(config: Config) -> str:
    assert config.database.url is not None  # checked by load
    return config.database.url.get_secret_value()
