"""What nobody can ask the daemons: the database's side and what all of them counted, sampled into a registry.

One call every few seconds over one connection, whoever scrapes and how often.
"""

import asyncio
import platform
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import orjson
import structlog
from prometheus_client import CollectorRegistry, Gauge, Info

from worker import migrations
from worker.connection import Connection, connect
from worker.database import DATABASE_ERRORS, is_transient
from worker.migrating import LOCK_SECONDS
from worker.queue_gauges import NOTHING, QueueGauges
from worker.series import OTHER
from worker.stop import Stop, beside, first
from worker.tallied import Tallied

SAMPLE_EVERY = 15.0
SAMPLE_SECONDS = 10.0  # for the answer
AGAIN_SECONDS = 3.0  # after one that did not come
STALE_SECONDS = 60.0  # after which it is not ready any more
CLOSE_SECONDS = 2.0
TYPES, SCHEDULES = 40, 20  # that have gauges of their own

_log = structlog.get_logger()


class Web(Protocol):
    """The HTTP side: it answers until it is cancelled."""

    async def serve(self, registry: CollectorRegistry, readiness: "Exporter") -> None: ...


class Exporter:
    """Samples until it is cancelled; `ready` while the last sample came, and lately."""

    def __init__(self, url: str, build: Mapping[str, str]) -> None:
        self.registry = CollectorRegistry()
        self._url = url
        self._connection: Connection | None = None
        self._gone = asyncio.Event()
        self._sampled_at: float | None = None
        self._up = self._begun = self._told = False
        self._types: frozenset[str] = frozenset()
        self._schedules: frozenset[str] = frozenset()
        self._queue = QueueGauges(self.registry, self._type_label, self._schedule_label)
        self._tallied = Tallied(self.registry)
        self._define(build)

    @property
    def ready(self) -> bool:
        """Whether what a scrape reads is how it is."""
        return self._up and self._age() <= STALE_SECONDS

    async def run(self) -> None:
        """Sample, for ever.

        Raises:
            SchemaError, DATABASE_ERRORS: the first sample was refused for good; later ones are tried again.
        """
        try:
            while True:
                came = await self._try()
                self._gone.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout((SAMPLE_EVERY if came else AGAIN_SECONDS) * random.uniform(0.9, 1.1)):
                        await self._gone.wait()
        finally:
            await self._close()

    async def _try(self) -> bool:
        began = time.monotonic()
        try:
            async with asyncio.timeout(SAMPLE_SECONDS):
                found = await self._ask()
        except DATABASE_ERRORS as error:
            if not self._begun and not is_transient(error):
                raise
            await self._lost(error)
            return False
        self._show(found)
        self._seconds.set(time.monotonic() - began)
        self._sampled_at = time.monotonic()
        self._up = self._begun = True
        return True

    async def _ask(self) -> dict[str, Any]:
        if self._connection is None:
            self._connection = await connect(self._url, "exporter", statement_timeout=str(int(SAMPLE_SECONDS * 1000)))
            self._connection.add_termination_listener(self._ended)
            if not self._begun:
                await migrations.verify(self._connection, LOCK_SECONDS)
        found: dict[str, Any] = orjson.loads(await self._connection.fetchval("select worker.exported()"))
        return found

    def _show(self, found: Mapping[str, Any]) -> None:
        declared, known = found["declared"], [each["name"] for each in found["schedules"]]
        self._types, self._schedules = frozenset(declared[:TYPES]), frozenset(known[:SCHEDULES])
        self._queue.show(found, sorted(self._types), sorted(self._schedules))
        self._tallied.show(found["counts"], set(declared), set(known))

    async def _lost(self, error: BaseException) -> None:
        self._queue.unknown()
        if self._up or not self._told:  # once for each time that it goes away
            sqlstate = getattr(error, "sqlstate", None)
            _log.warning("duty.failed", duty="exporter", error=type(error).__name__, sqlstate=sqlstate)
        self._up, self._told = False, True
        await self._close()

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*DATABASE_ERRORS):
                await connection.close(timeout=CLOSE_SECONDS)

    def _ended(self, connection: object) -> None:
        if connection is self._connection:  # the server ended it: look at once whether there is one
            self._gone.set()

    def _type_label(self, job_type: str) -> str:
        return job_type if job_type in self._types else OTHER

    def _schedule_label(self, schedule: str) -> str:
        return schedule if schedule in self._schedules else OTHER

    def _age(self) -> float:
        return NOTHING if self._sampled_at is None else time.monotonic() - self._sampled_at

    def _define(self, build: Mapping[str, str]) -> None:
        about = "worker_exporter_"
        up = Gauge(f"{about}database_up", "1 when the last sample came.", registry=self.registry)
        up.set_function(lambda: float(self._up))
        age = Gauge(f"{about}sample_age_seconds", "How old the last sample is.", registry=self.registry)
        age.set_function(self._age)
        self._seconds = Gauge(f"{about}sample_seconds", "How long the last sample took.", registry=self.registry)
        self._seconds.set(NOTHING)
        left_out = Gauge(
            f"{about}series_left_out", "Series summed under other for want of room.", registry=self.registry
        )
        left_out.set_function(lambda: self._tallied.left_out)
        info = Info(f"{about}build", "What serves this.", registry=self.registry)
        info.info({"python": platform.python_version(), **build})


async def serve(exporter: Exporter, web: Web, stop: Stop) -> None:
    """Sample and answer until `stop` is asked."""
    await first(beside(web.serve(exporter.registry, exporter), exporter.run()), stop.asked)
