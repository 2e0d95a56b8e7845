"""The daemon: builds the parts, runs them in one TaskGroup, and stops in two stages.

A dead side duty ends the process loudly. A process that others declared dead comes back under a new id.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import asyncpg
import structlog
from prometheus_client import CollectorRegistry

from worker import migrations
from worker.config import Config, secret_values
from worker.database import DATABASE_ERRORS, Database, is_transient, wait_until_up
from worker.errors import ProcessDead
from worker.job_queue import JobQueue
from worker.lease import Events, Lease, Terms
from worker.log import register_secrets
from worker.metrics import Metrics
from worker.parts import Parts
from worker.poller import Poller
from worker.pulse import Readiness
from worker.stop import Stop, beside, first

# What claims: the poller's loop for ever, or a drain once.
Claiming = Callable[[Poller, JobQueue], Coroutine[Any, Any, None]]

_log = structlog.get_logger()


class Web(Protocol):
    """The HTTP side as the daemon sees it: it answers until it is cancelled, and asks the database nothing."""

    async def serve(self, registry: CollectorRegistry, readiness: Readiness) -> None: ...


def release() -> str:
    """This release's version."""
    try:
        return version("job-queue-worker")
    except PackageNotFoundError:
        return "0+unknown"


async def run(
    config: Config,
    stop: Stop,
    ready: Callable[[int], None] = lambda me: None,
    instead: Claiming | None = None,
    web: Web | None = None,
) -> None:
    """Run the daemon until `stop` is asked.

    Args:
        ready: called with the process's id once it claims.
        instead: claims in place of the poller's endless loop; when it returns, the daemon stops.
        web: served from before the database is reached until the last job is handed back.

    Raises:
        DatabaseUnreachable, SchemaError, DeclarationError: at start only.
    """
    register_secrets(secret_values(config))
    metrics, readiness = Metrics.of(config, release()), Readiness()
    lives = _lives(config, stop, ready, instead, metrics=metrics, readiness=readiness if web else None)
    await (beside(lives, web.serve(metrics.registry, readiness)) if web else lives)
    _log.info("service.stopped")


async def _lives(
    config: Config,
    stop: Stop,
    ready: Callable[[int], None],
    instead: Claiming | None,
    *,
    metrics: Metrics,
    readiness: Readiness | None,
) -> None:
    url = _url(config)
    while True:
        await first(wait_until_up(url), stop.asked)
        if stop.asked.is_set():
            break
        try:
            await Service(config, url, instead, metrics, readiness).run(stop, ready)
        except ProcessDead:
            _log.warning("service.declared_dead", next="starting anew under a new id")
        except DATABASE_ERRORS as error:
            if not is_transient(error):
                raise
            _log.warning("service.start_again", error=type(error).__name__)
            await first(asyncio.sleep(1), stop.asked)


class Service:
    """One life of the process under one id.

    Args:
        metrics: of the process, over all its lives.
        readiness: told when claims begin and end; None where nobody asks, and then no gauges are sampled either.
    """

    def __init__(
        self, config: Config, url: str, instead: Claiming | None, metrics: Metrics, readiness: Readiness | None
    ) -> None:
        self._config = config
        self._url = url
        self._instead = instead
        self._metrics = metrics
        self._readiness = readiness
        self._dead = asyncio.Event()
        self._parts: Parts | None = None
        direct = config.database.direct_url
        self._direct = direct.get_secret_value() if direct else url
        settings = config.worker
        terms = Terms(settings.beat, settings.fence, settings.missing, settings.lease)
        self._types = dict(config.job)
        self._database = Database(url, self._direct, config.database.steps, config.database.search_path)
        self._lease = Lease(
            self._direct, terms, self._events(), version=release(), types=list(self._types), slots=settings.concurrency
        )

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
            self._begin(parts)
            ready(me)
            await first(self._dead.wait(), stop.asked)
            self._end()
            _log.info("service.draining", in_hand=parts.poller.in_hand)
            polling.cancel()
            await asyncio.wait({polling})
            await self._drain(parts, stop)
            for task in tasks:
                task.cancel()
            await parts.outbound.close()
        if self._dead.is_set():
            raise ProcessDead(f"process {me} was declared dead")
        if parts.poller.in_hand == 0:
            with suppress(*DATABASE_ERRORS):
                await parts.queue.leave()  # after the duties, one of which may just have connected

    def _begin(self, parts: Parts) -> None:
        if self._readiness is not None:
            self._readiness.watch(lambda: self._lease.held, lambda: parts.gauges.schema_fits, parts.claims_go_round)

    def _end(self) -> None:
        if self._readiness is not None:
            self._readiness.end()

    async def _drain(self, parts: Parts, stop: Stop) -> None:
        with suppress(*DATABASE_ERRORS):
            await parts.bell.off()
        if self._dead.is_set():
            parts.end_all()
            await parts.poller.drain(0, stop.hurry)
            return
        await parts.poller.drain(self._config.worker.grace, stop.hurry)
        if parts.poller.in_hand == 0:
            with suppress(*DATABASE_ERRORS):
                await parts.queue.give_back()  # of a claim that the stop cut short

    async def _check_schema(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=10)
        try:
            await migrations.verify(connection)
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
            self._config, self._types, self._database, self._metrics, me=me, direct=self._direct, dead=self._dead
        )
        self._lease.open_batch = lambda: parts.queue.open_batch
        await parts.build()
        self._parts = parts
        if not self._lease.held:
            parts.poller.shut()
        return parts

    async def _declare(self, parts: Parts) -> None:
        for name, change in await parts.queue.declare([job.declaration() for job in self._config.job.values()]):
            _log.info("type.declared", job_type=name, change=change)

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
            dead=self._dead.set,
        )

    def _if_built(self, act: Callable[[Parts], None]) -> None:
        # The lease begins to beat before there is anything to act upon.
        if self._parts is not None:
            act(self._parts)


def _url(config: Config) -> str:
    assert config.database.url is not None  # checked by load
    return config.database.url.get_secret_value()
