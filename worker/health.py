"""What is asked of the database about the queue and about ourselves: gauges, the schema's fit, the profile at start."""

import asyncio
import time

import asyncpg
import structlog

from worker import migrations
from worker.database import DATABASE_ERRORS, Database, borrowed
from worker.errors import SchemaError
from worker.job_queue import JobQueue, profile
from worker.listener import Listener
from worker.metrics import Metrics
from worker.migrating import under_way
from worker.way import Pooler

SAMPLE_EVERY = 5.0
SHARE = 50  # a sample that took long is followed by a pause of so many times its length
CHECK_EVERY = 30.0
TESTED_SECONDS = 5.0
OLD_SECONDS = 60.0  # of a transaction, after which the log names its holder

_log = structlog.get_logger()


class Gauges:
    """Samples the queue, so that a scrape costs no query, however many scrape."""

    def __init__(self, queue: JobQueue, control: "asyncpg.Pool[asyncpg.Record]", metrics: Metrics) -> None:
        self._queue = queue
        self._control = control
        self._metrics = metrics
        self._next_at = 0.0
        self._told_of: str | None = None
        self.schema_fits = True  # verified at start, before anything is claimed

    async def sample(self) -> None:
        """Set the gauges from one call; while the database is away nothing is known, and they say so."""
        if time.monotonic() < self._next_at:
            return
        began = time.monotonic()
        try:
            found = await self._queue.health()
        except DATABASE_ERRORS:
            self._metrics.queue.unknown()
            raise
        self._metrics.sampled(found)
        self._tell_old(found["oldest_transaction"], found["oldest_transaction_by"])
        self._next_at = began + SHARE * (time.monotonic() - began)

    def _tell_old(self, seconds: float, by: str | None) -> None:
        """Name, once, who keeps vacuum from cleaning up behind the queue."""
        old = by if seconds >= OLD_SECONDS else None
        if old is not None and self._told_of is None:
            _log.warning("transaction.old", seconds=round(seconds), by=old)
        self._told_of = old

    async def check_schema(self) -> None:
        """Look whether the schema still serves this release; somebody may migrate while we run."""
        try:
            async with borrowed(self._control) as connection:
                try:
                    await migrations.verify(connection)
                except SchemaError:
                    if await under_way(connection):
                        return
                    raise
        except SchemaError as error:
            if self.schema_fits:
                _log.warning("schema.differs", error=str(error))
            self.schema_fits = False
        else:
            self.schema_fits = True


async def tell_profile(database: Database, listener: Listener) -> None:
    """Write once what the connections can do, as soon as the listener's first test has an answer."""
    try:
        async with asyncio.timeout(TESTED_SECONDS):
            await listener.tested.wait()
    except TimeoutError:
        pass
    try:
        async with borrowed(database.control) as connection:
            told = await profile(connection)
    except DATABASE_ERRORS as error:
        sqlstate = getattr(error, "sqlstate", None)
        _log.warning("duty.failed", duty="profile", error=type(error).__name__, sqlstate=sqlstate)
        return
    del told["pid"]
    way, steps_way = database.ways
    judged_by = "session" if steps_way.pooler is Pooler.NONE else "lease"
    _log.info("service.profile", **told, pooler=way.pooler.value, step_pooler=steps_way.pooler.value,
              listener=listener.state, judged_by=judged_by)  # fmt: skip
