"""What is asked of the database about the queue and about ourselves: gauges, the schema's fit, the profile at start."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson
import structlog

from worker import migrations
from worker.database import DATABASE_ERRORS, borrowed
from worker.errors import SchemaError
from worker.listener import Listener
from worker.metrics import Metrics

SAMPLE_EVERY = 5.0
SHARE = 50  # a sample that took long is followed by a pause of so many times its length
CHECK_EVERY = 30.0
TESTED_SECONDS = 5.0

_log = structlog.get_logger()


class Gauges:
    """Samples the queue, so that a scrape costs no query, however many scrape."""

    def __init__(self, control: "asyncpg.Pool[asyncpg.Record]", metrics: Metrics) -> None:
        self._control = control
        self._metrics = metrics
        self._next_at = 0.0
        self.schema_fits = True  # verified at start, before anything is claimed

    async def sample(self) -> None:
        """Set the gauges from one call; while the database is away nothing is known, and they say so."""
        if time.monotonic() < self._next_at:
            return
        began = time.monotonic()
        try:
            found = orjson.loads(await self._control.fetchval("select worker.health()"))
        except DATABASE_ERRORS:
            self._metrics.queue_unknown()
            raise
        self._metrics.queue(_summed(found["types"], self._metrics), found["oldest_transaction"])
        self._next_at = began + SHARE * (time.monotonic() - began)

    async def check_schema(self) -> None:
        """Look whether the schema still is the one of this release; somebody may migrate while we run."""
        try:
            async with borrowed(self._control) as connection:
                await migrations.verify(connection)
        except SchemaError as error:
            if self.schema_fits:
                _log.warning("schema.differs", error=str(error))
            self.schema_fits = False
        else:
            self.schema_fits = True


def _summed(types: list[dict[str, Any]], metrics: Metrics) -> Mapping[str, tuple[int, int, float]]:
    """Pending, running and seconds of the oldest due, by label: undeclared types together are `other`."""
    pending: Counter[str] = Counter()
    running: Counter[str] = Counter()
    due: dict[str, float] = {}
    for row in types:
        label = metrics.label(row["job_type"])
        pending[label] += row["pending"]
        running[label] += row["running"]
        due[label] = max(due.get(label, 0.0), row["oldest_due"] or 0.0)
    return {label: (pending[label], running[label], due[label]) for label in due}


async def tell_profile(
    control: "asyncpg.Pool[asyncpg.Record]", steps: "asyncpg.Pool[asyncpg.Record]", listener: Listener
) -> None:
    """Write once what the connections can do, as soon as the listener's first test has an answer."""
    try:
        async with asyncio.timeout(TESTED_SECONDS):
            await listener.tested.wait()
    except TimeoutError:
        pass
    try:
        told, step_pooler = await _profile(control), (await _profile(steps))["pooler"]
    except DATABASE_ERRORS as error:
        sqlstate = getattr(error, "sqlstate", None)
        _log.warning("duty.failed", duty="profile", error=type(error).__name__, sqlstate=sqlstate)
        return
    listens = "heard" if listener.hearing else "deaf" if listener.tested.is_set() else "untested"
    _log.info("service.profile", **told, step_pooler=step_pooler, listener=listens)


async def _profile(pool: "asyncpg.Pool[asyncpg.Record]") -> dict[str, Any]:
    async with borrowed(pool) as connection:
        told: dict[str, Any] = orjson.loads(await connection.fetchval("select worker.profile()"))
        # A pooler gives its clients keys of its own to cancel by, so the pid they were told is no backend's.
        told["pooler"] = told.pop("pid") != connection.get_server_pid()
        return told
